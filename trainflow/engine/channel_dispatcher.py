"""The way of one channel of the outbox to the system that it tells."""

from __future__ import annotations

import logging
from abc import abstractmethod
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.deadlines import backoff_seconds
from trainflow.engine.outbox_dispatcher import OutboxDispatcher
from trainflow.errors import DeliveryRefused
from trainflow.executors.reactor import Reactor
from trainflow.metadata.database import Database
from trainflow.metadata.queries import outbox_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.outbox_queries import OutboxOfChannel
from trainflow.metadata.queries.status_queries import Undelivered
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.project import Project

log = logging.getLogger(__name__)

#: what has arrived is remembered so long
KEPT_FOR = timedelta(days=30)
_PRUNE_SECONDS = 86_400.0


class ChannelJob(NamedTuple):
    """One row of the outbox, and what is to be said of it. `dag_run_id` None: it is about no run of this database.
    `batch`: the look that found it."""

    outbox_id: int
    dag_run_id: int | None
    content: Any
    batch: int


class ChannelAnswer(NamedTuple):
    """What became of a delivery. `reason` None: it arrived. `retry` False: the content is refused, trying again is of
    no use. `found`: what the system said. `tried` False: it was held back, since one before it did not arrive."""

    reason: str | None = None
    retry: bool = True
    found: Any = None
    tried: bool = True


_HELD_BACK = ChannelAnswer("one before it did not arrive", tried=False)


class ChannelDispatcher(OutboxDispatcher[ChannelJob, ChannelAnswer]):
    """Delivers each row of its channel at least once, in order, whatever becomes of the other channels."""

    channel: OutboxChannel
    #: how a person calls the system
    system: str
    #: how long a `start` that has finished waits for the last deliveries
    drain_seconds: float = 10.0

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
        self._versions = versions
        self._project = project
        self._settings = settings
        self.outbox = self.queries = OutboxOfChannel(self.channel)
        self.name = self.channel.value
        self._prune_at = float("-inf")
        self._batch = 0
        #: the thread's own: the batch of which one did not arrive
        self._held_batch = 0
        super().__init__(database, reactor, clock)

    @abstractmethod
    def _content(self, connection: Connection, row: Any) -> Any:
        """What is to be said of a row of the outbox."""

    def _arrived(self, connection: Connection, job: ChannelJob, answer: ChannelAnswer, now: datetime) -> None:
        """Do what follows from a delivery that arrived, in the transaction that notes it."""

    # -- the outbox ------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take answers, hand over what is due; forget once a day what arrived long ago."""
        if self._clock.monotonic() >= self._prune_at:
            self._prune_at = self._clock.monotonic() + _PRUNE_SECONDS
            before = self._clock.now() - KEPT_FOR
            self._database.write(lambda connection: self.outbox.prune(connection, before))
        super().tick()

    def backlog(self) -> Undelivered:
        """What waits and what was refused, with the reasons."""
        return self._database.read(self.outbox.undelivered)

    def _find(self, connection: Connection, now: datetime) -> list[ChannelJob]:
        self._batch += 1
        return self._jobs_of(self.outbox.pending(connection, now), partial(self._job, connection))

    def _job(self, connection: Connection, row: Any) -> ChannelJob:
        return ChannelJob(row.id, row.dag_run_id, self._content(connection, row), self._batch)

    def _give_up(self, connection: Connection, row_id: int, reason: str, now: datetime) -> None:
        outbox_queries.given_up(connection, row_id, reason, now)

    def _keep_answer(self, connection: Connection, job: ChannelJob, answer: ChannelAnswer, now: datetime) -> None:
        if not answer.tried:
            return
        if answer.reason is None:
            outbox_queries.delivered(connection, job.outbox_id, now)
            self._arrived(connection, job, answer, now)
        elif answer.retry:
            failures = outbox_queries.failures(connection, job.outbox_id) + 1
            if failures == 1:
                log.warning("%s: delivery %d waits: %s", self.system, job.outbox_id, answer.reason)
            delay = timedelta(seconds=backoff_seconds(failures))
            outbox_queries.failed(connection, job.outbox_id, reason=answer.reason, delay=delay, now=now)
        else:
            log.error("%s refuses delivery %d: %s", self.system, job.outbox_id, answer.reason)
            outbox_queries.given_up(connection, job.outbox_id, answer.reason, now)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _delivered(self, job: ChannelJob) -> ChannelAnswer:
        """The answer to one delivery. None is made behind one that did not arrive: a system sees a chain in order."""
        if job.batch == self._held_batch:
            return _HELD_BACK
        answer = super()._delivered(job)
        if answer.reason is not None and answer.retry:
            self._held_batch = job.batch
        return answer

    def _deliver(self, job: ChannelJob) -> ChannelAnswer:
        try:
            self._send(job.content)
        except DeliveryRefused as error:
            return ChannelAnswer(str(error), retry=error.retry)
        return ChannelAnswer()

    def _send(self, content: Any) -> None:
        """Deliver by one request, where that is how it is done. Raises DeliveryRefused."""
        raise NotImplementedError

    def _broken(self, job: ChannelJob, reason: str) -> ChannelAnswer:
        return ChannelAnswer(reason, retry=False)
