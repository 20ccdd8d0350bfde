"""What every executor does: inherit `ExecutorContract`, say how yours is made, and run it with pytest.

    class TestMine(ExecutorContract):
        def make_executor(self) -> Executor:
            return MyExecutor(...)

The host is a stand-in for the scheduler: it answers attempts on the home's socket and remembers what it was told.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from trainflow.clock import SystemClock
from trainflow.executors.execution_socket import ExecutionSocket
from trainflow.executors.executor import Executor, InFlightAttempt
from trainflow.executors.reactor import Reactor
from trainflow.messages.execution_api import (
    Done,
    Failed,
    Outcome,
    OutcomeState,
    Refused,
    Reply,
    Request,
    RunInfo,
    Start,
    Started,
)
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask, ProcessExit, ProcessIdentity
from trainflow.observability import processes
from trainflow.settings.model import EngineSettings, ExecutorSettings, Settings
from trainflow.settings.project import MARKER, Project, project_at
from trainflow.testing.contract_tasks import CODE, PIPELINE
from trainflow.testing.processes import DEADLINE_SECONDS


class Api:
    """Answers attempts: the first process that claims one has it."""

    def __init__(self) -> None:
        self.claims: dict[AttemptKey, Start] = {}
        self.refused: list[AttemptKey] = []
        self.outcomes: list[Outcome] = []
        self.on_outcome: Callable[[], None] = lambda: None

    def handle(self, request: Request) -> Reply:
        """See `ExecutionApi`."""
        match request:
            case Start(key):
                if self._is_claimed_for(request.instead_of, key):
                    self.claims[key] = request
                if self.claims.setdefault(key, request) != request:
                    self.refused.append(key)
                    return Refused("another process has it")
                moment = datetime(2026, 1, 1, tzinfo=UTC)
                return Started(RunInfo("contract", "r1", "manual", {}, moment), try_number=1, max_tries=0)
            case Outcome():
                self.outcomes.append(request)
                self.on_outcome()
                return Done()
        return Failed("InputError", "this is only a test")

    def _is_claimed_for(self, process: ProcessIdentity | None, key: AttemptKey) -> bool:
        claim = self.claims.get(key)
        return claim is not None and process == ProcessIdentity(claim.pid, claim.process_started)


class Host:
    """See `ExecutorHost`."""

    def __init__(self, project: Project, settings: Settings, api: Api | None = None) -> None:
        self.project = project
        self.settings = settings
        self.clock = SystemClock()
        self.reactor = Reactor(self.clock)
        self.api = api or Api()
        self.exits: list[tuple[AttemptKey, ProcessExit]] = []
        self.given_back: list[tuple[AttemptKey, str]] = []
        #: called when it is said how an attempt ended, by the attempt or by its executor
        self.on_word: Callable[[], None] = lambda: None
        self.api.on_outcome = lambda: self.on_word()
        project.home.create()
        self.supervision = ExecutionSocket(self.reactor, self.api, project.home.socket_path)
        self.executor: Executor | None = None

    def has_begun(self, key: AttemptKey, pid: int | None = None) -> bool:
        """See `ExecutorHost.has_begun`."""
        return key in self.api.claims

    def has_reported(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_reported`."""
        return any(outcome.key == key for outcome in self.api.outcomes)

    def not_taken(self, workload: ExecuteTask, reason: str) -> None:
        """See `ExecutorHost.not_taken`: it is noted."""
        self.given_back.append((workload.key, reason))

    def note(self, key: AttemptKey, text: str | None) -> None:
        """See `ExecutorHost.note`: it is not read."""

    def explain(self, key: AttemptKey, cause: str) -> None:
        """See `ExecutorHost.explain`: it is not read."""

    def taken(self, executor: str) -> None:
        """See `ExecutorHost.taken`: nothing follows."""

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`: the end is noted."""
        self.exits.append((key, exit))
        self.on_word()

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until `condition` is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain; exits: {self.exits}, outcomes: {self.api.outcomes}"
            self.reactor.turn(0.05)
            if self.executor is not None:
                self.executor.sync()

    def close(self) -> None:
        """Close the socket and the reactor."""
        self.supervision.close()
        self.reactor.close()


def lay_out(folder: Path) -> Project:
    """A project with the tasks above."""
    for name, text in ((MARKER.as_posix(), "[engine]\nstop_grace_seconds = 0.3\n"), (PIPELINE, CODE)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return project_at(folder)


def workload(host: Host, task_id: str, number: int = 0, *, path: str = PIPELINE) -> ExecuteTask:
    """An attempt of one of the tasks above. No other process of this host has one of the same id: what is left of an
    attempt is looked for by that, and ended."""
    key = AttemptKey(f"{task_id}{number}-{os.getpid()}", 0)
    home = host.project.home
    return ExecuteTask(
        key=key,
        task_instance_id=number,
        dag_id="contract",
        run_id="r1",
        task_id=task_id,
        map_index=-1,
        source=DagSource(path),
        project_root=str(host.project.root),
        home=str(home.path),
        log_path=str(home.attempt_log("contract", "r1", task_id, key.attempt_id)),
    )


def held(host: Host, attempt: ExecuteTask) -> InFlightAttempt:
    """What the database knows of an attempt that has claimed itself."""
    claim = host.api.claims[attempt.key]
    return InFlightAttempt(attempt.key, True, claim.hostname, claim.pid, claim.process_started)


class ExecutorContract:
    """The tests. They are the same for every executor."""

    settings: ClassVar[Settings] = Settings(
        engine=EngineSettings(stop_grace_seconds=0.3), executor=ExecutorSettings(outage_seconds=20.0)
    )

    def make_executor(self) -> Executor:
        """An executor that was not started yet."""
        raise NotImplementedError

    @pytest.fixture
    def project(self, tmp_path: Path) -> Project:
        """An empty project."""
        return lay_out(tmp_path)

    @pytest.fixture
    def host(self, project: Project) -> Iterator[Host]:
        """A host of the project, closed after the test."""
        host = Host(project, self.settings)
        yield host
        host.close()

    @pytest.fixture
    def executor(self, host: Host) -> Iterator[Executor]:
        """The executor under test, started, and ended after the test."""
        executor = self.make_executor()
        executor.start(host)
        host.executor = executor
        yield executor
        host.executor = None
        executor.end(timedelta())

    # -- how an attempt ends ---------------------------------------------------------------------------------------

    def test_an_outcome_and_then_its_end(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "says")
        executor.queue_workload(attempt)
        assert executor.running() == {attempt.key}
        host.until(lambda: host.exits)
        (outcome,) = host.api.outcomes
        assert (outcome.key, outcome.state) == (attempt.key, OutcomeState.SUCCESS)
        assert [msgspec.json.decode(item.value) for item in outcome.xcoms] == ["first"]
        assert host.exits == [(attempt.key, ProcessExit(code=0))]
        assert executor.running() == frozenset()

    def test_a_failure_is_an_outcome(self, host: Host, executor: Executor) -> None:
        executor.queue_workload(workload(host, "fails"))
        host.until(lambda: host.exits)
        (outcome,) = host.api.outcomes
        assert outcome.state is OutcomeState.FAILED
        assert outcome.problem is not None
        assert outcome.problem.message == "ValueError: on purpose"
        assert "on purpose" in Path(workload(host, "fails").log_path).read_text()

    def test_an_end_without_a_word(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "leaves")
        executor.queue_workload(attempt)
        host.until(lambda: host.exits)
        assert host.exits == [(attempt.key, ProcessExit(code=0))]
        assert host.api.outcomes == []

    def test_killed(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "dies")
        executor.queue_workload(attempt)
        host.until(lambda: host.exits)
        assert [(key, exit.signal) for key, exit in host.exits] == [(attempt.key, signal.SIGKILL)]
        assert host.api.outcomes == []

    def test_many_at_a_time(self, host: Host, executor: Executor) -> None:
        attempts = [workload(host, "says", number) for number in range(6)]
        for attempt in attempts:
            executor.queue_workload(attempt)
        host.until(lambda: len(host.exits) == 6)
        assert {outcome.key for outcome in host.api.outcomes} == {attempt.key for attempt in attempts}
        assert {key for key, _ in host.exits} == {attempt.key for attempt in attempts}

    def test_handed_over_twice_it_runs_once(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "waits")
        executor.queue_workload(attempt)
        executor.queue_workload(attempt)
        host.until(lambda: host.api.claims)
        executor.queue_workload(attempt)
        other = workload(host, "says")
        executor.queue_workload(other)
        host.until(lambda: host.exits)
        assert [key for key, _ in host.exits] == [other.key]
        (host.project.root / "go").touch()
        host.until(lambda: len(host.exits) == 2)
        assert host.exits[-1] == (attempt.key, ProcessExit(code=0))
        assert len(host.api.outcomes) == 2

    # -- what it started -------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("task_id", "kinds"),
        [
            ("strays_and_says", ("marked", "bare", "deaf")),
            ("strays_and_fails", ("marked", "bare")),
            ("strays_and_leaves", ("marked",)),
            ("strays_and_dies", ("marked",)),
        ],
    )
    def test_what_a_task_started_has_ended_when_its_end_is_said(
        self, host: Host, executor: Executor, task_id: str, kinds: tuple[str, ...]
    ) -> None:
        """Daemons in sessions of their own, without a parent; `bare`: without the mark of the attempt as well, which
        only an attempt that ends by itself, or a parent of it that adopts, can find."""
        alive: list[tuple[str, bool]] = []

        def look() -> None:
            alive.extend((kind, runs(host, kind)) for kind in kinds)

        host.on_word = look
        executor.queue_workload(workload(host, task_id))
        host.until(lambda: host.exits)
        assert alive
        assert not any(running for _, running in alive), alive

    def test_a_forked_copy_of_a_task_reports_nothing(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "copies_and_says")
        executor.queue_workload(attempt)
        host.until(lambda: host.exits)
        (outcome,) = host.api.outcomes
        assert sorted(msgspec.json.decode(outcome.xcoms[0].value)) == [0, 1, 3]
        assert not (host.project.root / "exit_handler").exists()
        assert "ValueError: in a copy" in Path(attempt.log_path).read_text()
        assert host.exits == [(attempt.key, ProcessExit(code=0))]

    def test_multiprocessing_works_in_a_task(self, host: Host, executor: Executor) -> None:
        executor.queue_workload(workload(host, "multiplies"))
        host.until(lambda: host.exits)
        (outcome,) = host.api.outcomes
        assert outcome.state is OutcomeState.SUCCESS, outcome.problem
        ended = -signal.SIGTERM
        assert msgspec.json.decode(outcome.xcoms[0].value) == [1, 2, ended, 1, 2, ended]

    # -- told to stop ----------------------------------------------------------------------------------------------

    def test_terminated(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "waits")
        executor.queue_workload(attempt)
        host.until(lambda: host.api.claims)
        executor.terminate(attempt.key)
        executor.terminate(attempt.key)
        host.until(lambda: host.exits)
        assert [key for key, _ in host.exits] == [attempt.key]
        assert [outcome.state for outcome in host.api.outcomes] in ([OutcomeState.PREEMPTED], [])

    def test_terminated_before_it_began(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "waits")
        executor.queue_workload(attempt)
        executor.terminate(attempt.key)
        host.until(lambda: host.exits)
        assert all(outcome.state is OutcomeState.PREEMPTED for outcome in host.api.outcomes)

    def test_end_before_it_began_says_it_was_told_to_stop(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "waits")
        executor.queue_workload(attempt)
        executor.end(timedelta(seconds=20))
        assert executor.running() == frozenset()
        assert all(outcome.state is OutcomeState.PREEMPTED for outcome in host.api.outcomes)
        assert host.api.outcomes or [exit.stopped for _, exit in host.exits] == [True]

    def test_who_does_not_listen_is_killed(self, host: Host, executor: Executor) -> None:
        attempt = workload(host, "stubborn")
        executor.queue_workload(attempt)
        host.until((host.project.root / "deaf").exists)
        executor.terminate(attempt.key)
        host.until(lambda: host.exits)
        assert [exit.signal for _, exit in host.exits] == [signal.SIGKILL]

    def test_an_unknown_one_is_ignored(self, host: Host, executor: Executor) -> None:
        executor.terminate(AttemptKey("missing"))

    def test_the_end_leaves_nobody_behind(self, host: Host, executor: Executor) -> None:
        attempts = [workload(host, "waits"), workload(host, "stubborn")]
        for attempt in attempts:
            executor.queue_workload(attempt)
        host.until(lambda: len(host.api.claims) == 2 and (host.project.root / "deaf").exists())
        executor.end(timedelta(seconds=0.3))
        assert executor.running() == frozenset()
        for claim in host.api.claims.values():
            host.until(partial(_has_ended, claim))
        assert [outcome.key for outcome in host.api.outcomes] in ([attempts[0].key], [])

    # -- after another engine --------------------------------------------------------------------------------------

    def test_what_is_dead_is_not_adopted(self, host: Host, executor: Executor) -> None:
        dead = InFlightAttempt(AttemptKey("dead"), True, os.uname().nodename, 2**22, 1.0)
        queued = InFlightAttempt(AttemptKey("queued"), False, None, None, None)
        assert executor.adopt([dead, queued]) == [dead.key, queued.key]
        assert executor.running() == frozenset()


def runs(host: Host, kind: str) -> bool:
    """Whether the stray of this kind runs."""
    # 0.0: whenever it was started
    return processes.is_alive(int((host.project.root / f"stray_{kind}").read_text()), 0.0)


def _has_ended(claim: Start) -> bool:
    return not processes.is_alive(claim.pid, claim.process_started)
