"""Tell people what happened: the table of notices' way to webhook, command and services, in a thread of its own."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.deadlines import backoff_seconds
from trainflow.engine.outbox_dispatcher import OutboxDispatcher
from trainflow.engine.page_links import chain_page, pages_address
from trainflow.errors import DeliveryRefused
from trainflow.executors.reactor import Reactor
from trainflow.messages.notice import Notice
from trainflow.metadata.database import Database
from trainflow.metadata.queries import notification_queries
from trainflow.notifications import Target, payload, targets
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

log = logging.getLogger(__name__)

#: given up after so many failures in a row: 5 s, 10 s, … 5 min apart, that is about a day
MOST_FAILURES = 300


class _NoticeJob(NamedTuple):
    id: int
    failures: int
    message: dict[str, Any]
    taken_by: frozenset[str]


class _Answer(NamedTuple):
    taken_by: frozenset[str]
    #: None: every target has it
    reason: str | None


class Notifier(OutboxDispatcher[_NoticeJob, _Answer]):
    """Delivers each notice to every target at least once."""

    name = "notifier"
    queries = notification_queries

    def __init__(
        self, database: Database, reactor: Reactor, *, clock: Clock, project: Project, settings: Settings
    ) -> None:
        super().__init__(database, reactor, clock)
        self._project = project
        self._settings = settings
        self._targets: list[Target] = targets(settings.notifications, project.root)

    # -- the table of notices --------------------------------------------------------------------------------------

    def _find(self, connection: Connection, now: datetime) -> list[_NoticeJob]:
        rows = notification_queries.pending(connection, now)
        address = pages_address(connection, self._settings, now) if rows else None
        return self._jobs_of(rows, partial(self._job, address))

    def _give_up(self, connection: Connection, row_id: int, reason: str, now: datetime) -> None:
        notification_queries.taken(connection, row_id, (), now, reason)

    def _job(self, address: str | None, row: Any) -> _NoticeJob:
        notice = msgspec.convert(row.notice, Notice)
        page = None if address is None else chain_page(address, notice.pipeline, notice.stage, notice.branch)
        message = payload(notice, at=row.created_at, project=self._project.root.name, page=page)
        return _NoticeJob(row.id, row.failures, message, notification_queries.takers(row))

    def _hand_over(self, jobs: list[_NoticeJob], now: datetime) -> None:
        if self._targets:
            super()._hand_over(jobs, now)
        else:
            self._database.write(lambda connection: self._nobody_to_tell(connection, jobs, now))

    @staticmethod
    def _nobody_to_tell(connection: Connection, jobs: list[_NoticeJob], now: datetime) -> None:
        """What no target was set for when it happened is not told once there is one, weeks later."""
        for job in jobs:
            notification_queries.taken(connection, job.id, job.taken_by, now, "no target")

    def _keep_answer(self, connection: Connection, job: _NoticeJob, answer: _Answer, now: datetime) -> None:
        failures = job.failures + 1
        given_up = failures >= MOST_FAILURES
        if answer.reason is not None:
            suffix = "; given up" if given_up else ""
            log.warning("notification '%s' was not taken: %s%s", job.message["event"], answer.reason, suffix)
        if answer.reason is None or given_up:
            notification_queries.taken(connection, job.id, answer.taken_by, now, answer.reason)
        else:
            delay = timedelta(seconds=backoff_seconds(failures))
            notification_queries.failed(connection, job.id, answer.taken_by, reason=answer.reason, delay=delay, now=now)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _deliver(self, job: _NoticeJob) -> _Answer:
        taken_by, reasons = set(job.taken_by), []
        for target in self._targets:
            if target.name in job.taken_by:
                continue
            try:
                target.tell(job.message)
                taken_by.add(target.name)
            except DeliveryRefused as error:
                reasons.append(str(error))
        return _Answer(frozenset(taken_by), "; ".join(reasons) or None)

    def _broken(self, job: _NoticeJob, reason: str) -> _Answer:
        return _Answer(job.taken_by, reason)
