"""The execution API over HTTP: who may say what, and what it does; the same request twice; what is not understood."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.execution_requests import DEFERRAL, everything, xcom
from tests.support.api import OTHER_TOKEN, TOKEN, RunningApi, logs_of, running_api
from tests.support.control_plane import ControlPlane
from trainflow.api.attempt_tokens import AttemptTokens
from trainflow.messages.execution_api import (
    AppendLog,
    GetDagRunState,
    GetXCom,
    Heartbeat,
    MeetRanks,
    Outcome,
    OutcomeState,
    ProcessEnded,
    Progress,
    RowsSaved,
    Start,
    TriggeredRun,
    TriggerRun,
)
from trainflow.messages.http_protocol import OPERATIONS, PREFIX, PROTOCOL, PROTOCOL_HEADER, TOKEN_HEADER
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit

#: nothing of it depends on the kind of database
_ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def api(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApi]:
    monkeypatch.setattr("trainflow.api.heartbeats.GATHER_SECONDS", 0.0)
    with running_api(plane) as api:
        yield api


@pytest.fixture
def secret(api: RunningApi, work: ExecuteTask) -> str:
    return api.issue(work)


@pytest.fixture
def claimed(api: RunningApi, work: ExecuteTask, secret: str) -> ExecuteTask:
    """An attempt that runs, and whose token is TOKEN."""
    assert api.start(work, secret).status == 200
    return work


def _said_by(key: AttemptKey) -> list[Any]:
    """A request of each kind but `start`."""
    return [
        Heartbeat(key),
        Progress(key, 5.0, 10.0),
        RowsSaved(key, 7),
        AppendLog(key, 0, b"line\n"),
        GetXCom(key, "d", "r1", None, "return_value"),
        TriggerRun(key, TriggeredRun("next", "t1")),
        GetDagRunState(key, "d", "r1"),
        Outcome(key, OutcomeState.SUCCESS),
        ProcessEnded(key, ProcessExit(code=1)),
    ]


class TestClaim:
    def test_start_moves_attempt_and_answers_what_task_needs(
        self, api: RunningApi, run: int, work: ExecuteTask, secret: str
    ) -> None:
        answer = api.start(work, secret)
        assert (answer.status, answer.body["type"], answer.body["run"]["run_id"]) == (200, "started", "r1")
        assert (api.plane.task(run, "a").state, api.plane.task(run, "a").hostname) == ("running", "there")
        assert TOKEN not in str(answer)
        assert secret not in str(answer)

    def test_token_of_a_claim_is_not_looked_up(
        self, api: RunningApi, work: ExecuteTask, secret: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        monkeypatch.setattr(AttemptTokens, "look_up", lambda _self, token: asked.append(token))
        api.start(work, secret)
        assert api.post(Heartbeat(work.key), TOKEN).status == 200
        assert asked == []
        assert api.post(Heartbeat(work.key), OTHER_TOKEN).status == 401
        assert asked == [OTHER_TOKEN]

    def test_start_again_by_same_process_changes_nothing(
        self, api: RunningApi, work: ExecuteTask, secret: str, claimed: ExecuteTask
    ) -> None:
        before = everything(api.plane)
        again = api.start(work, secret)
        assert (again.status, again.body["type"]) == (200, "started")
        assert api.post(Heartbeat(work.key), TOKEN).status == 200
        assert _without_counters(everything(api.plane)) == _without_counters(before)

    @pytest.mark.parametrize(
        ("token", "pid", "host"), [(OTHER_TOKEN, 101, "there"), (OTHER_TOKEN, 100, "there"), (OTHER_TOKEN, 100, "x")]
    )
    def test_start_by_another_process_is_told_that_it_is_taken(
        self, api: RunningApi, work: ExecuteTask, secret: str, claimed: ExecuteTask, token: str, pid: int, host: str
    ) -> None:
        before = everything(api.plane)
        answer = api.start(work, secret, token, pid, host)
        assert (answer.status, answer.body["error"]) == (409, "AttemptTaken")
        assert "another process has claimed" in answer.body["message"]
        assert everything(api.plane) == before
        assert api.post(Heartbeat(work.key), token).status == 401

    @pytest.mark.parametrize("wrong", ["tfclaim_" + "x" * 43, TOKEN, "", "ü"])
    def test_start_with_wrong_secret_is_refused(
        self, api: RunningApi, work: ExecuteTask, secret: str, wrong: str
    ) -> None:
        before = everything(api.plane)
        assert api.post(Start(work.key, 1, 1.0, "x"), wrong.encode("latin-1").decode("latin-1"), **_TOKEN).status == 401
        assert api.post(Start(work.key, 1, 1.0, "x"), None, **_TOKEN).status == 401
        assert everything(api.plane) == before

    def test_start_without_token_of_its_own_is_told(self, api: RunningApi, work: ExecuteTask, secret: str) -> None:
        for token in ("", "short"):
            answer = api.post(Start(work.key, 1, 1.0, "x"), secret, **{TOKEN_HEADER: token})
            assert (answer.status, answer.body["error"]) == (400, "TokenMissing")

    def test_secret_of_one_attempt_claims_no_other(self, api: RunningApi, plane: ControlPlane, secret: str) -> None:
        plane.add_run("next", "r2")
        (other,) = plane.tick()
        api.issue(other)
        assert api.start(other, secret).status == 401

    def test_token_of_one_attempt_registers_no_other(self, api: RunningApi, claimed: ExecuteTask) -> None:
        plane = api.plane
        plane.add_run("next", "r2")
        (other,) = plane.tick()
        answer = api.start(other, api.issue(other), TOKEN)
        assert (answer.status, answer.body["message"]) == (401, "this token stands for another attempt")

    def test_start_after_attempt_was_lost_is_gone(
        self, api: RunningApi, plane: ControlPlane, work: ExecuteTask, secret: str
    ) -> None:
        plane.exit(work)
        assert api.start(work, secret).status == 410


class TestRanksMeet:
    """Before an attempt begins its ranks find the first of them, by the claim secret."""

    def test_ranks_are_told_where_the_first_one_is_and_the_newest_counts(
        self, api: RunningApi, work: ExecuteTask, secret: str
    ) -> None:
        assert api.post(MeetRanks(work.key), secret).body == {"type": "ranks_meet", "address": None}
        for address in ("10.0.0.7:41000", "10.0.0.7:41000", "[fd00::1]:7"):
            told = {"type": "ranks_meet", "address": address}
            assert api.post(MeetRanks(work.key, address), secret).body == told
            assert api.post(MeetRanks(work.key), secret).body == told

    def test_claim_secret_still_claims_and_then_ranks_come_too_late(
        self, api: RunningApi, work: ExecuteTask, secret: str
    ) -> None:
        api.post(MeetRanks(work.key, "10.0.0.7:41000"), secret)
        assert api.start(work, secret).status == 200
        before = everything(api.plane)
        assert api.post(MeetRanks(work.key), secret).status == 410
        assert api.post(MeetRanks(work.key, "10.0.0.8:1"), secret).status == 410
        assert everything(api.plane) == before

    def test_ranks_of_attempt_that_is_not_waited_for_are_told_to_stop(
        self, api: RunningApi, plane: ControlPlane, work: ExecuteTask, secret: str
    ) -> None:
        plane.exit(work)
        before = everything(plane)
        assert api.post(MeetRanks(work.key), secret).status == 410
        assert api.post(MeetRanks(work.key, "10.0.0.8:1"), secret).status == 410
        assert everything(plane) == before

    def test_wrong_secret_or_address_is_refused(self, api: RunningApi, work: ExecuteTask, secret: str) -> None:
        before = everything(api.plane)
        for token in (None, TOKEN, secret[:-1]):
            assert api.post(MeetRanks(work.key, "10.0.0.8:1"), token).status == 401
        for address in ("", "host", "host:", ":7", "host:700000", "ho\0st:7", "h" * 300 + ":7"):
            assert api.post(MeetRanks(work.key, address), secret).status == 400
        assert everything(api.plane) == before


_TOKEN = {TOKEN_HEADER: TOKEN}


def _without_counters(tables: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: rows for name, rows in tables.items() if name not in ("attempt_credential", "service")}


@_ON_SQLITE
class TestToken:
    """Another attempt's, an old one, none, a forged one: nothing is changed."""

    @pytest.mark.parametrize("number", range(9))
    def test_request_without_or_with_forged_token_is_unauthorized(
        self, api: RunningApi, claimed: ExecuteTask, number: int
    ) -> None:
        before = everything(api.plane)
        message = _said_by(claimed.key)[number]
        for token in (None, OTHER_TOKEN, TOKEN[:-1], TOKEN + "a", api.secrets[claimed.key.attempt_id]):
            answer = api.post(message, token)
            assert (answer.status, answer.body["error"]) == (401, "Unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert everything(api.plane) == before

    @pytest.mark.parametrize("number", range(9))
    def test_request_with_token_of_another_attempt_is_forbidden(
        self, api: RunningApi, claimed: ExecuteTask, number: int
    ) -> None:
        plane = api.plane
        plane.add_run("next", "r2")
        (other,) = plane.tick()
        assert api.start(other, api.issue(other), OTHER_TOKEN).status == 200
        before = everything(plane)
        for key in (claimed.key, AttemptKey(other.key.attempt_id, 1), AttemptKey("missing")):
            assert api.post(_said_by(key)[number], OTHER_TOKEN).status == 403
        assert everything(plane) == before

    def test_requests_of_superseded_attempt_are_gone(self, api: RunningApi, claimed: ExecuteTask) -> None:
        plane = api.plane
        plane.exit(claimed)
        (again,) = plane.tick()
        assert api.start(again, api.issue(again), OTHER_TOKEN).status == 200
        before = everything(plane)
        answers = {type(message).__name__: api.post(message, TOKEN).status for message in _said_by(claimed.key)}
        # its log is its own, and is kept; that its process has ended changes nothing any more
        assert answers == {**dict.fromkeys(answers, 410), "AppendLog": 200, "ProcessEnded": 200}
        assert _without_counters(everything(plane)) == _without_counters(before)
        assert api.post(Outcome(again.key, OutcomeState.SUCCESS), OTHER_TOKEN).status == 200

    def test_token_of_ended_attempt_is_gone(self, api: RunningApi, claimed: ExecuteTask) -> None:
        assert api.post(Outcome(claimed.key, OutcomeState.SUCCESS), TOKEN).status == 200
        assert api.post(Heartbeat(claimed.key), TOKEN).status == 410
        assert api.post(Progress(claimed.key, 1.0), TOKEN).status == 410

    def test_token_goes_on_as_long_as_attempt_does(self, api: RunningApi, claimed: ExecuteTask) -> None:
        api.plane.clock.advance(timedelta(days=400))
        assert api.post(Heartbeat(claimed.key), TOKEN).status == 200
        assert api.post(Outcome(claimed.key, OutcomeState.SUCCESS), TOKEN).body == {"type": "done"}

    def test_token_of_before_a_deferral_ends_with_it(self, api: RunningApi, claimed: ExecuteTask) -> None:
        deferred = Outcome(claimed.key, OutcomeState.DEFERRED, deferral=DEFERRAL)
        assert api.post(deferred, TOKEN).status == 200
        assert api.post(deferred, TOKEN).status == 200
        assert api.post(Heartbeat(claimed.key), TOKEN).status == 410

    def test_nothing_secret_is_logged(
        self, api: RunningApi, work: ExecuteTask, secret: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        api.start(work, secret)
        api.start(work, secret, OTHER_TOKEN, 7)
        api.start(work, OTHER_TOKEN, TOKEN)
        for token in (TOKEN, OTHER_TOKEN, secret, None):
            for message in _said_by(work.key):
                api.post(message, token)
        api.ask("POST", f"{PREFIX}/start", b'{"key":', Authorization=f"Bearer {secret}", **{PROTOCOL_HEADER: "1"})
        said = logs_of(tmp_path, caplog)
        assert "409" in said
        for hidden in (secret, TOKEN, OTHER_TOKEN):
            assert hidden not in said
        stored = str(everything(api.plane))
        assert secret not in stored
        assert TOKEN not in stored


class TestTwice:
    def test_every_request_twice_has_effect_of_once(self, api: RunningApi, run: int, claimed: ExecuteTask) -> None:
        plane = api.plane
        for message in _said_by(claimed.key)[:-2]:
            first = api.post(message, TOKEN)
            before = _without_counters(everything(plane))
            assert api.post(message, TOKEN)[:2] == first[:2]
            assert _without_counters(everything(plane)) == before
        outcome = Outcome(
            claimed.key,
            OutcomeState.SUCCESS,
            xcoms=[xcom("return_value", {"n": 1})],
            triggered_runs=[TriggeredRun("next", "t1")],
            note="well",
        )
        assert api.post(outcome, TOKEN).body == {"type": "done"}
        before = everything(plane)
        assert api.post(outcome, TOKEN).body == {"type": "done"}
        assert everything(plane) == before
        assert plane.task(run, "a").note == "well"

    def test_log_is_added_once_in_order(self, api: RunningApi, work: ExecuteTask, claimed: ExecuteTask) -> None:
        parts = [(0, b"one\n"), (0, b"one\n"), (8, b"too early"), (2, b"e\ntwo\n"), (4, b"two\n\xff\x00"), (0, b"")]
        sizes = [api.post(AppendLog(work.key, offset, data), TOKEN).body["size"] for offset, data in parts]
        assert sizes == [4, 4, 4, 8, 10, 10]
        assert Path(work.log_path).read_bytes() == b"one\ntwo\n\xff\x00"

    def test_log_cannot_be_anywhere_else(self, api: RunningApi, tmp_path: Path, claimed: ExecuteTask) -> None:
        api.post(AppendLog(AttemptKey("../../../x"), 0, b"x"), TOKEN)
        api.ask("POST", f"{PREFIX}/log/../../x", b"{}", Authorization=f"Bearer {TOKEN}", **{PROTOCOL_HEADER: "1"})
        assert [path for path in tmp_path.rglob("*") if path.name == "x"] == []


@_ON_SQLITE
class TestNotUnderstood:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "truncated"),
            (b"{", "truncated"),
            (b"[]", "Expected `object`"),
            (b"{}", "missing required field `key`"),
            (b'{"key":{"attempt_id":1}}', "Expected `str`, got `int` - at `$.key.attempt_id`"),
            (b'{"key":{"attempt_id":"\xff"}}', "invalid"),
            (b"[" * 100_000, ""),
        ],
    )
    def test_bad_json_is_told_what_is_wrong(
        self, api: RunningApi, claimed: ExecuteTask, body: bytes, said: str
    ) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: "1"}
        for operation in OPERATIONS:
            if operation.name != "start" and len(body) <= operation.most_bytes:
                answer = api.ask("POST", f"{PREFIX}/{operation.name}", body, **headers)
                assert (answer.status, answer.body["error"]) == (400, "NotUnderstood"), operation.name
                assert said.lower() in answer.body["message"].lower()

    def test_too_large_is_refused_without_reading_it(self, api: RunningApi, claimed: ExecuteTask) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: "1"}
        answer = api.ask("POST", f"{PREFIX}/heartbeat", b" " * 5000, **headers)
        assert (answer.status, answer.body["error"]) == (413, "TooLarge")

    def test_unknown_path_and_method_are_told(self, api: RunningApi) -> None:
        assert api.ask("POST", f"{PREFIX}/nothing").status == 404
        assert api.ask("GET", "/nothing").status == 404
        assert api.ask("GET", f"{PREFIX}/start").status == 405

    @pytest.mark.parametrize(
        ("version", "said"),
        [
            (None, "is missing"),
            ("x", "is no number"),
            (str(PROTOCOL + 1), "upgrade the API server"),
            ("0", "upgrade the worker"),
            ("²", "is no number"),
        ],
    )
    def test_version_that_is_not_spoken_is_told_in_words(
        self, api: RunningApi, work: ExecuteTask, secret: str, version: str | None, said: str
    ) -> None:
        headers = {"Authorization": f"Bearer {secret}", TOKEN_HEADER: TOKEN}
        if version is not None:
            headers[PROTOCOL_HEADER] = version
        body = msgspec.json.encode(Start(work.key, 1, 1.0, "x"))
        answer = api.ask("POST", f"{PREFIX}/start", body, **headers)
        assert (answer.status, answer.body["error"]) == (400, "ProtocolVersion")
        assert said in answer.body["message"]


