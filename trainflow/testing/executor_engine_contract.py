"""What every executor does under a whole engine: inherit `ExecutorEngineContract`, say how yours is configured, run it
with pytest.

    class TestMine(ExecutorEngineContract):
        executor = '{type = "mine"}'

Here the engine, its database, the API server and the processes of attempts are real; messages are lost, doubled and
late because the test holds them back on their way to the executor.

An executor that has a host for each rank of a task with `nodes` inherits `RankContract` beside it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import Row

from trainflow.executors.executor import ExecutorUnavailable
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries import run_queries
from trainflow.observability import processes
from trainflow.settings.project import Project
from trainflow.testing.contract_engine import ContractEngine, contract_api, contract_engine, lay_out_project, listening


class ExecutorEngineContract:
    """The tests. They are the same for every executor."""

    #: the table of the executor, as TOML, and its name
    executor: ClassVar[str]
    name: ClassVar[str] = "tested"

    def workers(self, project: Project) -> AbstractContextManager[object]:
        """What runs attempts of the executor, where that is not started by it."""
        return nullcontext()

    @pytest.fixture
    def project(self, tmp_path: Path) -> Iterator[Project]:
        """A project with an API server and workers."""
        with listening() as listener:
            project = lay_out_project(tmp_path, self.executor, listener.getsockname()[1], name=self.name)
            project.home.create()
            with contract_api(project, listener), self.workers(project):
                yield project

    @pytest.fixture
    def engine(self, project: Project) -> Iterator[ContractEngine]:
        """An engine with the executor under test."""
        with contract_engine(project) as engine:
            yield engine

    # -- how an attempt ends ---------------------------------------------------------------------------------------

    def test_task_that_succeeds(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_says")
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]
        assert engine.task(run).executor == self.name

    def test_task_that_fails_says_why_and_its_log_is_there(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_fails")
        assert engine.finish(run) == "failed"
        assert engine.task(run).problem == "ValueError: on purpose"
        log = engine.engine.project.home.logs / engine.attempts(run)[0].log_name
        engine.until(lambda: log.is_file() and "ValueError: on purpose" in log.read_text())

    def test_exit_code_0_without_outcome_is_a_failure(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_leaves")
        assert engine.finish(run) == "failed"
        assert "ended with exit code 0 without reporting an outcome" in engine.task(run).problem

    def test_child_that_is_killed_is_lost_and_uses_up_no_retry(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        self.kill_child(engine, run)
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["lost", "success"]
        assert engine.task(run).failures == 0

    def kill_child(self, engine: ContractEngine, run: int) -> None:
        """Kill the process of an attempt, and not its supervisor."""
        os.kill(engine.task(run).pid, signal.SIGKILL)

    # -- messages that are doubled, late and lost ------------------------------------------------------------------

    def test_delivered_twice_one_runs(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        held = engine.task(run)
        # past the executor's own memory: as a broker delivers a message again
        self.deliver_again(engine, engine.delivered[0])
        engine.turn(2.0)
        row = engine.task(run)
        assert (row.state, row.attempt_id, row.pid) == ("running", held.attempt_id, held.pid)
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]

    def deliver_again(self, engine: ContractEngine, workload: ExecuteTask) -> None:
        """Deliver a workload that was delivered before."""
        engine.executor.queue_workload(workload)

    def test_delivered_late_after_it_was_superseded_changes_nothing(self, engine: ContractEngine) -> None:
        kept: list[ExecuteTask] = []

        def keep(workload: ExecuteTask) -> bool:
            if not kept:
                kept.append(workload)
                return True
            return False

        engine.intercept = keep
        run = engine.trigger("contract_says")
        engine.until(lambda: kept)
        # no worker has it: it is queued anew, at no cost
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["undelivered", "success"]
        before = engine.task(run)
        self.deliver_again(engine, kept[0])
        engine.turn(2.0)
        assert engine.task(run) == before
        assert (before.lost, before.failures) == (0, 0)

    def test_backend_that_is_away_keeps_tasks_queued(self, engine: ContractEngine) -> None:
        def away(_workload: ExecuteTask) -> bool:
            raise ExecutorUnavailable("the backend is away")

        engine.intercept = away
        run = engine.trigger("contract_says")
        engine.until(lambda: engine.delivered and engine.task(run).state == "queued")
        engine.turn(0.5)
        row = engine.task(run)
        assert (row.state, row.lost, row.failures) == ("queued", 0, 0)
        engine.intercept = lambda _workload: False
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]

    # -- told to stop ----------------------------------------------------------------------------------------------

    def test_attempt_that_is_cancelled_stops(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_waits")
        engine.until(lambda: engine.is_running(run))
        row = engine.task(run)
        with engine.engine.database.transaction() as connection:
            row_of_run = run_queries.by_id(connection, run)
            now = engine.engine.clock.now()
            run_queries.cancel(connection, row_of_run, engine.engine.versions, now, note="not wanted", channels=())
        engine.engine.reactor.wake()
        engine.until(lambda: not self.runs(engine, row))
        assert engine.outcomes(run) == ["cancelled"]

    def runs(self, engine: ContractEngine, row: Row[Any]) -> bool:
        """Whether the process of an attempt runs. `row`: its task, as it was while it did."""
        return processes.is_alive(row.pid, row.process_started)

    def test_attempt_is_adopted_by_next_engine_or_runs_again(self, project: Project) -> None:
        with contract_engine(project) as first:
            run = first.trigger("contract_waits")
            first.until(lambda: first.is_running(run))
            held = first.task(run)
            first.engine.stop_requested = 1
        with contract_engine(project) as second:
            second.turn(1.0)
            (second.root / "go").touch()
            assert second.finish(run) == "success"
            assert second.outcomes(run) in (["success"], ["preempted", "success"])
            if second.outcomes(run) == ["success"]:
                assert second.task(run).attempt_id == held.attempt_id
            assert (second.task(run).lost, second.task(run).failures) == (0, 0)


class RankContract:
    """The tests."""

    def test_attempt_of_several_ranks_runs_once_they_are_all_there(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_ranks")
        engine.until(lambda: engine.is_running(run))
        assert self.hosts(engine, run) == 3
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.outcomes(run) == ["success"]
        engine.until(lambda: self.hosts(engine, run) == 0)

    def test_rank_that_is_lost_is_that_of_the_attempt(self, engine: ContractEngine) -> None:
        run = engine.trigger("contract_ranks")
        engine.until(lambda: engine.is_running(run))
        self.lose_rank(engine, run, 1)
        engine.until(lambda: engine.outcomes(run)[0] is not None)
        assert engine.outcomes(run)[0] == "lost"
        assert "rank 1 of 3: " in engine.attempts(run)[0].problem
        (engine.root / "go").touch()
        assert engine.finish(run) == "success"
        assert engine.task(run).failures == 0

    def hosts(self, engine: ContractEngine, run: int) -> int:
        """Count the hosts on which the newest attempt of a run has something that runs."""
        raise NotImplementedError

    def lose_rank(self, engine: ContractEngine, run: int, rank: int) -> None:
        """Take away the host of a rank of the newest attempt of a run."""
        raise NotImplementedError
