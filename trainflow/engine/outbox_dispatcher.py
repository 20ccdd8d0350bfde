"""What leaves the project: rows of a table, handed to a thread that waits for the answer of another system.

The engine's own thread reads and writes the database and never waits; the thread delivers and never touches it.
"""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.deadlines import LONGEST_BACKOFF_SECONDS
from trainflow.errors import describe
from trainflow.executors.reactor import Reactor
from trainflow.metadata.database import Database
from trainflow.metadata.transaction_retries import is_own_fault

log = logging.getLogger(__name__)

Job = TypeVar("Job")
Answer = TypeVar("Answer")

#: an engine that ends waits so long for the delivery in hand: one that is made again changes nothing
LAST_SECONDS = 1.0


class OutboxQueries(Protocol):
    """What a module of queries says of its table, whatever is delivered."""

    def next_attempt_at(self, connection: Connection) -> datetime | None:
        """When the next delivery is due; None when there is none."""

    def make_due(self, connection: Connection, now: datetime) -> None:
        """Make due whatever waits for its next attempt."""

    def undelivered(self, connection: Connection) -> tuple[Any, ...]:
        """How many are not delivered yet, and why the first of them is not, if that is known."""


class OutboxDispatcher(ABC, Generic[Job, Answer]):
    """Delivers each row of its table at least once. Nothing waits for it but the end of the engine."""

    #: what the thread is called
    name: str
    #: the queries of its table
    queries: OutboxQueries
    #: `_rest` is called when there was nothing to deliver for this long; None: never
    idle_seconds: float | None = None

    def __init__(self, database: Database, reactor: Reactor, clock: Clock) -> None:
        self._database = database
        self._reactor = reactor
        self._clock = clock
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._answers: deque[tuple[Job, Answer]] = deque()
        self._thread: threading.Thread | None = None
        self._under_way = 0
        #: the next look, by the monotonic clock
        self._due: float | None = None
        self._may_look = True
        self._fresh = True
        #: rows of the last look that cannot be delivered, and why
        self._unreadable: list[tuple[int, str]] = []

    # -- what each dispatcher says of itself ---------------------------------------------------------------------------

    @abstractmethod
    def _find(self, connection: Connection, now: datetime) -> list[Job]:
        """What may be delivered now."""

    @abstractmethod
    def _keep_answer(self, connection: Connection, job: Job, answer: Answer, now: datetime) -> None:
        """Write down what became of a delivery."""

    @abstractmethod
    def _give_up(self, connection: Connection, row_id: int, reason: str, now: datetime) -> None:
        """Write down that a row cannot be delivered, and is not tried again."""

    @abstractmethod
    def _deliver(self, job: Job) -> Answer:
        """Make one delivery, in the thread, however long it takes."""

    @abstractmethod
    def _broken(self, job: Job, reason: str) -> Answer:
        """The answer, in the thread, of a delivery that raised an unforeseen error."""

    def _rest(self) -> None:
        """Give back, in the thread, what is only needed to deliver."""

    # -- in the engine's thread ------------------------------------------------------------------------------------

    def notice(self) -> None:
        """Look in the next tick: there may be something new."""
        self._may_look = True

    @property
    def busy(self) -> bool:
        """Whether there is something to do right now."""
        return self._may_look and not self._under_way

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the next delivery is due."""
        return None if self._due is None else self._due - self._clock.monotonic()

    @property
    def under_way(self) -> int:
        """How many deliveries have been handed over and not been answered."""
        return self._under_way

    def tick(self) -> None:
        """Take answers; hand over what is due."""
        now = self._clock.now()
        if self._fresh:
            # an engine that has just started does not wait because its predecessor failed
            self._fresh = False
            self._database.write(lambda connection: self.queries.make_due(connection, now))
        self._take_answers(now)
        due = self._due is not None and self._due <= self._clock.monotonic()
        if self._under_way or not (self._may_look or due):
            return
        self._may_look = False
        jobs = self._database.read(partial(self._look, now))
        for row_id, reason in self._unreadable:
            log.error("%s: row %d is given up: %s", self.name, row_id, reason)
            self._database.write(partial(self._give_up, row_id=row_id, reason=reason, now=now))
            self._may_look = True
        if jobs:
            self._hand_over(jobs, now)

    def _look(self, now: datetime, connection: Connection) -> list[Job]:
        self._unreadable.clear()
        jobs = self._find(connection, now)
        moment = None if jobs else self.queries.next_attempt_at(connection)
        self._due = None
        if moment is not None:
            self._due = self._clock.monotonic() + min(max((moment - now).total_seconds(), 0.0), LONGEST_BACKOFF_SECONDS)
        return jobs

    def _jobs_of(self, rows: Iterable[Any], make: Callable[[Any], Job]) -> list[Job]:
        """What is to be delivered of these rows. One that cannot be understood holds up no other: it is given up."""
        jobs: list[Job] = []
        for row in rows:
            try:
                jobs.append(make(row))
            except Exception as error:
                if not is_own_fault(error):
                    raise
                log.error("%s: row %d cannot be understood", self.name, row.id, exc_info=error)
                self._unreadable.append((row.id, f"it cannot be understood: {describe(error)}"))
        return jobs

    def _hand_over(self, jobs: list[Job], now: datetime) -> None:
        for job in jobs:
            self._jobs.put(job)
        self._under_way += len(jobs)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._carry, name=self.name, daemon=True)
            self._thread.start()

    def _take_answers(self, now: datetime) -> None:
        while self._answers:
            job, answer = self._answers.popleft()
            self._under_way -= 1
            self._may_look = True
            self._database.write(partial(self._keep_answer, job=job, answer=answer, now=now))

    # -- the thread ------------------------------------------------------------------------------------------------

    def _carry(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                self._answers.append((job, self._delivered(job)))
                self._reactor.wake()
        finally:
            self._rest()

    def _delivered(self, job: Job) -> Answer:
        try:
            return self._deliver(job)
        except Exception as error:
            # a thread that ends here would never answer, and nothing would be delivered any more
            log.error("%s: a delivery failed", self.name, exc_info=error)
            return self._broken(job, describe(error))

    def _next_job(self) -> Job | None:
        while True:
            try:
                return self._jobs.get(timeout=self.idle_seconds)
            except queue.Empty:
                self._rest()

    # -- the end ---------------------------------------------------------------------------------------------------

    def undelivered(self) -> tuple[int, str | None]:
        """How many are not delivered yet, and why the first of them is not, if that is known."""
        waiting, reason, *_ = self._database.read(self.queries.undelivered)
        return waiting, reason

    def drain(self, seconds: float, enough: Callable[[], bool]) -> int:
        """Give the last deliveries a chance; returns how many are left for the next engine.

        Ends early when nothing can be delivered now, or when the person has had `enough`: what waits is written down.
        """
        deadline = self._clock.monotonic() + seconds
        self._may_look = True
        self.tick()
        while self._under_way and not enough() and (left := deadline - self._clock.monotonic()) > 0:
            self._reactor.turn(min(left, 0.5))
            self.tick()
        return self.undelivered()[0]

    def close(self) -> None:
        """End the thread; a delivery under way is left to itself, and made again by the next engine."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout=LAST_SECONDS)
