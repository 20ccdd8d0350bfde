"""Carry the outbox to a collector of OpenTelemetry.

The trace of a run is built from the metadata database when it is sent: nothing is stored twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from trainflow.engine.channel_dispatcher import ChannelDispatcher
from trainflow.engine.mlflow_dispatcher import results_by_role
from trainflow.metadata.queries import attempt_queries, run_queries, task_queries, xcom_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.serialization.document import ChainDocument, DagDocument
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.states import DagRunState
from trainflow.telemetry.otlp import RunTrace, TracedAttempt, TraceExporter, request_of
from trainflow.telemetry.trace_context import parent_of


class TelemetryDispatcher(ChannelDispatcher):
    """The outbox's way to OpenTelemetry."""

    channel = OutboxChannel.OPENTELEMETRY
    system = "OpenTelemetry"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        telemetry = self._settings.telemetry
        self.drain_seconds = telemetry.drain_seconds
        self._resource = {
            "service.name": telemetry.service_name,
            "trainflow.project": self._project.root.name,
            **telemetry.resource_attributes,
        }
        self._exporter = TraceExporter(telemetry)

    def _content(self, connection: Connection, row: Any) -> dict[str, Any]:
        return request_of(run_trace(connection, row, self._versions), self._resource)

    def _send(self, content: Any) -> None:
        # nothing of a run whose trace is not kept by who began it
        if content["resourceSpans"]:
            self._exporter.send(content)


Facts = dict[str, str | int | float]


def run_trace(connection: Connection, outbox_row: Any, versions: Versions) -> RunTrace:
    """The trace that a row of the outbox stands for."""
    row = run_queries.by_id(connection, outbox_row.dag_run_id)
    document, source = versions.get(connection, row.version_id)
    results = results_by_role(document, xcom_queries.of_run(connection, row.id))
    cancelled = row.state != DagRunState.SUCCESS and outbox_row.kind == "run_cancelled"
    attributes: Facts = {"trainflow.run_number": row.number, "trainflow.file": source.path}
    started_at = row.started_at or row.queued_at
    attempts = [each for each in _attempts(connection, row.id, document) if each.ended_at >= started_at]
    return RunTrace(
        dag_id=row.dag_id,
        run_id=row.run_id,
        clear_number=row.clear_number,
        state="cancelled" if cancelled else row.state,
        started_at=started_at,
        ended_at=row.ended_at or started_at,
        note=row.note or "",
        attributes={**attributes, **_of_chain(document.chain, results)},
        commit=_of_commit(results.get("commit")),
        attempts=attempts,
        parent=parent_of(row.traceparent),
    )


def _attempts(connection: Connection, dag_run_id: int, document: DagDocument) -> list[TracedAttempt]:
    tasks = {task.id: task for task in task_queries.rows_of_run(connection, dag_run_id)}
    roles = {task.task_id: task.role for task in document.tasks}
    return [
        _attempt(row, tasks[row.task_instance_id], roles)
        for row in attempt_queries.of_tasks(connection, list(tasks))
        if row.outcome is not None and row.ended_at is not None
    ]


def _attempt(row: Row[Any], task: Row[Any], roles: dict[str, str | None]) -> TracedAttempt:
    return TracedAttempt(
        task_id=task.task_id,
        role=roles.get(task.task_id),
        map_index=task.map_index,
        try_number=row.try_number,
        attempt_id=row.attempt_id,
        outcome=row.outcome,
        queued_at=row.queued_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        hostname=row.hostname or "",
        problem=row.problem or "",
        waits=[(datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in row.waits or ()],
    )


def _of_chain(chain: ChainDocument | None, results: dict[str, Any]) -> Facts:
    if chain is None:
        return {}
    facts: Facts = {"trainflow.chain": f"{chain.pipeline}/{chain.stage}/{chain.branch}"}
    split = results.get("samples")
    if isinstance(split, dict):
        facts |= {"trainflow.split.start": split["start"], "trainflow.split.end": split["end"]}
        facts |= {"trainflow.split.partitions": split["partitions"]}
        facts |= {"trainflow.split.rows": split["rows"]} if split["rows"] is not None else {}
    return facts | _of_commit(results.get("commit"))


def _of_commit(value: Any) -> Facts:
    if not isinstance(value, dict):
        return {}
    return {"trainflow.checkpoint": value["number"], "trainflow.watermark": value["watermark"]}
