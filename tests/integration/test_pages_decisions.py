"""What is decided about a chain on a page is what was shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.api import Answer
from tests.support.rest import RestApi, rest_api
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.errors import InputError
from trainflow.metadata.queries import run_queries
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, split_of
from trainflow.workspace import branches

FORM = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"}
CHAIN = {"pipeline": "flights", "stage": "main", "branch": "main"}


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[RestApi]:
    with rest_api(tmp_path) as served:
        yield served


def _send(rest: RestApi, name: str, **fields: str) -> Answer:
    return rest.api.ask("POST", f"/do/{name}", urlencode(fields).encode(), Accept="text/html", **FORM)


def _fields(answer: Answer) -> dict[str, str]:
    found = re.findall(rb'<input type="hidden" name="([^"]*)" value="([^"]*)">', bytes(answer.body))
    return {name.decode(): value.decode() for name, value in found}


def test_rewind_of_a_chain_that_has_moved_since_it_was_shown_is_shown_anew(rest: RestApi, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "checkpoints")
    asked = _fields(_send(rest, "rewind", **CHAIN, to="2"))
    writer = ChainWriter(store, tmp_path / "more", ChainKey("flights"))
    writer.runs = 3
    writer.commit(split=split_of(9))
    anew = _send(rest, "rewind", **asked)
    assert (anew.status, b"the chain has moved since you were asked" in bytes(anew.body)) == (200, True)
    assert Ledger(store, ChainKey("flights")).state().head_number == 4
    confirmed = _fields(anew)
    # a second click does nothing more
    assert [_send(rest, "rewind", **confirmed).status for _ in range(2)] == [303, 303]
    state = Ledger(store, ChainKey("flights")).state()
    assert (state.head_number, state.generation) == (2, 1)


def test_resume_of_a_chain_that_trains_begins_no_second_run(rest: RestApi) -> None:
    from trainflow.actions.first_runs import begin_unless_under_way

    for _ in range(2):
        rest.plane.database.write(
            lambda connection: begin_unless_under_way(connection, "flights", rest.plane.clock.now())
        )
    with rest.plane.database.reading() as connection:
        assert len(run_queries.unfinished_of(connection, "flights")) == 1


def test_resume_of_a_branch_that_is_not_whole_begins_no_other_chain(
    rest: RestApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork that was cut off after its first stage: what trains the branch cannot be said."""
    rest.post("/chains/flights/main/main/fork", {"new_branch": "hot", "dry_run": False})

    def lacks(*_: object) -> None:
        raise InputError("branch 'hot' lacks fine")

    monkeypatch.setattr(branches, "_check_complete", lacks)
    for confirmed in ("", "yes"):
        fields = {**CHAIN, "branch": "hot", "decision": "again", "confirmed": confirmed}
        assert _send(rest, "resume", **fields).status == 400
    with rest.plane.database.reading() as connection:
        assert run_queries.unfinished_of(connection, "flights") == []
