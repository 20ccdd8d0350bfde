"""Scheduled tasks are queued in order, within limits counted from the database, and found by an index."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.local_databases import LocalServer
from trainflow.messages.execution_api import Deferral, OutcomeState
from trainflow.metadata.queries import dag_queries, in_flight, pool_queries, scheduled_queries, trigger_queries
from trainflow.metadata.queries.scheduled_queries import DAG, RUN
from trainflow.metadata.queries.task_queries import TASK
from trainflow.scheduler.error_containment import together
from trainflow.settings.model import Settings

SLOTS = 4


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    settings = Settings(executors={"local": {"slots": SLOTS}})
    with control_plane(tmp_path, database_url=database_url, settings=settings) as plane:
        yield plane


def put_pool(plane: ControlPlane, name: str, slots: int, **more: Any) -> None:
    with plane.database.transaction() as connection:
        pool_queries.put(connection, name, slots, **{"description": "", "include_deferred": False, **more})


def wide(plane: ControlPlane, count: int, **more: Any) -> list[str]:
    names = [f"t{number:03d}" for number in range(count)]
    plane.add_dag("wide", *(empty_task(name) for name in names), **{"max_active_tasks": 1000, **more})
    return names


def fire_all(plane: ControlPlane) -> None:
    with plane.database.transaction() as connection:
        for number in connection.execute(select(trigger_queries.TRIGGER.c.id)).scalars().all():
            trigger_queries.fire(connection, number, msgspec.Raw(b"null"), plane.clock.now())
    plane.scheduler.sweep()


def test_slots_are_filled_and_refilled_in_order(plane: ControlPlane) -> None:
    names = wide(plane, 10)
    plane.add_run("wide")
    workloads = plane.tick()
    assert [workload.task_id for workload in workloads] == names[:SLOTS]
    assert plane.tick() == []
    plane.play(workloads[2])
    assert [workload.task_id for workload in plane.tick()] == names[SLOTS : SLOTS + 1]


def test_priority_then_age(plane: ControlPlane) -> None:
    plane.add_dag("d", *(empty_task(name, priority_weight=weight) for name, weight in (("a", 1), ("b", 5), ("c", 5))))
    plane.add_run("d", "r1")
    plane.add_run("d", "r2")
    order = []
    for _ in range(6):
        for workload in plane.tick():
            order.append((workload.task_id, workload.run_id))
            plane.play(workload)
    assert order == [(task, run) for tasks in ("bc", "a") for run in ("r1", "r2") for task in tasks]


def test_resumed_wait_does_not_queue_up_again(plane: ControlPlane) -> None:
    """Behind hundreds of others, with the least priority, and it still has the next slot."""
    plane.add_dag("waits", empty_task("w", priority_weight=-5))
    plane.add_run("waits")
    (waiting,) = plane.tick()
    plane.play(waiting, OutcomeState.DEFERRED, deferral=Deferral("m.T", {}, "execute_complete"))
    wide(plane, 300)
    plane.add_run("wide")
    workloads = plane.tick()
    assert len(workloads) == SLOTS
    fire_all(plane)
    plane.play(workloads[0])
    assert [workload.task_id for workload in plane.tick()] == ["w"]


def test_full_pool_stops_only_its_own(plane: ControlPlane) -> None:
    put_pool(plane, "gpu", 1)
    plane.add_dag(
        "d",
        *(empty_task(f"g{number:03d}", pool="gpu", priority_weight=10) for number in range(200)),
        *(empty_task(f"c{number}") for number in range(2)),
        max_active_tasks=1000,
    )
    plane.add_run("d")
    assert [workload.task_id for workload in plane.tick()] == ["g000", "c0", "c1"]


def test_full_run_stops_only_itself(plane: ControlPlane) -> None:
    names = wide(plane, 100, max_active_tasks=1)
    plane.add_run("wide", "r1")
    plane.add_run("wide", "r2")
    assert [(w.run_id, w.task_id) for w in plane.tick()] == [("r1", names[0]), ("r2", names[0])]


def test_pool_may_count_what_is_deferred(plane: ControlPlane) -> None:
    put_pool(plane, "gpu", 1, include_deferred=True)
    plane.add_dag("d", empty_task("a", pool="gpu"), empty_task("b", pool="gpu"))
    plane.add_run("d")
    (first,) = plane.tick()
    plane.play(first, OutcomeState.DEFERRED, deferral=Deferral("m.T", {}, "execute_complete"))
    assert plane.tick() == []
    fire_all(plane)
    (resumed,) = plane.tick()
    assert resumed.task_id == "a"
    plane.play(resumed)
    assert [workload.task_id for workload in plane.tick()] == ["b"]


def test_pool_that_does_not_count_them(plane: ControlPlane) -> None:
    put_pool(plane, "gpu", 1)
    plane.add_dag("d", empty_task("a", pool="gpu"), empty_task("b", pool="gpu"))
    plane.add_run("d")
    (first,) = plane.tick()
    plane.play(first, OutcomeState.DEFERRED, deferral=Deferral("m.T", {}, "execute_complete"))
    assert [workload.task_id for workload in plane.tick()] == ["b"]


def test_max_active_tis_per_dag_over_runs(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a", max_active_tis_per_dag=2))
    for number in range(4):
        plane.add_run("d", f"r{number}")
    workloads = plane.tick()
    assert [workload.run_id for workload in workloads] == ["r0", "r1"]
    plane.play(workloads[0])
    assert [workload.run_id for workload in plane.tick()] == ["r2"]


def test_why_not_is_said(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a", pool="nowhere"))
    run = plane.add_run("d")
    plane.tick()
    assert plane.scheduler.task_queue.refused == {plane.task(run, "a").id: "pool 'nowhere' does not exist"}


def test_pausing_holds_tasks_as_well(plane: ControlPlane) -> None:
    plane.add_dag("d", empty_task("a"), empty_task("b", "a"))
    plane.add_run("d")
    (first,) = plane.tick()
    with plane.database.transaction() as connection:
        dag_queries.pause(connection, "d", True)
    plane.play(first)
    assert plane.tick() == []


def test_queueing_two_schedulers_never_exceed_pool(plane: ControlPlane, tmp_path: Path) -> None:
    put_pool(plane, "gpu", 0)
    plane.add_dag("d", *(empty_task(f"t{number}", pool="gpu") for number in range(12)))
    plane.add_run("d")
    assert plane.tick() == []
    put_pool(plane, "gpu", 3)
    with control_plane(tmp_path, clock=plane.clock, settings=plane.settings) as other:
        barrier = threading.Barrier(2)

        def queue(which: ControlPlane) -> None:
            barrier.wait()
            which.tick()

        for which in (plane, other):
            which.scheduler.sweep()
        threads = [threading.Thread(target=queue, args=(which,)) for which in (plane, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with plane.database.reading() as connection:
        assert len(in_flight.in_flight_tasks(connection)) == 3


def test_draining_hands_out_nothing(plane: ControlPlane) -> None:
    wide(plane, 3)
    plane.add_run("wide")
    plane.scheduler.draining = True
    assert plane.tick() == []


def _seed(plane: ControlPlane, count: int) -> None:
    """One run with many finished and many scheduled tasks."""
    plane.add_dag("d", empty_task("a"))
    run = plane.add_run("d")
    plane.tick()
    common = {"dag_run_id": run, "map_index": -1, "pool": "default_pool", "pool_slots": 1, "queue": "default"}
    rows = [
        {**common, "task_id": f"{state}{number}", "state": state, "priority_weight": number % 7}
        for number in range(count // 2)
        for state in ("success", "scheduled")
    ]
    with plane.database.transaction() as connection:
        connection.execute(insert(TASK), rows)
        on_mysql = plane.database.url.get_backend_name() == "mysql"
        connection.execute(text("ANALYZE TABLE task_instance" if on_mysql else "ANALYZE"))


def test_queue_is_read_through_its_index(plane: ControlPlane) -> None:
    """Sorted by the index: the first few of ten thousand cost what the first few of fifty cost."""
    _seed(plane, 10_000)
    statements: list[tuple[str, Any]] = []

    @event.listens_for(plane.database.engine, "before_cursor_execute")
    def remember(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with plane.database.transaction() as connection:
        found = scheduled_queries.ask_and_lock_scheduled(
            connection, limit=24, without_pools=["full"], without_runs=[99]
        )()
        statement, parameters = next(pair for pair in statements if "FROM task_instance" in pair[0])
        explain = "EXPLAIN QUERY PLAN" if plane.database.is_sqlite else "EXPLAIN"
        plan = [str(row) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)]
    assert len(found) == 24
    assert [candidate.priority_weight for candidate in found] == [6] * 24
    assert any("ix_task_instance_queueing" in line for line in plan), plan
    assert not any("TEMP B-TREE" in line or "Sort" in line for line in plan), plan


#: a lock is waited for this long
_GIVE_UP = {"mysql": "SET innodb_lock_wait_timeout = 1", "postgresql": "SET lock_timeout = '1s'"}


@pytest.fixture(params=["postgresql", "mariadb"])
def on_a_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlPlane]:
    server: LocalServer = request.getfixturevalue({"postgresql": "postgres"}.get(request.param, request.param))
    with control_plane(tmp_path, database_url=server.clean_database()) as plane:
        yield plane


def test_queueing_locks_tasks_and_neither_their_runs_nor_their_dags(on_a_server: ControlPlane) -> None:
    """Whatever is done to a run or a DAG meanwhile hides no task that is ready, and does not wait for it."""
    plane = on_a_server
    plane.add_dag("d", empty_task("a"))
    plane.add_run("d")
    plane.tick()
    with plane.database.transaction() as connection:
        connection.execute(update(TASK).values(state="scheduled"))
    changes = (update(RUN).values(note="changed"), update(DAG).values(max_active_runs=7))
    with plane.database.transaction() as changing:
        for change in changes:
            changing.execute(change)
        with plane.database.transaction() as connection:
            assert len(scheduled_queries.ask_and_lock_scheduled(connection, limit=24)()) == 1
            # what it has locked is passed over
            assert scheduled_queries.ask_and_lock_scheduled(changing, limit=24)() == []
    with plane.database.transaction() as connection:
        assert len(scheduled_queries.ask_and_lock_scheduled(connection, limit=24)()) == 1
        with plane.database.transaction() as changing:
            changing.execute(text(_GIVE_UP[plane.database.url.get_backend_name()]))
            for change in changes:
                changing.execute(change)


@pytest.fixture
def two(tmp_path: Path, postgres: LocalServer) -> Iterator[tuple[ControlPlane, ControlPlane]]:
    """Two schedulers over PostgreSQL that know of each other, with three runs of a task; each has 40 slots."""
    settings = Settings(executors={"local": {"slots": 40}})
    url = postgres.clean_database()
    with (
        control_plane(tmp_path, database_url=url, settings=settings) as first,
        control_plane(tmp_path, clock=first.clock, database_url=url, settings=settings) as second,
    ):
        first.scheduler.task_queue.others = {second.service_id: 40}
        second.scheduler.task_queue.others = {first.service_id: 40}
        yield first, second


def _make_ready(plane: ControlPlane) -> None:
    """Every run runs, and all of its tasks may be queued."""
    plane.scheduler.task_queue.queue_all, queue_all = lambda *_: False, plane.scheduler.task_queue.queue_all  # type: ignore[method-assign]
    plane.tick()
    plane.scheduler.task_queue.queue_all = queue_all  # type: ignore[method-assign]


def _queue(plane: ControlPlane, connection: Any) -> bool:
    connection.execute(text(_GIVE_UP["postgresql"]))
    return plane.scheduler.task_queue.queue_all(plane.clock.now(), (), connection, together)


def _held(plane: ControlPlane) -> list[in_flight.InFlightTask]:
    with plane.database.reading() as connection:
        return in_flight.in_flight_tasks(connection)


def test_schedulers_far_from_every_limit_do_not_wait_for_each_other(two: tuple[ControlPlane, ControlPlane]) -> None:
    """A commit that waits for its disk makes no other one wait."""
    first, second = two
    first.add_dag("d", *(empty_task(f"t{number}") for number in range(3)))
    for number in range(4):
        first.add_run("d", f"r{number}")
    _make_ready(first)
    with first.database.transaction() as one, second.database.transaction() as other:
        assert not _queue(first, one)
        assert not _queue(second, other)
    # what the first has left to it was locked: it is told of that
    with second.database.transaction() as other:
        assert not _queue(second, other)
    assert {task.service_id for task in _held(first)} == {first.service_id, second.service_id}


def test_near_a_limit_a_scheduler_has_nobody_beside_it(two: tuple[ControlPlane, ControlPlane]) -> None:
    first, second = two
    put_pool(first, "gpu", 2)
    first.add_dag("d", *(empty_task(f"t{number}", pool="gpu") for number in range(6)))
    first.add_run("d")
    _make_ready(first)
    with first.database.transaction() as one:
        # beside others it takes nothing, and does it again alone
        assert _queue(first, one)
    with second.database.transaction() as other:
        assert _queue(second, other)
    assert _held(first) == []
    with first.database.transaction() as one:
        assert not _queue(first, one)
        with pytest.raises(DBAPIError, match="lock timeout"), second.database.transaction() as other:
            _queue(second, other)
    with second.database.transaction() as other:
        assert not _queue(second, other)
    assert len(_held(first)) == 2


def test_pool_is_changed_when_nobody_counts_its_slots(two: tuple[ControlPlane, ControlPlane]) -> None:
    first, second = two
    with first.database.transaction() as one:
        _queue(first, one)
        with pytest.raises(DBAPIError, match="lock timeout"), second.database.transaction() as other:
            other.execute(text(_GIVE_UP["postgresql"]))
            pool_queries.put(other, "gpu", 1, description="", include_deferred=False)
