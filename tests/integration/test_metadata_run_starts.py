"""Queued runs start in order, never too many at a time, and behind the runs that they depend on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, insert, select, text, update

from tests.support.control_plane import START, ControlPlane, control_plane, empty_task
from tests.support.local_databases import LocalServer
from trainflow.messages.execution_api import AttemptFailure, OutcomeState, TriggeredRun
from trainflow.metadata import run_creation
from trainflow.metadata.queries import dag_queries, queued_run_queries, run_queries
from trainflow.metadata.queries.run_queries import RUN
from trainflow.metadata.run_creation import Parent


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        plane.add_dag("d", empty_task("a"))
        plane.add_dag("next", empty_task("a"))
        yield plane


class TestStarting:
    def running(self, plane: ControlPlane) -> dict[str, int]:
        with plane.database.reading() as connection:
            return {dag: states.get("running", 0) for dag, states in run_queries.counts(connection).items()}

    def test_starting_runs_of_any_kind_never_exceed_limit(self, plane: ControlPlane) -> None:
        plane.add_dag("one", empty_task("a"), max_active_runs=1)
        first = plane.add_run("one", "r1")
        with plane.database.transaction() as connection:
            parent = Parent(first, first, "a", -1)
            run_creation.trigger(connection, TriggeredRun("one", "r2"), parent, plane.clock.now())
            second = run_queries.get(connection, "one", "r2").id
        plane.scheduler.sweep()
        (workload,) = plane.tick()
        plane.scheduler.sweep()
        assert plane.tick() == []
        assert (plane.run(first).state, plane.run(second).state) == ("running", "queued")
        plane.play(workload)
        plane.tick()
        assert (plane.run(first).state, plane.run(second).state) == ("success", "running")

    def test_long_queue_of_one_dag_does_not_hold_back_another(self, plane: ControlPlane) -> None:
        plane.add_dag("busy", empty_task("a"), max_active_runs=1)
        for number in range(600):
            with plane.database.transaction() as connection:
                connection.execute(
                    insert(RUN).values(
                        dag_id="busy",
                        run_id=f"r{number}",
                        number=number,
                        version_id=3,
                        state="queued",
                        run_type="manual",
                        triggered_by="test",
                        conf={},
                        run_after=START,
                        queued_at=START,
                    )
                )
        plane.add_run("next")
        plane.tick()
        assert self.running(plane) == {"busy": 1, "next": 1}

    def test_place_that_is_free_is_taken_by_oldest_at_once(self, plane: ControlPlane) -> None:
        """Chronological though several run at a time, and no run waits for a whole batch to end."""
        plane.add_dag("three", empty_task("a"), max_active_runs=3)
        for number in range(6):
            plane.add_run("three", f"r{number}")
        first, second, third = plane.tick()
        assert [workload.run_id for workload in (first, second, third)] == ["r0", "r1", "r2"]
        for ended, begins in ((second, "r3"), (third, "r4"), (first, "r5")):
            plane.play(ended)
            assert [workload.run_id for workload in plane.tick()] == [begins]

    def test_starting_runs_with_one_logical_date_is_allowed(self, plane: ControlPlane) -> None:
        """A run of a chain is known by its place in the chain, not by a date."""
        runs = [plane.add_run("d", f"r{number}", logical_date=START) for number in range(3)]
        runs.append(plane.add_run("d", "none"))
        assert [plane.run(run).logical_date for run in runs] == [START, START, START, None]
        assert len(plane.tick()) == 4

    def test_starting_waits_for_run_after(self, plane: ControlPlane) -> None:
        run = plane.add_run("d", run_after=plane.clock.now() + timedelta(hours=1))
        plane.tick()
        assert plane.run(run).state == "queued"
        plane.clock.advance(timedelta(hours=1))
        plane.scheduler.sweep()
        plane.tick()
        assert plane.run(run).state == "running"

    def test_paused_dag_starts_nothing(self, plane: ControlPlane) -> None:
        with plane.database.transaction() as connection:
            dag_queries.pause(connection, "d", True)
        plane.add_run("d")
        assert plane.tick() == []
        with plane.database.transaction() as connection:
            dag_queries.pause(connection, "d", False)
        plane.scheduler.sweep()
        assert len(plane.tick()) == 1

    def test_starting_by_two_schedulers_shares_limit(self, plane: ControlPlane, tmp_path: Path) -> None:
        plane.add_dag("three", empty_task("a"), max_active_runs=3)
        for number in range(20):
            plane.add_run("three", f"r{number}")
        barrier = threading.Barrier(2)
        with control_plane(tmp_path, clock=plane.clock, settings=plane.settings) as other:

            def start(scheduler_of: ControlPlane) -> None:
                barrier.wait()
                scheduler_of.tick()

            plane.scheduler.sweep()
            other.scheduler.sweep()
            threads = [threading.Thread(target=start, args=(which,)) for which in (plane, other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert self.running(plane)["three"] == 3

    def test_dag_without_a_free_place_is_not_locked(self, tmp_path: Path, postgres: LocalServer) -> None:
        """A start of runs of other DAGs does not wait for what is done to it."""
        with control_plane(tmp_path, database_url=postgres.clean_database()) as plane:
            for dag_id in ("full", "idle"):
                plane.add_dag(dag_id, empty_task("a"), max_active_runs=1)
                plane.add_run(dag_id, "r1")
            plane.add_run("full", "r2")
            with plane.database.transaction() as connection:
                connection.execute(
                    update(RUN).where(RUN.c.run_id == "r1", RUN.c.dag_id == "full").values(state="running")
                )
            with plane.database.transaction() as holds, plane.database.transaction() as connection:
                holds.execute(select(dag_queries.DAG).where(dag_queries.DAG.c.dag_id == "full").with_for_update()).all()
                connection.execute(text("SET LOCAL lock_timeout = '1s'"))
                assert [row.dag_id for row in queued_run_queries.startable(connection, START)] == ["idle"]

    @pytest.mark.exhaustive
    def test_200_queued_runs_start_in_chain_order_with_two_schedulers(
        self, plane: ControlPlane, tmp_path: Path
    ) -> None:
        plane.add_dag("chain", empty_task("a"), max_active_runs=1)
        expected = [f"r{number:03d}" for number in range(200)]
        with plane.database.transaction() as connection:
            for number, run_id in enumerate(expected):
                connection.execute(
                    insert(RUN).values(
                        dag_id="chain",
                        run_id=run_id,
                        number=number + 1,
                        version_id=3,
                        state="queued",
                        run_type="manual",
                        triggered_by="test",
                        conf={},
                        run_after=START,
                        queued_at=START,
                    )
                )
        started: list[str] = []
        with control_plane(tmp_path, clock=plane.clock, settings=plane.settings) as other:
            while len(started) < 200:
                for which in (plane, other):
                    which.scheduler.sweep()
                    workloads = which.tick()
                    assert len(workloads) <= 1
                    # the end of a run starts the next one, so that nothing runs once all have ended
                    assert self.running(plane)["chain"] == (1 if len(started) < 200 else 0)
                    for workload in workloads:
                        started.append(workload.run_id)
                        which.play(workload)
        assert started == expected


def test_clear_queues_run_again_at_its_old_place(plane: ControlPlane) -> None:
    plane.add_dag("one", empty_task("a"), max_active_runs=1)
    runs = [plane.add_run("one", f"r{number}") for number in range(3)]
    for _ in runs[:2]:
        for workload in plane.tick():
            plane.play(workload)
    (last,) = plane.tick()
    assert [plane.run(run).state for run in runs] == ["success", "success", "running"]
    with plane.database.transaction() as connection:
        for run in reversed(runs[:2]):
            run_queries.clear(connection, run, plane.clock.now())
    order = []
    while True:
        plane.play(last)
        workloads = plane.tick()
        if not workloads:
            break
        (last,) = workloads
        order.append(last.run_id)
    assert order == ["r0", "r1"]


class TestDependsOnPast:
    """Airflow's is a no-op without a logical date; ours looks at the number of the run."""

    def test_holds_until_task_of_run_before_has_succeeded(self, plane: ControlPlane) -> None:
        plane.add_dag("past", empty_task("a", depends_on_past=True), max_active_runs=2)
        first, second = plane.add_run("past", "r1"), plane.add_run("past", "r2")
        assert plane.run(first).logical_date is None
        (workload,) = plane.tick()
        assert workload.run_id == "r1"
        plane.play(workload, OutcomeState.FAILED)
        assert plane.tick() == []
        assert (plane.run(first).state, plane.run(second).state) == ("failed", "running")
        with plane.database.transaction() as connection:
            run_queries.clear(connection, first, plane.clock.now())
        plane.scheduler.sweep()
        (workload,) = plane.tick()
        assert workload.run_id == "r1"
        plane.play(workload)
        assert [again.run_id for again in plane.tick()] == ["r2"]

    def test_run_before_that_has_not_started_holds_as_well(self, plane: ControlPlane) -> None:
        plane.add_dag("past", empty_task("a", depends_on_past=True), max_active_runs=2)
        plane.add_run("past", "r1", run_after=plane.clock.now() + timedelta(hours=1))
        plane.add_run("past", "r2")
        assert plane.tick() == []


