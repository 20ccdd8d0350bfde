"""The simulation can fail: bugs that keep histories from coming to their end are planted, and must be found within a
few seeds."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.simulation import engine
from tests.simulation.plan import FaultKind as F
from tests.simulation.planted_bug import SIMPLEST, PlantedBug
from trainflow.execution import task_runner
from trainflow.messages.execution_api import Outcome
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import (
    task_queries,
    trigger_queries,
)
from trainflow.scheduler import loop, recovery
from trainflow.triggerer.triggerer import Triggerer

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

#: partitions come late, and are waited for
WAITING: dict[str, Any] = {
    **SIMPLEST,
    "mode": "latest",
    "partitions": 3,
    "present": (0,),
    "arrivals": (1, 2),
}
#: attempts are on other hosts
REMOTE: dict[str, Any] = {**SIMPLEST, "remote": True}


def adopt_nothing(patch: pytest.MonkeyPatch) -> None:
    """What a dead engine held stays where it is."""
    patch.setattr(engine, "adopt_orphans", lambda *_, **__: None)


def reconcile_nothing(patch: pytest.MonkeyPatch) -> None:
    """A workload that was lost on its way is waited for."""
    patch.setattr(recovery.Reconciler, "reconcile", lambda _: None)


def sweep_nothing(patch: pytest.MonkeyPatch) -> None:
    """There is no safety net: what an engine did not hear is never looked at."""
    patch.setattr(loop.Scheduler, "sweep", lambda _: None)


def watch_no_wait_of_others(patch: pytest.MonkeyPatch) -> None:
    """The waits of a dead triggerer are left to it."""
    real = trigger_queries.claim

    def claim(connection: Any, service_id: int, living: Any, limit: int) -> Any:
        all_services = range(100)
        return real(connection, service_id, all_services, limit)

    patch.setattr(trigger_queries, "claim", claim)


def forget_what_is_heard(patch: pytest.MonkeyPatch) -> None:
    """An event of a trigger is dropped."""
    patch.setattr(Triggerer, "_heard", lambda *_: None)


def never_look_for_what_is_due(patch: pytest.MonkeyPatch) -> None:
    """A retry waits for ever."""
    patch.setattr(task_queries, "seconds_until_due", lambda *_: math.inf)


def believe_the_clocks_of_others(patch: pytest.MonkeyPatch) -> None:
    """A lease is over when its last heartbeat is old by the observer's clock of the day."""
    clocks: dict[int, Any] = {}
    real = engine.SimulatedEngine._register

    def register(self: engine.SimulatedEngine) -> None:
        clocks[id(self.leases)] = self.clock
        real(self)

    def silent(self: Leases, rows: Any) -> set[int]:
        since = clocks[id(self)].now() - timedelta(seconds=self._dead_after)
        return {row.id for row in rows if row.heartbeat_at <= since}

    patch.setattr(engine.SimulatedEngine, "_register", register)
    patch.setattr(Leases, "silent", silent)


def wait_until_the_clock_comes_by_again(patch: pytest.MonkeyPatch) -> None:
    """After the clock was set back by a day, a retry is due a day later."""
    never = datetime.max.replace(tzinfo=UTC)
    patch.setattr(task_queries, "TOLERANCE", never - datetime(2100, 1, 1, tzinfo=UTC))


def watch_nothing_that_was_claimed_unheard(patch: pytest.MonkeyPatch) -> None:
    """A wait that was claimed by an unheard commit is not watched."""
    patch.setattr(trigger_queries, "watched", lambda *_: [])


def trust_the_clock_of_the_worker(patch: pytest.MonkeyPatch) -> None:
    """An attempt decides by the clock of its host."""
    patch.setattr(task_runner, "counting_clock", lambda _told, own: own)


def end_waits_by_the_clock_of_the_worker(patch: pytest.MonkeyPatch) -> None:
    """A worker says until when is waited at the longest, instead of how long."""
    real = task_runner._Attempt._deferred

    def deferred(self: Any, signal: Any) -> Outcome:
        outcome = real(self, signal)
        if outcome.deferral is None or (seconds := outcome.deferral.timeout_seconds) is None:
            return outcome
        until = self._host_clock.now() + timedelta(seconds=seconds)
        return replace(outcome, deferral=replace(outcome.deferral, timeout_seconds=None, deadline=until))

    patch.setattr(task_runner._Attempt, "_deferred", deferred)


PLANTED = [
    PlantedBug(adopt_nothing, (F.CRASH,), {"progress"}),
    PlantedBug(reconcile_nothing, (F.SWALLOW,), {"progress"}),
    PlantedBug(sweep_nothing, (F.CRASH,), {"progress"}),
    PlantedBug(watch_no_wait_of_others, (F.CRASH,), {"progress"}, WAITING),
    PlantedBug(forget_what_is_heard, (), {"progress"}, WAITING),
    PlantedBug(watch_nothing_that_was_claimed_unheard, (F.LOSE_ACKNOWLEDGEMENT,), {"progress"}, WAITING),
    PlantedBug(never_look_for_what_is_due, (F.FAIL,), {"progress"}),
    PlantedBug(believe_the_clocks_of_others, (F.HOST_CLOCK,), {"the living keep what they hold"}),
    PlantedBug(wait_until_the_clock_comes_by_again, (F.HOST_CLOCK, F.FAIL), {"progress"}, {**SIMPLEST, "homes": 2}),
    PlantedBug(
        trust_the_clock_of_the_worker,
        (F.WORKER_CLOCK,),
        {"the control plane's clock counts"},
        REMOTE,
    ),
    PlantedBug(
        end_waits_by_the_clock_of_the_worker,
        (F.WORKER_CLOCK,),
        {"nothing fails without a cause"},
        {**WAITING, "remote": True},
    ),
]


@pytest.mark.parametrize("planted", PLANTED, ids=[planted.plant.__name__ for planted in PLANTED])
def test_planted_bug_against_progress_is_found(planted: PlantedBug, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.assert_found(monkeypatch)
