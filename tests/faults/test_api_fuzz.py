"""Requests made up from the OpenAPI document, right ones and wrong ones, of an attempt that proves itself: every one
has an answer that the document names, and none is a fault of the server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings

from tests.support.api import TOKEN, RunningApi, running_api
from tests.support.control_plane import control_plane, empty_task
from trainflow.api.openapi import openapi_document
from trainflow.messages.http_protocol import PREFIX, PROTOCOL, PROTOCOL_HEADER, TOKEN_HEADER
from trainflow.messages.workload import ExecuteTask, ProcessExit

schemathesis = pytest.importorskip("schemathesis", reason="pip install 'trainflow[test]'")

from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

SCHEMA = schemathesis.openapi.from_dict(msgspec.json.decode(openapi_document("0")))
#: what people and programs ask: see test_api_rest_fuzz. Requests are made up when the test runs, as there
OF_ATTEMPTS = schemathesis.pytest.from_fixture("document").exclude(path_regex="^/api/")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPTIONS: dict[str, Any] = {"deadline": None, "derandomize": True, "database": None}


class Fuzzed:
    """An API server and an attempt that runs: a new one, when a made-up outcome has ended the last one."""

    def __init__(self, api: RunningApi) -> None:
        self.api = api
        self.numbers = itertools.count()
        self.work: ExecuteTask | None = None
        self.renew()

    def renew(self) -> None:
        """Have another attempt, whose secret is not used."""
        if self.work is not None:
            self.api.plane.service.exited(self.work.key, ProcessExit(code=1))
        self.number = next(self.numbers)
        self.api.plane.add_run("d", f"r{self.number}")
        self.api.plane.scheduler.sweep()
        self.work = self.api.plane.tick()[-1]
        self.secret = self.api.issue(self.work)

    @property
    def token(self) -> str:
        """The token of the attempt."""
        return f"{TOKEN}{self.number}"

    def claim(self) -> None:
        """Have the attempt run."""
        assert self.work is not None
        if self.api.start(self.work, self.secret, self.token, pid=self.number).status != 200:
            self.renew()
            assert self.api.start(self.work, self.secret, self.token, pid=self.number).status == 200


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainflow.api.heartbeats.GATHER_SECONDS", 0.0)
        folder: Path = tmp_path_factory.mktemp("fuzz")
        with control_plane(folder) as plane, running_api(plane) as api:
            plane.add_dag("d", empty_task("a"), max_active_runs=10_000)
            yield Fuzzed(api)


@pytest.fixture(scope="module")
def document() -> Any:
    """Of all endpoints."""
    return SCHEMA


@pytest.fixture(autouse=True)
def _name_of_test(request: pytest.FixtureRequest) -> None:
    """Schemathesis 4.32 looks for it where pytest 9.2 has it no more."""
    request.node._nodeid = request.node.nodeid


@pytest.mark.slow
@pytest.mark.exhaustive
@OF_ATTEMPTS.parametrize()
@settings(max_examples=15, suppress_health_check=list(HealthCheck), **OPTIONS)
def test_every_request_has_an_answer_that_the_document_names(fuzzed: Fuzzed, case: Any) -> None:
    headers = {}
    if case.path.startswith(PREFIX):
        is_start = case.path.endswith("/start")
        fuzzed.renew() if is_start else fuzzed.claim()
        headers = {"Authorization": f"Bearer {fuzzed.secret if is_start else fuzzed.token}"}
        if PROTOCOL_HEADER in (case.headers or {}):
            headers[PROTOCOL_HEADER] = str(PROTOCOL)
        if is_start and len((case.headers or {}).get(TOKEN_HEADER, "")) >= 40:
            headers[TOKEN_HEADER] = fuzzed.token
        if isinstance(case.body, dict) and isinstance(case.body.get("key"), dict):
            case.body["key"] = {"attempt_id": fuzzed.work.key.attempt_id, "deferral_number": 0}
    case.call_and_validate(base_url=fuzzed.api.url, headers=headers, checks=CHECKS)


def test_values_that_no_database_takes_are_refused_in_words(fuzzed: Fuzzed) -> None:
    """What a made-up request seldom holds."""
    bodies = {
        "rows-saved": ['"rows":99999999999999999999999', '"rows":1.5', '"rows":-9223372036854775809'],
        "progress": ['"done":1e309', '"done":1,"note":"\\u0000"', '"done":1,"metrics":{"\\u0000":1}', '"done":NaN'],
        "get-xcom": ['"dag_id":"\\u0000","run_id":"x","task_ids":["\\ud800"],"xcom_key":"k"'],
        "trigger-run": ['"run":{"dag_id":"d","run_id":"\\u0000"}', '"run":{"dag_id":"d","run_id":""}'],
        "outcome": [
            '"state":"deferred"',
            '"state":"rescheduled","reschedule_at":"9999-12-31T23:59:59+14:00"',
            '"state":"rescheduled","reschedule_seconds":1e300',
            '"state":"rescheduled","reschedule_seconds":-1',
        ],
    }
    for operation, parts in bodies.items():
        for part in parts:
            fuzzed.claim()
            headers = {"Authorization": f"Bearer {fuzzed.token}", PROTOCOL_HEADER: "1"}
            attempt = f'{{"attempt_id":"{fuzzed.work.key.attempt_id}"}}'
            body = f'{{"key":{attempt},{part}}}'.encode()
            answer = fuzzed.api.ask("POST", f"{PREFIX}/{operation}", body, **headers)
            assert answer.status < 500, (operation, part, answer)
