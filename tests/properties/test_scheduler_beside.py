"""Schedulers that queue beside each other, none of which sees what the others have not committed: no limit that they
share is ever exceeded. The rule is the scheduler's; its transactions and their locks are a model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from trainflow.metadata.queries.in_flight import InFlightTask
from trainflow.metadata.queries.pool_queries import PoolSlots
from trainflow.metadata.queries.queueing_lock import MOST_BESIDE, SEATS, UNSEEN
from trainflow.metadata.queries.scheduled_queries import Candidate
from trainflow.scheduler.executor_slots import ExecutorSlots
from trainflow.scheduler.queueing import Limits, QueueingChoice, choose
from trainflow.serialization.document import DagDocument, TaskDocument
from trainflow.settings.executors import ExecutorEntry
from trainflow.states import TaskInstanceState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
#: histories that are looked at; a bug that needs more of them is as good as not found
SEEDS, STEPS = range(60), 250
SCHEDULERS = 3 * SEATS
FAR = 10_000
LIMITS = ("pool", "fleet", "few", "run")

Active = Callable[[Candidate], int]


class Transaction:
    """One that queues: it has its lock, then counts, then chooses, then commits. `seat` None: it is alone."""

    def __init__(self, seat: int | None) -> None:
        self.seat = seat
        self.counted: list[InFlightTask] | None = None
        self.chosen: list[Candidate] | None = None
        self.locked: set[int] = set()


class History:
    """Schedulers over one database, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        # one of the limits is near: what is far from all is not worth looking at
        near = LIMITS[seed % len(LIMITS)]
        self.limits = {
            name: UNSEEN + self.random.randint(1, 2 * MOST_BESIDE) if name == near else FAR for name in LIMITS
        }
        few = TaskDocument("few", "Empty", max_active_tis_per_dag=self.limits["few"])
        others = [TaskDocument(f"t{number}", "Empty") for number in range(2 * UNSEEN)]
        self.document = DagDocument("d", tasks=[few, *others], max_active_tasks=self.limits["run"])
        self.open: dict[int, Transaction] = {}
        self.is_near = dict.fromkeys(range(SCHEDULERS), False)
        self.scheduled: dict[int, Candidate] = {}
        self.held: dict[int, InFlightTask] = {}
        self.number = 0
        #: how many were queued by transactions that had a seat
        self.beside = 0

    # -- planted bugs replace these --------------------------------------------------------------------------------

    def may_begin(self, seat: int | None) -> bool:
        """What the locks of the database admit."""
        return not self.open if seat is None else all(each.seat not in (seat, None) for each in self.open.values())

    def choose(self, candidates: list[Candidate], limits: Limits, active: Active, beside: bool) -> QueueingChoice:
        """The scheduler's rule."""
        return choose(candidates, limits, active, beside=beside)

    # -- steps -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One thing happens."""
        if self.random.random() < 0.3:
            self._add(self.random.randint(1, 2 * MOST_BESIDE))
        if self.random.random() < 0.05:
            for number in self.random.sample(list(self.held), len(self.held) * 3 // 4):
                del self.held[number]
        # most often one that is behind the others: then as many as may are at it at the same time
        scheduler = min(self.random.sample(range(SCHEDULERS), 4), key=self._progress)
        transaction = self.open.get(scheduler)
        if transaction is None:
            seat = None if self.is_near[scheduler] else scheduler % SEATS
            if self.may_begin(seat):
                self.open[scheduler] = Transaction(seat)
        elif transaction.counted is None:
            transaction.counted = list(self.held.values())
        elif transaction.chosen is None:
            self._choose(scheduler, transaction, transaction.counted)
        else:
            self._commit(scheduler, transaction, transaction.chosen)

    def _progress(self, scheduler: int) -> int:
        transaction = self.open.get(scheduler)
        if transaction is None:
            # one that has to wait for its lock is no reason for others to wait
            return 0 if self.may_begin(None if self.is_near[scheduler] else scheduler % SEATS) else 4
        return 1 + (transaction.counted is not None) + (transaction.chosen is not None)

    def _add(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.scheduled[self.number] = Candidate(
                id=self.number, dag_run_id=self.random.randrange(2), task_id=self.random.choice(["few", "few", "t1"]),
                map_index=-1, pool="pool", pool_slots=self.random.choice([1] * 20 + [MOST_BESIDE + 1]),
                priority_weight=1, queue="default", executor=self.random.choice([None, "fleet", "fleet"]),
                attempt_id=None, deferral_number=0, failures=0, next_method=None, dag_id="d", run_id="r", version_id=1,
                clear_number=0, traceparent=None, scheduled_at=NOW,
            )  # fmt: skip

    def _choose(self, scheduler: int, transaction: Transaction, counted: list[InFlightTask]) -> None:
        local = ExecutorEntry("local", "local", FAR)
        fleet = ExecutorEntry("fleet", "celery", self.limits["fleet"])
        limits = Limits(
            executors=ExecutorSlots({"local": local, "fleet": fleet}, "local", counted, own=scheduler),
            pools={"pool": PoolSlots(self.limits["pool"])},
            held=counted,
            documents=lambda _: self.document,
        )
        locked = {number for other in self.open.values() for number in other.locked}
        free = [candidate for number, candidate in self.scheduled.items() if number not in locked][:16]
        transaction.locked = {candidate.id for candidate in free}
        choice = self.choose(
            free,
            limits,
            lambda one: sum(task.task_id == one.task_id for task in counted),
            transaction.seat is not None,
        )
        transaction.chosen = choice.chosen
        self.is_near[scheduler] = choice.near and transaction.seat is not None

    def _commit(self, scheduler: int, transaction: Transaction, chosen: list[Candidate]) -> None:
        del self.open[scheduler]
        for one in chosen:
            del self.scheduled[one.id]
            facts = (one.id, one.dag_run_id, one.task_id, one.pool, one.pool_slots, scheduler)
            self.held[one.id] = InFlightTask(*facts, TaskInstanceState.QUEUED, one.executor)
        self.beside += len(chosen) if transaction.seat is not None else 0

    def exceeded(self) -> str | None:
        """A limit that does not hold."""
        held = self.held.values()
        uses = {
            "pool": sum(task.pool_slots for task in held),
            "fleet": sum(task.executor == "fleet" for task in held),
            "few": sum(task.task_id == "few" for task in held),
            "run": max(Counter(task.dag_run_id for task in held).values(), default=0),
        }
        return next(
            (f"{name}: {uses[name]} of {most}" for name, most in self.limits.items() if uses[name] > most), None
        )


def first_exceeded(kind: type[History]) -> str | None:
    """What the first history shows that exceeds a limit."""
    for seed in SEEDS:
        history = kind(seed)
        for number in range(STEPS):
            history.step()
            if (found := history.exceeded()) is not None:
                return f"seed {seed}, step {number}: {found}"
    return None


def test_schedulers_beside_each_other_exceed_no_limit() -> None:
    assert first_exceeded(History) is None


def test_schedulers_with_seats_queue_most_of_it() -> None:
    """What is looked at are not transactions one after the other."""
    histories = [History(seed) for seed in range(8)]
    for history in histories:
        for _ in range(STEPS):
            history.step()
    assert min(history.beside for history in histories) > 2 * MOST_BESIDE


class LockSkipped(History):
    """Nothing is left to a transaction that is alone."""

    def choose(self, candidates: list[Candidate], limits: Limits, active: Active, beside: bool) -> QueueingChoice:
        return super().choose(candidates, limits, active, False)


class SharedSeats(History):
    """A seat is not one transaction's."""

    def may_begin(self, seat: int | None) -> bool:
        return seat is not None or super().may_begin(seat)


class AloneWaitsForNone(History):
    """One that is alone does not wait for those that have seats."""

    def may_begin(self, seat: int | None) -> bool:
        return seat is None or super().may_begin(seat)


class TakesMore(History):
    """With a seat it takes more than its share."""

    def choose(self, candidates: list[Candidate], limits: Limits, active: Active, beside: bool) -> QueueingChoice:
        limits._chosen = -FAR
        return super().choose(candidates, limits, active, beside)


@pytest.mark.parametrize("bug", [LockSkipped, SharedSeats, AloneWaitsForNone, TakesMore])
def test_planted_bug_exceeds_a_limit(bug: type[History]) -> None:
    assert first_exceeded(bug) is not None, f"{len(SEEDS)} seeds did not find: {bug.__doc__}"
