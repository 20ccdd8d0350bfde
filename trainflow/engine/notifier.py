"""Tell people what happened: the table of notices' way to webhook and command, in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.errors import NoticeNotTaken
from trainflow.executors.reactor import Reactor
from trainflow.messages.notice import Notice
from trainflow.metadata import notification_queries
from trainflow.metadata.database import Database
from trainflow.notifications.message import payload
from trainflow.notifications.targets import Target, targets
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.tracking.backoff import backoff_seconds

log = logging.getLogger(__name__)

#: given up after so many failures in a row: 5 s, 10 s, … 5 min apart, that is about a day
MOST_FAILURES = 300


class _Job(NamedTuple):
    id: int
    failures: int
    message: dict[str, Any]
    taken_by: frozenset[str]


class _Answer(NamedTuple):
    job: _Job
    taken_by: frozenset[str]
    #: None: every target has it
    reason: str | None


class Notifier:
    """Delivers each notice to every target at least once. Nothing waits for it but the end of the engine."""

    def __init__(
        self, database: Database, reactor: Reactor, *, clock: Clock, project: Project, settings: Settings
    ) -> None:
        self._database = database
        self._reactor = reactor
        self._clock = clock
        self._project = project
        wanted = settings.notifications
        self._targets: list[Target] = targets(wanted.webhook, wanted.command, project.root)
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._answers: deque[_Answer] = deque()
        self._thread: threading.Thread | None = None
        self._under_way: set[int] = set()
        self._due: datetime | None = None
        self._may_look = True
        self._fresh = True

    def notice(self) -> None:
        """Something may have happened: look in the next tick."""
        self._may_look = True

    @property
    def next_due(self) -> datetime | None:
        """When the next one is due."""
        return self._due

    def tick(self) -> None:
        """Take answers; hand over what is due."""
        now = self._clock.now()
        if self._fresh:
            self._forgive(now)
        self._take_answers(now)
        due = self._due is not None and self._due <= now
        if self._under_way or not (self._may_look or due):
            return
        self._may_look = False
        jobs = self._database.read(partial(self._find_jobs, now))
        if not self._targets:
            self._nobody_to_tell(jobs, now)
            return
        for job in jobs:
            self._under_way.add(job.id)
            self._jobs.put(job)
        if jobs:
            self._start_thread()

    def _find_jobs(self, now: datetime, connection: Connection) -> list[_Job]:
        jobs = [self._job(row) for row in notification_queries.pending(connection, now)]
        self._due = None if jobs else notification_queries.next_attempt_at(connection)
        return jobs

    def _job(self, row: Any) -> _Job:
        notice = msgspec.convert(row.notice, Notice)
        message = payload(notice, at=row.created_at, project=self._project.root.name)
        return _Job(row.id, row.failures, message, notification_queries.takers(row))

    def _forgive(self, now: datetime) -> None:
        """An engine that has just started does not wait because its predecessor failed."""
        self._fresh = False
        self._database.write(lambda connection: notification_queries.make_due(connection, now))

    def _nobody_to_tell(self, jobs: list[_Job], now: datetime) -> None:
        """What nobody wanted to know when it happened is not told when somebody does, weeks later."""
        if not jobs:
            return

        def keep(connection: Connection) -> None:
            for job in jobs:
                notification_queries.taken(connection, job.id, job.taken_by, now, "nobody to tell")

        self._database.write(keep)

    def _take_answers(self, now: datetime) -> None:
        while self._answers:
            job, taken_by, reason = self._answers.popleft()
            self._under_way.discard(job.id)
            self._may_look = True
            failures = job.failures + 1
            self._database.write(partial(self._keep_answer, job, taken_by, reason, now))
            if reason is not None:
                given_up = "; given up" if failures >= MOST_FAILURES else ""
                log.warning("notification '%s' was not taken: %s%s", job.message["event"], reason, given_up)

    @staticmethod
    def _keep_answer(
        job: _Job, taken_by: frozenset[str], reason: str | None, now: datetime, connection: Connection
    ) -> None:
        failures = job.failures + 1
        if reason is None or failures >= MOST_FAILURES:
            notification_queries.taken(connection, job.id, taken_by, now, reason)
        else:
            delay = timedelta(seconds=backoff_seconds(failures))
            notification_queries.failed(connection, job.id, taken_by, reason=reason, delay=delay, now=now)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._carry, name="notifier", daemon=True)
            self._thread.start()

    def _carry(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._answers.append(self._deliver(job))
            self._reactor.wake()

    def _deliver(self, job: _Job) -> _Answer:
        taken_by, reasons = set(job.taken_by), []
        for target in self._targets:
            if target.name in job.taken_by:
                continue
            try:
                target.tell(job.message)
                taken_by.add(target.name)
            except NoticeNotTaken as error:
                reasons.append(str(error))
        return _Answer(job, frozenset(taken_by), "; ".join(reasons) or None)

    # -- the end ---------------------------------------------------------------------------------------------------

    def drain(self, seconds: float, enough: Callable[[], bool]) -> int:
        """Give the last ones a chance; returns how many are left for the next engine.

        Ends early when nothing is under way, or when somebody has had `enough`: what waits is written down.
        """
        deadline = self._clock.monotonic() + seconds
        self._may_look = True
        self.tick()
        while self._under_way and not enough() and (left := deadline - self._clock.monotonic()) > 0:
            self._reactor.turn(min(left, 0.5))
            self.tick()
        return self.untold()[0]

    def untold(self) -> tuple[int, str | None]:
        """How many were not taken yet, and why the first of them was not."""
        return self._database.read(notification_queries.untold)

    def close(self) -> None:
        """End the thread; a delivery under way is left to itself, and made again by the next engine."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout=1.0)
