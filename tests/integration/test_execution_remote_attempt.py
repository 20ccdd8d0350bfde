"""What a supervisor says for its attempt: heartbeats, the newest progress, its log; through outages and partitions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from sqlalchemy import select

from tests.integration.execution_requests import everything, pulled, xcom
from tests.support.api import RunningApi, running_api
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.faulty_proxy import Partition
from trainflow.clock import SystemClock
from trainflow.execution import remote_attempt
from trainflow.execution.http_api_client import HttpApiClient
from trainflow.execution.remote_attempt import AttemptSession
from trainflow.messages.execution_api import (
    OUTCOME_REFUSED,
    Done,
    Failed,
    MetricCurves,
    Outcome,
    OutcomeState,
    ProcessEnded,
    Progress,
    Refused,
    RowsSaved,
    Start,
    Started,
    XComItem,
)
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.metadata import attempt_credentials
from trainflow.metadata.models import AttemptCurvesTable
from trainflow.metadata.queries import attempt_queries, service_queries
from trainflow.scheduler.lost_attempts import RemoteAttempts
from trainflow.testing.processes import DEADLINE_SECONDS, wait_for

QUICK = 0.02


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApi]:
    monkeypatch.setattr("trainflow.api.heartbeats.GATHER_SECONDS", 0.0)
    monkeypatch.setattr(remote_attempt, "TELL_SECONDS", QUICK)
    with control_plane(tmp_path) as plane, running_api(plane) as api:
        plane.add_dag("d", empty_task("a"), empty_task("b", "a"))
        yield api


class Supervisor:
    """A supervisor of one attempt behind a network that can be cut."""

    def __init__(self, api: RunningApi, work: ExecuteTask, log_file: Path | None = None) -> None:
        self.work = work
        self.network = Partition(api.port)
        self.refusals: list[str] = []
        self.refused = threading.Event()
        url = f"http://127.0.0.1:{self.network.port}"
        client = HttpApiClient(
            url, api.issue(work), clock=SystemClock(), sleep=lambda _seconds: threading.Event().wait(QUICK) and None
        )
        self.session = AttemptSession(
            client, work.key, heartbeat_seconds=QUICK, on_refused=self._told, log_file=log_file
        )
        self.started = self.session.handle(Start(work.key, 1, 1.0, "there"))

    def _told(self, reason: str) -> None:
        self.refusals.append(reason)
        self.refused.set()

    def close(self) -> None:
        self.session.close(2.0)
        self.network.close()


@pytest.fixture
def supervise(api: RunningApi) -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def begin(work: ExecuteTask, log_file: Path | None = None) -> Supervisor:
        made.append(Supervisor(api, work, log_file))
        return made[-1]

    yield begin
    for each in made:
        each.close()


@pytest.fixture
def run(api: RunningApi) -> int:
    return api.plane.add_run("d")


@pytest.fixture
def work(api: RunningApi, run: int) -> ExecuteTask:
    (work,) = api.plane.tick()
    return work


def beats(plane: ControlPlane) -> int:
    with plane.database.reading() as connection:
        return sum(each.heartbeats for each in attempt_credentials.running_elsewhere(connection, plane.service_id))


def test_heartbeats_begin_with_the_claim(
    api: RunningApi, work: ExecuteTask, supervise: Callable[..., Supervisor]
) -> None:
    assert isinstance(supervise(work).started, Started)
    wait_for(lambda: beats(api.plane) >= 2, lambda: "heartbeats")


def test_progress_and_saves_need_no_answer_and_arrive(
    api: RunningApi, run: int, work: ExecuteTask, supervise: Callable[..., Supervisor]
) -> None:
    session = supervise(work).session
    for rows in range(1, 100):
        assert session.handle(Progress(work.key, float(rows))) == Done()
        assert session.handle(RowsSaved(work.key, rows)) == Done()

    def arrived() -> bool:
        row = api.plane.task(run, "a")
        return (row.saved_rows, (row.progress or {}).get("done")) == (99, 99.0)

    wait_for(arrived, lambda: "the newest progress")


def kept_curves(api: RunningApi) -> list[MetricCurves]:
    with api.plane.database.reading() as connection:
        return list(connection.execute(select(AttemptCurvesTable.table.c.curves)).scalars())


@pytest.mark.parametrize("cut", [False, True])
def test_curves_are_not_lost_by_progress_that_follows_and_are_said_before_the_end(
    api: RunningApi, work: ExecuteTask, supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """Curves are told now and then, progress all the time; nothing is said of an attempt that has ended."""
    supervisor = supervise(work)
    with supervisor.session._lock:  # nothing is sent meanwhile
        told = supervisor.session._newest
        told[Progress] = Progress(work.key, 1.0, curves={"loss": [(1.0, 0.5, 1000)]})
        told[Progress] = remote_attempt._with_curves_of(told[Progress], Progress(work.key, 2.0))
        if cut:
            supervisor.network.cut()
    if cut:
        supervisor.session._try(supervisor.session._tell)
        supervisor.session.handle(Progress(work.key, 3.0))
        supervisor.network.heal()
    supervisor.session.say(ProcessEnded(work.key, ProcessExit(signal=9)))
    assert kept_curves(api) == [{"loss": [[1.0, 0.5, 1000]]}]


def test_log_is_sent_as_it_grows_and_to_its_end(
    work: ExecuteTask, supervise: Callable[..., Supervisor], tmp_path: Path
) -> None:
    own, sent = tmp_path / "own.log", Path(work.log_path)
    supervisor = supervise(work, own)
    own.write_bytes(b"one\n")
    wait_for(lambda: sent.exists() and sent.read_bytes() == b"one\n", lambda: "the log")
    with own.open("ab") as file:
        file.write(b"x" * 1_000_000 + b"\xff\n")
    supervisor.session.handle(Outcome(work.key, OutcomeState.SUCCESS))
    with own.open("ab") as file:
        file.write(b"last words\n")
    supervisor.close()
    assert sent.read_bytes() == own.read_bytes()


def test_log_that_cannot_be_kept_keeps_no_heartbeat_from_being_heard(
    api: RunningApi, run: int, work: ExecuteTask, supervise: Callable[..., Supervisor], tmp_path: Path
) -> None:
    own, sent = tmp_path / "own.log", Path(work.log_path)
    in_the_way = api.plane.project.home.logs
    if in_the_way.is_dir():
        in_the_way.rename(tmp_path / "moved")
    in_the_way.write_text("as if the disk were full")
    supervisor = supervise(work, own)
    own.write_bytes(b"one\n")
    wait_for(lambda: beats(api.plane) >= 3, lambda: "heartbeats")
    supervisor.session.handle(Progress(work.key, 5.0))
    wait_for(lambda: (api.plane.task(run, "a").progress or {}).get("done") == 5.0, lambda: "progress")
    in_the_way.unlink()
    wait_for(lambda: sent.exists() and sent.read_bytes() == b"one\n", lambda: "the log")


def test_outage_is_trained_through_and_outcome_is_delivered_late(
    api: RunningApi, run: int, work: ExecuteTask, supervise: Callable[..., Supervisor]
) -> None:
    supervisor = supervise(work)
    wait_for(lambda: beats(api.plane) >= 1, lambda: "a heartbeat")
    supervisor.network.cut()
    replies = [supervisor.session.handle(Progress(work.key, float(rows))) for rows in range(1, 50)]
    assert replies == [Done()] * 49
    reported: list[object] = []
    outcome = Outcome(work.key, OutcomeState.SUCCESS, xcoms=[xcom("return_value", 1)])
    reporting = threading.Thread(target=lambda: reported.append(supervisor.session.handle(outcome)))
    reporting.start()
    assert api.plane.task(run, "a").state == "running"
    assert (supervisor.refusals, reported) == ([], [])
    supervisor.network.heal()
    reporting.join(DEADLINE_SECONDS)
    assert reported == [Done()]
    assert api.plane.task(run, "a").state == "success"


def test_outcome_that_is_not_understood_fails_the_attempt_and_says_why(
    api: RunningApi, run: int, work: ExecuteTask, supervise: Callable[..., Supervisor]
) -> None:
    session = supervise(work).session
    broken = XComItem("return_value", msgspec.Raw(b"NaN"))
    reply = session.handle(Outcome(work.key, OutcomeState.SUCCESS, xcoms=[broken], saved_rows=7))
    assert isinstance(reply, Failed)
    assert reply.error == OUTCOME_REFUSED
    row = api.plane.task(run, "a")
    # tried again as any other failure
    assert (row.state, row.saved_rows) == ("up_for_retry", 7)
    assert row.problem.startswith("the API server does not take its outcome (success): outcome: ")
    with api.plane.database.reading() as connection:
        assert attempt_queries.outcome(connection, work.key.attempt_id) == "failed"


def test_attempt_that_reports_is_told_by_the_answer_alone(
    api: RunningApi, work: ExecuteTask, supervise: Callable[..., Supervisor]
) -> None:
    """The heartbeat that comes between an outcome and the end of its process is refused: nothing is to be stopped."""
    supervisor = supervise(work)
    wait_for(lambda: beats(api.plane) >= 1, lambda: "a heartbeat")
    assert supervisor.session.handle(Outcome(work.key, OutcomeState.SUCCESS)) == Done()
    wait_for(
        lambda: isinstance(supervisor.session.handle(Progress(work.key, 1.0)), Refused),
        lambda: "a heartbeat that is refused",
    )
    assert supervisor.refusals == []


def test_cleared_attempt_is_told_by_its_next_heartbeat(
    api: RunningApi, run: int, work: ExecuteTask, supervise: Callable[..., Supervisor]
) -> None:
    from trainflow.metadata.queries import run_queries

    supervisor = supervise(work)
    with api.plane.database.transaction() as connection:
        run_queries.clear(connection, run, api.plane.clock.now())
    assert supervisor.refused.wait(DEADLINE_SECONDS)
    assert "not waited for any more" in supervisor.refusals[0]
    assert isinstance(supervisor.session.handle(Progress(work.key, 1.0)), Refused)


def test_partitioned_attempt_changes_nothing_when_it_comes_back(
    api: RunningApi, run: int, work: ExecuteTask, supervise: Callable[..., Supervisor]
) -> None:
    """It cannot reach the API for longer than every lease, while a second attempt runs and its run goes on."""
    plane = api.plane
    watch = RemoteAttempts(
        plane.database, plane.service.exited, plane.clock.monotonic, own=plane.service_id, lost_after_seconds=60.0
    )
    first = supervise(work)
    wait_for(lambda: beats(plane) >= 1, lambda: "a heartbeat")
    first.network.cut()
    for _ in range(30):
        plane.clock.advance(timedelta(seconds=5))
        api.server.execution.lease.look()
        with plane.database.transaction() as connection:
            service_queries.renew_lease(connection, plane.service_id, plane.clock.now())
        watch.look()
    assert plane.task(run, "a").state == "scheduled"
    (again,) = plane.tick()
    second = supervise(again)
    for message in (Progress(again.key, 5.0), RowsSaved(again.key, 50)):
        assert second.session.handle(message) == Done()
    outcome = Outcome(again.key, OutcomeState.SUCCESS, xcoms=[xcom("return_value", "second")], saved_rows=50)
    assert second.session.handle(outcome) == Done()
    plane.scheduler.sweep()
    (then,) = plane.tick()
    assert then.task_id == "b"
    second.close()

    before = _but_for_leases(plane)
    # all the while it has trained on
    assert first.session.handle(Progress(work.key, 99.0)) == Done()
    assert first.session.handle(RowsSaved(work.key, 99)) == Done()
    assert first.refusals == []
    first.network.heal()
    assert first.refused.wait(DEADLINE_SECONDS)
    late = Outcome(work.key, OutcomeState.SUCCESS, xcoms=[xcom("return_value", "first")], saved_rows=99)
    assert isinstance(first.session.handle(late), Refused)
    assert _but_for_leases(plane) == before
    assert pulled(plane, then, "return_value", "a") == {"a": "second"}
    # both are told
    with plane.database.reading() as connection:
        told = attempt_queries.of_task(connection, 1)
    assert [(row.attempt_id, row.outcome, row.refused_at is not None) for row in told] == [
        (work.key.attempt_id, "lost", True),
        (again.key.attempt_id, "success", False),
    ]
    assert "its worker was not heard for 60 s" in str(told[0].problem)


def _but_for_leases(plane: ControlPlane) -> dict[str, object]:
    return {name: rows for name, rows in everything(plane).items() if name != "service"}


def test_session_that_is_closed_while_its_thread_begins_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread: an attempt may end before its first heartbeat."""
    session = AttemptSession(mock.Mock(), AttemptKey("a1"), heartbeat_seconds=60.0, on_refused=lambda _reason: None)
    start, closings = threading.Thread.start, ThreadPoolExecutor(1)
    closed: list[Future[None]] = []

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "heartbeat":
            closed.append(closings.submit(session.close))
            wait(closed, timeout=10 * QUICK)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    session._begin()
    with closings:
        assert [each.result() for each in closed] == [None]
