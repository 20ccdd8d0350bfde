"""The same request many times at once: done once, on each database, also where another person has the same key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import server_of
from tests.support.api import Answer
from tests.support.rest import RestApi, rest_api
from trainflow.actions.tokens import create_token
from trainflow.workspace.workspace import Workspace

AT_ONCE = 50
RUNS = "/dags/d/dagRuns"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def rest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RestApi]:
    server = server_of(request, request.param)
    url = {} if server is None else {"database_url": server.clean_database()}
    with rest_api(tmp_path, token="0123456789abcdef", **url) as served:  # type: ignore[arg-type]
        yield served


def _token(rest: RestApi, name: str) -> dict[str, str]:
    with Workspace(rest.plane.project, rest.plane.settings, rest.plane.database) as workspace:
        made = create_token(workspace, name, "operator", who="test", now=rest.plane.clock.now(), lifetime=None)
    return {"Authorization": f"Bearer {made.token}"}


def _at_once(rest: RestApi, asked: list[tuple[Any, dict[str, str]]]) -> list[Answer]:
    """Answers to these bodies and headers, all sent at the same time."""
    with ThreadPoolExecutor(len(asked)) as threads:
        return list(threads.map(lambda each: rest.ask("POST", RUNS, each[0], **each[1]), asked))


def _runs(rest: RestApi, who: dict[str, str]) -> list[Any]:
    conf = [run["conf"] for run in rest.get(f"{RUNS}?limit=1000", **who)["dag_runs"]]
    return [each for each in conf if each]


def test_same_request_at_once_is_done_once(rest: RestApi) -> None:
    ann, bob = _token(rest, "ann"), _token(rest, "bob")
    body = {"conf": {"a": 1}}
    answers = _at_once(rest, [(body, {**ann, "Idempotency-Key": "k"})] * AT_ONCE)
    assert _runs(rest, ann) == [{"a": 1}]
    done = [each for each in answers if each.status == 200]
    assert {each.body["dag_run_id"] for each in done} == {done[0].body["dag_run_id"]}
    others = [each for each in answers if each.status != 200]
    assert {(each.status, each.body["title"], each.headers["retry-after"]) for each in others} <= {
        (409, "StillAtWork", "1")
    }
    # and once it is done, all get its answer
    again = _at_once(rest, [(body, {**ann, "Idempotency-Key": "k"})] * 3)
    assert [each.body for each in again] == [done[0].body] * 3
    # the key of another person is another key
    assert rest.ask("POST", RUNS, {"conf": {"b": 1}}, status=200, **bob, **{"Idempotency-Key": "k"}).body
    assert len(_runs(rest, ann)) == 2


def test_same_key_with_other_bodies_at_once_does_one_of_them(rest: RestApi) -> None:
    ann = _token(rest, "ann")
    answers = _at_once(rest, [({"conf": {"n": n + 1}}, {**ann, "Idempotency-Key": "k"}) for n in range(AT_ONCE)])
    (winner,) = [each for each in answers if each.status == 200]
    assert _runs(rest, ann) == [winner.body["conf"]]
    assert Counter((each.status, each.body["title"]) for each in answers if each.status != 200) == {
        (422, "KeyUsed"): AT_ONCE - 1
    }


def test_many_keys_at_once_are_as_many_runs(rest: RestApi) -> None:
    ann = _token(rest, "ann")
    asked = [({"conf": {"n": n + 1}}, {**ann, "Idempotency-Key": f"k{n}"}) for n in range(20)]
    answers = _at_once(rest, asked * 2)
    assert {each.status for each in answers} <= {200, 409}
    assert sorted(run["n"] for run in _runs(rest, ann)) == list(range(1, 21))
