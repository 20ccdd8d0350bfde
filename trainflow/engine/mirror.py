"""Carry the outbox to MLflow, in a thread that waits for a process: neither ever delays a task."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.engine.mirrored_run import delivery_of, promotions_in, put_off
from trainflow.errors import TrainflowError
from trainflow.executors.reactor import Reactor
from trainflow.metadata import outbox_queries, run_queries
from trainflow.metadata.dag_queries import Versions
from trainflow.metadata.database import Database
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.tracking import ui
from trainflow.tracking.backoff import backoff_seconds
from trainflow.tracking.courier import Courier
from trainflow.tracking.deliveries import Answer, Delivered, Delivery, NotDelivered

log = logging.getLogger(__name__)

#: the deliverer holds about 200 MiB: it ends when there was nothing to deliver for this long
IDLE_SECONDS = 10.0
#: an engine that ends waits so long for the delivery in hand; the deliverer finishes it in any case, and a delivery
#: that is made again changes nothing
LAST_SECONDS = 1.0


class _Job(NamedTuple):
    outbox_id: int
    #: None: it is about no run of this database
    dag_run_id: int | None
    delivery: Delivery


class Mirror:
    """The outbox's way to MLflow."""

    def __init__(
        self,
        database: Database,
        reactor: Reactor,
        *,
        clock: Clock,
        versions: Versions,
        project: Project,
        settings: Settings,
    ) -> None:
        self._database = database
        self._reactor = reactor
        self._clock = clock
        self._versions = versions
        self._project = project
        self._settings = settings
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._answers: deque[tuple[_Job, Answer]] = deque()
        self._thread: threading.Thread | None = None
        self._under_way = 0
        self._due: datetime | None = None
        self._may_look = True
        self._fresh = True

    def notice(self) -> None:
        """A run started or ended: look into the outbox in the next tick."""
        self._may_look = True

    @property
    def next_due(self) -> datetime | None:
        """When the next delivery is due."""
        return self._due

    @property
    def under_way(self) -> int:
        """How many deliveries have been handed over and not been answered."""
        return self._under_way

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
        for job in jobs:
            self._jobs.put(job)
        self._under_way += len(jobs)
        if jobs:
            self._start_thread()

    def _find_jobs(self, now: datetime, connection: Connection) -> list[_Job]:
        rows = outbox_queries.pending(connection, now)
        jobs = [
            _Job(row.id, row.dag_run_id, delivery_of(connection, row, self._versions, self._project)) for row in rows
        ]
        self._due = None if jobs else outbox_queries.next_attempt_at(connection)
        return jobs

    def _forgive(self, now: datetime) -> None:
        """An engine that has just started does not wait because its predecessor failed: MLflow may be back."""
        self._fresh = False
        self._database.write(lambda connection: outbox_queries.make_due(connection, now))

    def _take_answers(self, now: datetime) -> None:
        while self._answers:
            job, answer = self._answers.popleft()
            self._under_way -= 1
            self._may_look = True
            self._database.write(partial(self._keep_answer, job, answer, now))

    def _keep_answer(self, job: _Job, answer: Answer, now: datetime, connection: Connection) -> None:
        match answer:
            case Delivered():
                outbox_queries.delivered(connection, job.outbox_id, now)
                uri = ui.tracking_uri(self._settings.tracking, self._project.home)
                if job.dag_run_id is not None:
                    run_queries.remember_mlflow(connection, job.dag_run_id, uri, answer.mlflow_run_id)
                for promoted in promotions_in(job.delivery):
                    put_off(connection, promoted, now)
            case NotDelivered(_, reason, True):
                failures = outbox_queries.failures(connection, job.outbox_id) + 1
                delay = timedelta(seconds=backoff_seconds(failures))
                outbox_queries.failed(connection, [job.outbox_id], reason=reason, delay=delay, now=now)
            case NotDelivered(_, reason, _):
                log.error("MLflow refuses delivery %d: %s", job.outbox_id, reason)
                outbox_queries.given_up(connection, job.outbox_id, reason, now)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._carry, name="mirror", daemon=True)
            self._thread.start()

    def _carry(self) -> None:
        courier: Courier | None = None
        try:
            while True:
                try:
                    job = self._jobs.get(timeout=IDLE_SECONDS)
                except queue.Empty:
                    if courier is not None:
                        courier.close()
                        courier = None
                    continue
                if job is None:
                    return
                courier = self._deliver(courier, job)
        finally:
            if courier is not None:
                courier.close()

    def _deliver(self, courier: Courier | None, job: _Job) -> Courier | None:
        """Deliver one; the courier to go on with, None when it was lost."""
        try:
            if courier is None:
                courier = Courier.start(
                    ui.target(self._settings.tracking, self._project.home), log_file=self._project.home.engine_log
                )
            answer: Answer = courier.deliver(job.outbox_id, job.delivery)
        except (TrainflowError, OSError) as error:
            answer = NotDelivered(job.outbox_id, str(error))
            if courier is not None:
                courier.close(grace_seconds=0.0)
                courier = None
        self._answers.append((job, answer))
        self._reactor.wake()
        return courier

    # -- the end ---------------------------------------------------------------------------------------------------

    def pending(self) -> tuple[int, str | None]:
        """How much is not in MLflow yet, and why the first of it is not, if that is known."""
        return self._database.read(outbox_queries.undelivered)

    def drain(self, seconds: float, enough: Callable[[], bool]) -> int:
        """Give the last deliveries a chance; returns how many are left for the next engine.

        Ends early when MLflow cannot be reached, or when somebody has had `enough`: what waits is written down.
        """
        deadline = self._clock.monotonic() + seconds
        self._may_look = True
        self.tick()
        while self._under_way and not enough() and (left := deadline - self._clock.monotonic()) > 0:
            self._reactor.turn(min(left, 0.5))
            self.tick()
        return self.pending()[0]

    def close(self) -> None:
        """End the thread and its process."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout=LAST_SECONDS)