@pytest.mark.parametrize(
    "refused",
    [
        lambda key: RowsSaved(key, 1 << 62 << 10),
        lambda key: Progress(key, 1.0, note="\0"),
        lambda key: GetXCom(key, "\0", "\0", ["\0"], "\0"),
        lambda key: GetDagRunState(key, "\0", "\0"),
        lambda key: TriggerRun(key, TriggeredRun("next", "\0")),
    ],
)
def test_value_that_database_does_not_take_is_no_fault_of_the_server(
    api: RunningApi, claimed: ExecuteTask, refused: Callable[[AttemptKey], Any]
) -> None:
    assert api.post(refused(claimed.key), TOKEN).status in (200, 400, 422)
    assert api.post(Heartbeat(claimed.key), TOKEN).status == 200


@_ON_SQLITE
@pytest.mark.parametrize("attempt_id", ["a\0b", "a\nb", "a" * 65, "../a"])
def test_key_that_no_attempt_can_have_is_not_understood(
    api: RunningApi, caplog: pytest.LogCaptureFixture, attempt_id: str
) -> None:
    answer = api.post(Start(AttemptKey(attempt_id), 1, 1.0, "x"), "tfclaim_x", **_TOKEN)
    assert (answer.status, answer.body["error"]) == (400, "NotUnderstood")
    assert attempt_id not in caplog.text
    answer = api.post(Start(AttemptKey("a", 1 << 31), 1, 1.0, "x"), "tfclaim_x", **_TOKEN)
    assert answer.status == 400