def test_statements_of_tick_do_not_grow_with_history(tmp_path: Path) -> None:
    """One run through the scheduler costs the same after a thousand others as after one."""
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("a"))
        counts: list[int] = []
        statements = 0

        @event.listens_for(plane.database.engine, "before_cursor_execute")
        def count(*_: object) -> None:
            nonlocal statements
            statements += 1

        for number in range(60):
            plane.add_run("d", f"r{number}")
            statements = 0
            for workload in plane.tick():
                plane.play(workload)
            plane.tick()
            counts.append(statements)
            if number == 1:
                plane.scheduler.sweep()
        assert max(counts[5:]) <= counts[0] + 1
        assert max(counts) < 60
        statements = 0
        plane.tick()
        assert statements <= 1, "a tick in which nothing happened asked the database"


class TestClearedOlderRun:
    """A cleared older run is able to run, whatever waits for it."""

    def clear(self, plane: ControlPlane, run: int) -> None:
        with plane.database.transaction() as connection:
            run_queries.clear(connection, run, plane.clock.now())
        plane.scheduler.sweep()

    def test_runs_before_one_that_waits_for_it(self, plane: ControlPlane) -> None:
        plane.add_dag("past", empty_task("a", depends_on_past=True), max_active_runs=1)
        first, second = (plane.add_run("past", name) for name in ("r1", "r2"))
        [work] = plane.tick()
        plane.play(work, OutcomeState.FAILED, problem=AttemptFailure("no", retryable=False))
        assert plane.tick() == []
        assert (plane.run(first).state, plane.run(second).state) == ("failed", "running")
        self.clear(plane, first)
        order = []
        for _ in range(6):
            for work in plane.tick():
                order.append(work.run_id)
                plane.play(work)
            plane.scheduler.sweep()
            assert [plane.run(run).state for run in (first, second)].count("running") <= 1
        assert order == ["r1", "r2"]
        assert (plane.run(first).state, plane.run(second).state) == ("success", "success")

    def test_cleared_run_starting_later_takes_no_place(self, plane: ControlPlane) -> None:
        """Or the two would take turns, for ever."""
        plane.add_dag("past", empty_task("a", depends_on_past=True), max_active_runs=1)
        first = plane.add_run("past", "r1", run_after=plane.clock.now() + timedelta(days=1))
        second = plane.add_run("past", "r2")
        for _ in range(3):
            assert plane.tick() == []
            plane.scheduler.sweep()
        assert (plane.run(first).state, plane.run(second).state) == ("queued", "running")
        plane.clock.advance(timedelta(days=1))
        plane.scheduler.sweep()
        [work] = [*plane.tick(), *plane.tick()]
        assert work.run_id == "r1"

    def test_cleared_run_with_own_place_takes_no_other(self, plane: ControlPlane) -> None:
        plane.add_dag("past", empty_task("a", depends_on_past=True), max_active_runs=2)
        first, second = (plane.add_run("past", name) for name in ("r1", "r2"))
        [work] = plane.tick()
        plane.play(work, OutcomeState.FAILED, problem=AttemptFailure("no", retryable=False))
        plane.tick()
        began = plane.run(second).started_at
        self.clear(plane, first)
        plane.clock.advance(timedelta(seconds=5))
        assert [each.run_id for each in plane.tick()] == ["r1"]
        assert plane.run(second).started_at == began
