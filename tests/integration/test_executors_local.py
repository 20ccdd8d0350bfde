"""The local executor: the contract with and without forking, and what only children of a warm worker can suffer."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from tests.integration.executor_hosts import results, started_executor
from trainflow.executors import local, warm_workers
from trainflow.executors.executor import Executor, ExecutorUnavailable
from trainflow.executors.local import LocalExecutor
from trainflow.messages.execution_api import OutcomeState
from trainflow.messages.workload import ExecuteTask, ProcessExit
from trainflow.observability.processes import is_alive
from trainflow.settings.model import Settings
from trainflow.testing.contract_tasks import CODE, PIPELINE
from trainflow.testing.executor_contract import ExecutorContract, Host, held, lay_out, runs, workload
from trainflow.testing.executor_engine_contract import ExecutorEngineContract
from trainflow.testing.processes import wait_for


class TestFork(ExecutorContract):
    def make_executor(self) -> Executor:
        return LocalExecutor()


@pytest.mark.slow
class TestSpawn(ExecutorContract):
    settings: ClassVar[Settings] = msgspec.structs.replace(
        ExecutorContract.settings, executors={"local": {"isolation": "spawn"}}
    )

    def make_executor(self) -> Executor:
        return LocalExecutor()


@pytest.fixture
def executor(host: Host) -> Iterator[LocalExecutor]:
    with started_executor(host) as executor:
        yield executor


def test_warm_worker_killed_leaves_its_attempts_running(host: Host, executor: LocalExecutor) -> None:
    waiting = [workload(host, "waits", number) for number in range(2)]
    for each in waiting:
        executor.queue_workload(each)
    worker = executor.warm_process
    assert worker is not None
    # a child may claim before its worker has said that it was launched
    host.until(lambda: len(host.api.claims) == len(worker.children) == 2)
    os.kill(worker.pid, signal.SIGKILL)
    host.until(lambda: executor.warm_process is not worker)
    assert host.exits == []
    assert executor.running() == {each.key for each in waiting}
    # the next one is launched by a new worker, and those that wait end as if nothing had happened
    executor.queue_workload(workload(host, "says"))
    host.until(lambda: len(host.exits) == 1)
    (host.project.root / "go").touch()
    host.until(lambda: len(host.exits) == 3)
    assert results(host) == {"says0": "first", "waits0": "went on", "waits1": "went on"}


def test_orphan_that_is_killed_is_noticed(host: Host, executor: LocalExecutor) -> None:
    waiting = workload(host, "waits")
    executor.queue_workload(waiting)
    worker = executor.warm_process
    assert worker is not None
    host.until(lambda: host.api.claims and worker.children)
    os.kill(worker.pid, signal.SIGKILL)
    host.until(lambda: executor.warm_process is not worker)
    os.kill(host.api.claims[waiting.key].pid, signal.SIGKILL)
    host.until(lambda: host.exits)
    assert host.exits == [(waiting.key, ProcessExit(reason="the process ended while it was not watched"))]


def test_attempt_not_launched_before_worker_died_is_lost(host: Host, executor: LocalExecutor) -> None:
    worker = executor.warm_process
    assert worker is not None
    os.kill(worker.pid, signal.SIGSTOP)
    queued = [workload(host, "says", number) for number in range(2)]
    for each in queued:
        executor.queue_workload(each)
    os.kill(worker.pid, signal.SIGKILL)
    host.until(lambda: len(host.exits) == 2)
    assert {exit.reason for _, exit in host.exits} == {"its warm worker ended before the attempt was launched"}
    executor.queue_workload(workload(host, "says", 5))
    host.until(lambda: len(host.exits) == 3)
    assert results(host) == {"says5": "first"}


def test_host_that_gives_no_process_keeps_attempts_and_runs_them_when_it_does(
    host: Host, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = executor.warm_process
    assert worker is not None
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(warm_workers, "spawn_forkserver", _gives_nothing)
        os.kill(worker.pid, signal.SIGKILL)
        host.until(lambda: worker not in executor._workers.all)
        with pytest.raises(ExecutorUnavailable, match="no process can be started: Resource temporarily unavailable"):
            executor.queue_workload(workload(host, "says"))
        assert (executor.running(), host.exits) == (frozenset(), [])
        # one that is replaced while it is launched is put back
        meanwhile.setattr(warm_workers, "may_fork", lambda *_, **__: False)
        meanwhile.setattr(local, "spawn_attempt", _gives_nothing)
        with pytest.raises(ExecutorUnavailable, match="no process can be started"):
            executor.queue_workload(workload(host, "says"))
    executor.queue_workload(workload(host, "says"))
    host.until(lambda: host.exits)
    assert results(host) == {"says0": "first"}


def test_attempt_whose_worker_is_replaced_while_the_host_gives_no_process_is_put_back(
    host: Host, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.queue_workload(workload(host, "says"))
    host.until(lambda: host.exits)
    (host.project.root / PIPELINE).write_text(CODE.replace('"first"', '"the second"'))
    monkeypatch.setattr(warm_workers, "spawn_forkserver", _gives_nothing)
    late = workload(host, "says", 1)
    executor.queue_workload(late)
    host.until(lambda: host.given_back)
    assert [key for key, _ in host.given_back] == [late.key]
    assert executor.running() == frozenset()


def _gives_nothing(*_: object) -> None:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def test_changed_code_is_used_by_all_that_were_waiting(host: Host, executor: LocalExecutor) -> None:
    """None of those that the old worker was asked for is forgotten, also not by one that has no children."""
    executor.queue_workload(workload(host, "says"))
    host.until(lambda: host.exits)
    (host.project.root / PIPELINE).write_text(CODE.replace('"first"', '"the second"'))
    for number in range(1, 5):
        executor.queue_workload(workload(host, "says", number))
    host.until(lambda: len(host.exits) == 5)
    assert results(host) == {"says0": "first", **{f"says{number}": "the second" for number in range(1, 5)}}


def test_worker_with_children_is_replaced_while_they_run(host: Host, executor: LocalExecutor) -> None:
    executor.queue_workload(workload(host, "waits"))
    host.until(lambda: host.api.claims)
    (host.project.root / PIPELINE).write_text(CODE.replace('"first"', '"the second"'))
    executor.queue_workload(workload(host, "says"))
    host.until(lambda: len(host.exits) == 1)
    (host.project.root / "go").touch()
    host.until(lambda: len(host.exits) == 2)
    assert results(host) == {"says0": "the second", "waits0": "went on"}
    assert len(executor._workers.all) == 1


def test_attempt_that_has_claimed_itself_is_not_taken_for_hanging(host: Host, executor: LocalExecutor) -> None:
    attempt = workload(host, "waits")
    executor.queue_workload(attempt)
    host.until(lambda: host.api.claims and executor._held[attempt.key].pid)
    executor._no_word(attempt.key)
    (host.project.root / "go").touch()
    host.until(lambda: host.exits)
    assert host.exits == [(attempt.key, ProcessExit(code=0))]


class TestAfterAnotherEngine:
    @pytest.fixture
    def before(self, tmp_path: Path) -> Iterator[Host]:
        """An engine that vanishes: its descriptors close, nothing else happens."""
        host = Host(lay_out(tmp_path), ExecutorContract.settings)
        host.executor = LocalExecutor()
        host.executor.start(host)
        yield host
        for worker in host.executor._workers.all:
            worker.kill()

    def vanish(self, host: Host) -> None:
        assert isinstance(host.executor, LocalExecutor)
        for worker in host.executor._workers.all:
            worker.close()
            worker._process.wait()
        host.close()

    def left_running(self, host: Host, task_id: str = "waits", sign: str = "") -> ExecuteTask:
        """A workload that waits, and whose engine vanished after it was claimed (and gave the sign)."""
        assert host.executor is not None
        waiting = workload(host, task_id)
        host.executor.queue_workload(waiting)
        host.until(lambda: host.api.claims and (host.project.root / sign).exists())
        self.vanish(host)
        return waiting

    def start(self, before: Host) -> tuple[Host, LocalExecutor]:
        """The next engine of the project."""
        host = Host(before.project, before.settings, before.api)
        host.executor = executor = LocalExecutor()
        executor.start(host)
        return host, executor

    def test_running_attempt_is_adopted(self, before: Host) -> None:
        waiting = self.left_running(before)
        host, executor = self.start(before)
        assert executor.adopt([held(host, waiting)]) == []
        assert executor.adopt([held(host, waiting)]) == []
        assert executor.running() == {waiting.key}
        (host.project.root / "go").touch()
        host.until(lambda: host.exits)
        assert results(host) == {"waits0": "went on"}
        assert [key for key, _ in host.exits] == [waiting.key]
        executor.end(timedelta())
        host.close()

    def test_adopted_one_can_be_told_to_stop(self, before: Host) -> None:
        waiting = self.left_running(before)
        host, executor = self.start(before)
        executor.adopt([held(host, waiting)])
        executor.terminate(waiting.key)
        host.until(lambda: host.exits)
        assert [outcome.state for outcome in host.api.outcomes] == [OutcomeState.PREEMPTED]
        executor.end(timedelta())
        host.close()

    def test_outcome_of_ended_attempt_is_found(self, before: Host) -> None:
        waiting = self.left_running(before)
        (before.project.root / "go").touch()
        path = before.project.home.outcome(waiting.key.attempt_id, 0)
        wait_for(path.exists, "the outcome on disk")
        assert results(before) == {}
        host, executor = self.start(before)
        assert executor.adopt([held(host, waiting)]) == []
        assert results(host) == {"waits0": "went on"}
        assert not path.exists()
        assert executor.running() == frozenset()
        executor.end(timedelta())
        host.close()

    def test_remains_of_dead_attempt_are_ended_before_loss_is_told(self, before: Host) -> None:
        waiting = self.left_running(before, "strays_and_waits", "stray_deaf")
        claim = before.api.claims[waiting.key]
        os.kill(claim.pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(claim.pid, claim.process_started), "the end of the attempt")
        host, executor = self.start(before)
        assert executor.adopt([held(host, waiting)]) == []
        host.until(lambda: host.exits)
        assert [(key, exit.reason is not None) for key, exit in host.exits] == [(waiting.key, True)]
        assert not any(runs(host, kind) for kind in ("marked", "deaf"))
        executor.end(timedelta())
        host.close()

    def test_running_attempt_keeps_its_children(self, before: Host) -> None:
        waiting = self.left_running(before, "strays_and_waits", "stray_deaf")
        host, executor = self.start(before)
        assert executor.adopt([held(host, waiting)]) == []
        executor.sync()
        assert all(runs(host, kind) for kind in ("marked", "deaf"))
        (host.project.root / "go").touch()
        host.until(lambda: host.exits)
        assert results(host) == {"strays_and_waits0": "went on"}
        assert not any(runs(host, kind) for kind in ("marked", "deaf"))
        executor.end(timedelta())
        host.close()

    def test_torn_outcome_counts_as_none(self, before: Host) -> None:
        waiting = self.left_running(before)
        os.kill(before.api.claims[waiting.key].pid, signal.SIGKILL)
        claim = before.api.claims[waiting.key]
        wait_for(lambda: not is_alive(claim.pid, claim.process_started), "the end of the attempt")
        before.project.home.outcome(waiting.key.attempt_id, 0).write_bytes(b'{"type":"outcome","key":')
        host, executor = self.start(before)
        assert executor.adopt([held(host, waiting)]) == [waiting.key]
        executor.end(timedelta())
        host.close()


class TestLocalUnderEngine(ExecutorEngineContract):
    executor: ClassVar[str] = "{slots = 4}"
    name: ClassVar[str] = "local"
