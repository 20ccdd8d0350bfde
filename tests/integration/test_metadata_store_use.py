"""What attempts asked of stores: kept with them, summed up for a run and for Prometheus."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from sqlalchemy import select

from tests.integration.execution_requests import DEFERRAL, O
from tests.support.control_plane import ControlPlane
from trainflow.insight.metrics.metrics import AttemptCounters
from trainflow.insight.runs.runs import store_totals
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries import trigger_queries
from trainflow.metadata.queries.trigger_queries import TRIGGER
from trainflow.observability.store_requests import BOUNDS, StoreUse

CALLS = (1, *[0] * len(BOUNDS))
READ = StoreUse("s3://a", "read", 2, 0, 7, 0.5, CALLS, {"throttled": 1})
WRITE = StoreUse("s3://a", "create", 1, 9, 0, 0.25, CALLS)


def requests_in(plane: ControlPlane, counters: AttemptCounters | None = None) -> dict[str, float]:
    counters = counters or AttemptCounters()
    counters.look(plane.database)
    (family,) = [each for each in counters.families() if each.name == "trainflow_store_requests_total"]
    return {labels["op"]: value for _, labels, value in family.samples}


def test_outcome_with_requests_is_summed_for_its_run(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.play(work, O.SUCCESS, store_use=[READ, WRITE])
    with plane.database.reading() as connection:
        found = store_totals(connection, [run, run + 1])
    total = found[run]
    assert total is not None
    assert (total.requests, total.writes, total.reads) == (3, 1, 2)
    assert (total.bytes_sent, total.bytes_received, total.seconds, total.errors) == (9, 7, 0.75, 1)
    assert found[run + 1] is None


def test_outcome_without_requests_writes_nothing_of_them(plane: ControlPlane, run: int, work: ExecuteTask) -> None:
    plane.play(work, O.SUCCESS)
    with plane.database.reading() as connection:
        assert store_totals(connection, [run]) == {run: None}
    assert requests_in(plane) == {}


def test_attempt_that_waited_is_summed_over_its_processes_and_counted_once(
    plane: ControlPlane, run: int, work: ExecuteTask
) -> None:
    counters = AttemptCounters()
    plane.play(work, O.DEFERRED, store_use=[READ], deferral=DEFERRAL)
    assert requests_in(plane, counters) == {}
    with plane.database.transaction() as connection:
        waiting = connection.execute(select(TRIGGER.c.id)).scalar_one()
        trigger_queries.fire(connection, waiting, msgspec.Raw(b"null"), plane.clock.now())
    plane.scheduler.sweep()
    (again,) = plane.tick()
    plane.play(again, O.SUCCESS, store_use=[READ, WRITE])
    assert requests_in(plane, counters) == {"create": 1, "read": 4}
    with plane.database.reading() as connection:
        total = store_totals(connection, [run])[run]
    assert total is not None
    assert total.requests == 5


def test_metrics_count_each_attempt_once_however_often_they_are_asked(
    plane: ControlPlane, run: int, work: ExecuteTask
) -> None:
    counters = AttemptCounters()
    plane.play(work, O.FAILED, store_use=[READ])
    assert [requests_in(plane, counters) for _ in range(2)] == [{"read": 2}] * 2
    plane.clock.advance(timedelta(hours=1))
    (again,) = plane.tick()
    plane.play(again, O.SUCCESS, store_use=[READ])
    assert requests_in(plane, counters) == {"read": 4} == requests_in(plane)
