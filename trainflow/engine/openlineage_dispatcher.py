"""Carry the outbox to a server of OpenLineage, or into a file.

What is told of a run is built from the metadata database when it is sent: nothing is stored twice.
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row

from trainflow.checkpoints.chain import ChainKey
from trainflow.engine.channel_dispatcher import ChannelDispatcher
from trainflow.engine.mlflow_dispatcher import results_by_role
from trainflow.engine.page_links import pages_address, run_page
from trainflow.metadata.queries import run_queries, status_queries, xcom_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.openlineage.events import (
    LineageChain,
    LineageCheckpoint,
    LineageRun,
    LineageSplit,
    ListedPartition,
    RunBegan,
    RunEnded,
    event_of,
)
from trainflow.openlineage.transport import transport_of
from trainflow.operators.chain.head import Head
from trainflow.serialization.document import ChainDocument, DagDocument
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.project import Project
from trainflow.states import DagRunState


class OpenLineageDispatcher(ChannelDispatcher):
    """The outbox's way to OpenLineage."""

    channel = OutboxChannel.OPENLINEAGE
    system = "OpenLineage"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.drain_seconds = self._settings.openlineage.drain_seconds
        self._facts = LineageFacts(self._project, self._settings, self._versions)
        self._transport = transport_of(self._settings.openlineage.transport, self._project.root)

    def _content(self, connection: Connection, row: Any) -> dict[str, Any]:
        return event_of(self._facts.of(connection, row, self._clock.now()))

    def _send(self, content: Any) -> None:
        self._transport.emit(content, self._clock.now())


#: so many partitions of a split are told one by one
_MOST_LISTED = 400


class LineageFacts:
    """Facts of one project."""

    def __init__(self, project: Project, settings: Settings, versions: Versions) -> None:
        self._project = project
        self._settings = settings
        self._versions = versions

    def of(self, connection: Connection, outbox_row: Any, now: datetime) -> RunBegan | RunEnded:
        """What a row of the outbox stands for. Raises LookupError where the run is not there any more."""
        row = run_queries.by_id(connection, outbox_row.dag_run_id)
        document, source = self._versions.get(connection, row.version_id)
        assert document.chain is not None
        address = pages_address(connection, self._settings, now)
        run = LineageRun(
            namespace=self._settings.openlineage.namespace,
            dag_id=row.dag_id,
            run_id=row.run_id,
            clear_number=row.clear_number,
            queued_at=row.queued_at,
            started_at=row.started_at or row.queued_at,
            file=source.path,
            description=document.description or "",
            page=run_page(address, row.dag_id, row.run_id) if address else None,
        )
        if outbox_row.kind == "run_started":
            return RunBegan(run)
        cancelled = outbox_row.kind == "run_cancelled"
        return self._ended(connection, run, row, document, document.chain, cancelled=cancelled)

    def _ended(
        self,
        connection: Connection,
        run: LineageRun,
        row: Row[Any],
        document: DagDocument,
        chain: ChainDocument,
        *,
        cancelled: bool,
    ) -> RunEnded:
        results = results_by_role(document, xcom_queries.of_run(connection, row.id))
        state: Literal["success", "failed", "cancelled"] = "failed"
        if row.state == DagRunState.SUCCESS:
            state = "success"
        elif cancelled:
            state = "cancelled"
        split, head = self._split(results.get("samples"), chain), _head(results.get("checkpoint"))
        return RunEnded(
            run=run,
            state=state,
            ended_at=row.ended_at or row.queued_at,
            why="" if state == "success" else _why(connection, row),
            split=split,
            parent=self._parent(head, chain),
            upstream=self._upstream(head, split, chain),
            checkpoint=self._committed(results, chain),
        )

    # -- its parts ---------------------------------------------------------------------------------------------------

    def _split(self, value: Any, chain: ChainDocument) -> LineageSplit | None:
        if not isinstance(value, dict):
            return None
        partitions = (value.get("split") or {}).get("partitions", ())
        return LineageSplit(
            table=self._place(chain.samples.path) if chain.samples else "",
            start=datetime.fromisoformat(value["start"]),
            end=datetime.fromisoformat(value["end"]),
            partitions=value["partitions"],
            holes=value["holes"],
            digest=value["digest"],
            files=value.get("files"),
            rows=value["rows"],
            size_bytes=value["bytes"],
            listed=[
                ListedPartition(datetime.fromisoformat(each["start"]), each["fingerprint"])
                for each in (partitions if len(partitions) <= _MOST_LISTED else ())
            ],
        )

    def _parent(self, head: Head | None, chain: ChainDocument) -> LineageCheckpoint | None:
        if head is None or head.id is None:
            return None
        return LineageCheckpoint(self._chain(chain, head.chain), head.id, head.number, head.watermark)

    def _upstream(
        self, head: Head | None, split: LineageSplit | None, chain: ChainDocument
    ) -> LineageCheckpoint | None:
        origin = None if head is None or split is None else head.origin_of(split.start, split.end)
        return None if origin is None else LineageCheckpoint(self._chain(chain, origin.chain), origin.checkpoint_id)

    def _committed(self, results: dict[str, Any], chain: ChainDocument) -> LineageCheckpoint | None:
        value = results.get("commit")
        if not isinstance(value, dict):
            return None
        metrics = (results.get("train") or {}).get("metrics") or {}
        return LineageCheckpoint(
            self._chain(chain, ChainKey(value["pipeline"], value["stage"], value["branch"])),
            value["id"],
            value["number"],
            datetime.fromisoformat(value["watermark"]),
            # what JSON has no form for travels as a word
            {name: float(number) if isinstance(number, int | float) else None for name, number in metrics.items()},
            value.get("promoted", []),
        )

    def _chain(self, chain: ChainDocument, key: ChainKey) -> LineageChain:
        store = chain.store or self._settings.checkpoints.store
        return LineageChain(self._place(store), key.pipeline, key.stage, key.branch)

    def _place(self, url: str) -> str:
        """A path of this machine as an absolute one."""
        return url if "://" in url else os.path.normpath(os.path.join(self._project.root, url))


def _head(value: Any) -> Head | None:
    return msgspec.convert(value, Head) if isinstance(value, dict) else None


def _why(connection: Connection, row: Row[Any]) -> str:
    failure = status_queries.first_failure(connection, row.id)
    told = None if failure is None else f"{failure.task_id}: {failure.problem}"
    return "; ".join(filter(None, (row.note, told)))
