"""Carry the outbox to MLflow, in a thread that waits for a process: neither ever delays a task."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.deadlines import backoff_seconds
from trainflow.engine.mlflow_deliveries import delivery_of, enqueue_promotion, follow_ups
from trainflow.engine.outbox_dispatcher import OutboxDispatcher
from trainflow.errors import TrainflowError
from trainflow.executors.reactor import Reactor
from trainflow.metadata.database import Database
from trainflow.metadata.queries import outbox_queries, run_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.tracking import ui
from trainflow.tracking.deliveries import Delivered, Delivery, DeliveryReply, NotDelivered
from trainflow.tracking.delivery_client import DeliveryClient

log = logging.getLogger(__name__)


class _MlflowJob(NamedTuple):
    outbox_id: int
    #: None: it is about no run of this database
    dag_run_id: int | None
    delivery: Delivery


class MlflowDispatcher(OutboxDispatcher[_MlflowJob, DeliveryReply]):
    """The outbox's way to MLflow."""

    name = "mirror"
    queries = outbox_queries
    #: the deliverer holds about 200 MiB: it ends when there was nothing to deliver for this long
    idle_seconds = 10.0

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
        super().__init__(database, reactor, clock)
        self._versions = versions
        self._project = project
        self._settings = settings
        #: the thread's own
        self._client: DeliveryClient | None = None

    # -- the outbox ------------------------------------------------------------------------------------------------

    def _find(self, connection: Connection, now: datetime) -> list[_MlflowJob]:
        return self._jobs_of(outbox_queries.pending(connection, now), partial(self._job, connection))

    def _job(self, connection: Connection, row: Any) -> _MlflowJob:
        return _MlflowJob(row.id, row.dag_run_id, delivery_of(connection, row, self._versions, self._project))

    def _give_up(self, connection: Connection, row_id: int, reason: str, now: datetime) -> None:
        outbox_queries.given_up(connection, row_id, reason, now)

    def backlog(self) -> outbox_queries.Undelivered:
        """What waits and what was refused, with the reasons."""
        return self._database.read(outbox_queries.undelivered)

    def _keep_answer(self, connection: Connection, job: _MlflowJob, answer: DeliveryReply, now: datetime) -> None:
        match answer:
            case Delivered():
                outbox_queries.delivered(connection, job.outbox_id, now)
                uri = ui.tracking_uri(self._settings.tracking, self._project.home)
                if job.dag_run_id is not None:
                    run_queries.remember_mlflow(connection, job.dag_run_id, uri, answer.mlflow_run_id)
                for each in follow_ups(job.delivery):
                    enqueue_promotion(connection, each, now)
            case NotDelivered(_, reason, True):
                failures = outbox_queries.failures(connection, job.outbox_id) + 1
                delay = timedelta(seconds=backoff_seconds(failures))
                outbox_queries.failed(connection, job.outbox_id, reason=reason, delay=delay, now=now)
            case NotDelivered(_, reason, _):
                log.error("MLflow refuses delivery %d: %s", job.outbox_id, reason)
                outbox_queries.given_up(connection, job.outbox_id, reason, now)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _deliver(self, job: _MlflowJob) -> DeliveryReply:
        try:
            if self._client is None:
                target = ui.target(self._settings.tracking, self._project.home)
                self._client = DeliveryClient.start(target, log_file=self._project.home.engine_log)
            return self._client.deliver(job.outbox_id, job.delivery)
        except (TrainflowError, OSError) as error:
            # whatever it is doing, it is of no further use
            self._close_client(grace_seconds=0.0)
            return NotDelivered(job.outbox_id, str(error))

    def _broken(self, job: _MlflowJob, reason: str) -> DeliveryReply:
        self._close_client(grace_seconds=0.0)
        return NotDelivered(job.outbox_id, reason, retry=False)

    def _rest(self) -> None:
        self._close_client()

    def _close_client(self, **grace: float) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.close(**grace)
