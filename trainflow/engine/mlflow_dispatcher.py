"""Carry the outbox to MLflow, in a thread that waits for a process: neither ever delays a task."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from trainflow.engine.channel_dispatcher import ChannelAnswer, ChannelDispatcher, ChannelJob
from trainflow.engine.mlflow_deliveries import delivery_of, enqueue_promotion, follow_ups
from trainflow.errors import TrainflowError
from trainflow.metadata.queries import run_queries
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.tracking import ui
from trainflow.tracking.deliveries import Delivered, Delivery
from trainflow.tracking.delivery_client import DeliveryClient


class MlflowDispatcher(ChannelDispatcher):
    """The outbox's way to MLflow."""

    channel = OutboxChannel.MLFLOW
    system = "MLflow"
    #: the deliverer holds about 200 MiB: it ends when there was nothing to deliver for this long
    idle_seconds = 10.0

    #: the thread's own
    _client: DeliveryClient | None = None

    # -- the outbox ------------------------------------------------------------------------------------------------

    def _content(self, connection: Connection, row: Any) -> Delivery:
        return delivery_of(connection, row, self._versions, self._project, self._settings, self._clock.now())

    def _arrived(self, connection: Connection, job: ChannelJob, answer: ChannelAnswer, now: datetime) -> None:
        if job.dag_run_id is not None:
            uri = ui.tracking_uri(self._settings.tracking, self._project.home)
            run_queries.remember_mlflow(connection, job.dag_run_id, uri, answer.found)
        for each in follow_ups(job.content):
            enqueue_promotion(connection, each, now)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _deliver(self, job: ChannelJob) -> ChannelAnswer:
        try:
            if self._client is None:
                target = ui.target(self._settings.tracking, self._project.home)
                self._client = DeliveryClient.start(target, log_file=self._project.home.engine_log)
            reply = self._client.deliver(job.outbox_id, job.content)
        except (TrainflowError, OSError) as error:
            # whatever it is doing, it is of no further use
            self._close_client(grace_seconds=0.0)
            return ChannelAnswer(str(error))
        if isinstance(reply, Delivered):
            return ChannelAnswer(found=reply.mlflow_run_id)
        return ChannelAnswer(reply.reason, retry=reply.retry)

    def _broken(self, job: ChannelJob, reason: str) -> ChannelAnswer:
        self._close_client(grace_seconds=0.0)
        return super()._broken(job, reason)

    def _rest(self) -> None:
        self._close_client()

    def _close_client(self, **grace: float) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.close(**grace)
