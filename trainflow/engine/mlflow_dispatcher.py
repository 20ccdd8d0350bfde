"""Deliveries to MLflow about a run, built from the metadata database when they are sent: nothing is stored twice.

They are carried there by a thread that waits for a process: neither ever delays a task.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection

from trainflow.clock import elapsed_seconds
from trainflow.engine.channel_dispatcher import ChannelAnswer, ChannelDispatcher, ChannelJob
from trainflow.engine.page_links import chain_page, pages_address, run_page
from trainflow.errors import TrainflowError
from trainflow.identifiers import canonical_json, digest
from trainflow.messages.execution_api import OutcomeState
from trainflow.metadata.queries import (
    attempt_queries,
    curve_queries,
    outbox_queries,
    run_queries,
    status_queries,
    xcom_queries,
)
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.operators.chain.notices import XCOM_MOVED
from trainflow.operators.chain.run_conf import params_of
from trainflow.serialization.document import ChainDocument, DagDocument
from trainflow.settings.model import Settings
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.project import Project
from trainflow.states import DagRunState
from trainflow.tracking import ui
from trainflow.tracking.deliveries import (
    AliasMoved,
    Delivered,
    Delivery,
    Demoted,
    Metrics,
    ProgressPoint,
    Promoted,
    RunFinished,
    RunStarted,
    TrackedAttempt,
    TrackedChain,
    TrackedCheckpoint,
    TrackedRun,
    TrackedSplit,
    kind,
)
from trainflow.tracking.delivery_client import DeliveryClient


def delivery_of(
    connection: Connection, outbox_row: Any, versions: Versions, project: Project, settings: Settings, now: datetime
) -> Delivery:
    """The delivery that a row of the outbox stands for."""
    if outbox_row.payload is not None:
        delivery: Delivery = msgspec.convert(outbox_row.payload, Delivery)
        return delivery
    row = run_queries.by_id(connection, outbox_row.dag_run_id)
    document, source = versions.get(connection, row.version_id)
    assert document.chain is not None
    xcoms = xcom_queries.of_run(connection, row.id)
    results = results_by_role(document, xcoms)
    run = TrackedRun(
        chain=_chain(document.chain),
        dag_id=row.dag_id,
        run_id=row.run_id,
        run_number=row.number,
        started_at=row.started_at or row.queued_at,
        params={**(results.get("train") or {}).get("params", {}), **params_of(row.conf)},
        links={
            "project": str(project.root),
            "pipeline": source.path,
            **_pages(connection, row, document.chain, settings, now),
        },
        store=_store(document.chain, project, settings),
    )
    if outbox_row.kind == "run_started":
        return RunStarted(run)
    attempts, progress = _attempts(connection, row.id, document, xcoms)
    return RunFinished(
        run,
        state=_state(row, outbox_row.kind),
        ended_at=row.ended_at or row.queued_at,
        split=_split(results.get("samples"), document.chain),
        evaluation=_metrics(results.get("evaluate")),
        training=_metrics((results.get("train") or {}).get("metrics")),
        checkpoint=_checkpoint(results.get("commit"), results.get("checkpoint")),
        note=row.note or "",
        promoted=(results.get("commit") or {}).get("promoted", []),
        moved=_moved(document, xcoms),
        attempts=attempts,
        progress=progress,
    )


def _state(row: Any, kind: str) -> Literal["success", "failed", "cancelled"]:
    if row.state == DagRunState.SUCCESS:
        return "success"
    return "cancelled" if kind == "run_cancelled" else "failed"


def _pages(connection: Connection, row: Any, chain: ChainDocument, settings: Settings, now: datetime) -> dict[str, str]:
    """Where the pages of the run and of its chain are, as far as that is known."""
    address = pages_address(connection, settings, now)
    if address is None:
        return {}
    page = chain_page(address, chain.pipeline, chain.stage, chain.branch)
    return {"run": run_page(address, row.dag_id, row.run_id), "chain": page}


def _store(chain: ChainDocument, project: Project, settings: Settings) -> str:
    """The store as a URL or an absolute path."""
    store = chain.store or settings.checkpoints.store
    return store if "://" in store else str(project.root / store)


_SUCCESS = OutcomeState.SUCCESS.value
_Curves = dict[str, list[ProgressPoint]]
#: attempts that did not end well whose curves MLflow gets, the newest
_MOST_ATTEMPTS = 5
#: the XCom that a worker of an earlier version hands over instead
_XCOM_PROGRESS = "progress"


def _attempts(
    connection: Connection, dag_run_id: int, document: DagDocument, xcoms: dict[tuple[str, str], Any]
) -> tuple[list[TrackedAttempt], _Curves]:
    """All attempts of a run, and what the training reported that ended well."""
    tasks = {task.id: task.task_id for task in status_queries.tasks_of(connection, [dag_run_id])[dag_run_id]}
    rows = [row for row in attempt_queries.of_tasks(connection, list(tasks)) if row.outcome is not None]
    trains = {task.task_id for task in document.tasks if task.role == "train"}
    trained = [row for row in rows if tasks[row.task_instance_id] in trains]
    curves = {
        attempt: msgspec.convert(told, _Curves)
        for attempt, told in curve_queries.of_attempts(connection, [row.attempt_id for row in trained]).items()
    }
    well = [row.attempt_id for row in trained if row.outcome == _SUCCESS]
    progress = curves.get(well[-1], {}) if well else {}
    if not progress:
        told: Any = next((xcoms[task, _XCOM_PROGRESS] for task in trains if (task, _XCOM_PROGRESS) in xcoms), {})
        progress = msgspec.convert(told, _Curves)
    ill = {row.attempt_id for row in trained if row.attempt_id in curves and row.outcome != _SUCCESS}
    shown = set(sorted(ill)[-_MOST_ATTEMPTS:])
    tracked = [
        TrackedAttempt(
            task_id=tasks[row.task_instance_id],
            try_number=row.try_number,
            outcome=row.outcome,
            started_at=row.started_at,
            seconds=elapsed_seconds(row.started_at, row.ended_at),
            hostname=row.hostname or "",
            problem=row.problem or "",
            progress=curves[row.attempt_id] if row.attempt_id in shown else {},
        )
        for row in rows
    ]
    return tracked, progress


def _moved(document: DagDocument, xcoms: dict[tuple[str, str], Any]) -> list[AliasMoved]:
    """What rewinds took from checkpoints: as the last task of the run that said so knew it."""
    told = [xcoms[task.task_id, XCOM_MOVED] for task in document.tasks if (task.task_id, XCOM_MOVED) in xcoms]
    return msgspec.convert(told[-1], list[AliasMoved]) if told else []


def follow_ups(delivery: Delivery) -> list[Promoted | Demoted]:
    """What is to be delivered once a run is: a promotion that MLflow refuses must not cost the run's metrics. What was
    taken away before the run comes before what it gave."""
    if not isinstance(delivery, RunFinished):
        return []
    demoted = [Demoted(delivery.run, moved) for moved in delivery.moved]
    if delivery.checkpoint is None:
        return [*demoted]
    return [*demoted, *(Promoted(delivery.run, alias, delivery.checkpoint) for alias in delivery.promoted)]


def enqueue_promotion(
    connection: Connection, what: Promoted | Demoted, now: datetime, *, by_hand: bool = False
) -> None:
    """Have it delivered: a promotion of a run once, one `by_hand` each time, since an alias may come back; what a
    rewind took away once, whichever process tells it."""
    when = [now.isoformat()] if by_hand else []
    if isinstance(what, Promoted):
        fact = [what.run.dag_id, what.run.run_id, what.alias, what.checkpoint.checkpoint_id, *when]
    else:
        chain = what.run.chain
        fact = [chain.store, chain.pipeline, chain.stage, chain.branch, msgspec.to_builtins(what.moved)]
    payload = msgspec.to_builtins(what)
    key = f"{kind(what)} {digest(canonical_json(fact))}"
    outbox_queries.add_payload(
        connection, channel=OutboxChannel.MLFLOW, key=key, kind=kind(what), payload=payload, now=now
    )


def results_by_role(document: DagDocument, xcoms: dict[tuple[str, str], Any]) -> dict[str, Any]:
    """Role → what the task that has it returned."""
    return {
        task.role: xcoms[task.task_id, "return_value"]
        for task in document.tasks
        if task.role is not None and (task.task_id, "return_value") in xcoms
    }


def _chain(chain: ChainDocument) -> TrackedChain:
    return TrackedChain(chain.pipeline, chain.stage, chain.branch, chain.store)


def _split(value: Any, chain: ChainDocument) -> TrackedSplit | None:
    if not isinstance(value, dict):
        return None
    from trainflow.samples.splits.split_xcom import LAG_PARTITIONS, LAG_SECONDS

    return TrackedSplit(
        start=datetime.fromisoformat(value["start"]),
        end=datetime.fromisoformat(value["end"]),
        partitions=value["partitions"],
        digest=value["digest"],
        rows=value["rows"],
        size_bytes=value["bytes"],
        holes=value["holes"],
        source=chain.samples.path if chain.samples else "",
        lag_partitions=value.get(LAG_PARTITIONS),
        lag_seconds=value.get(LAG_SECONDS),
    )


def _metrics(value: Any) -> Metrics:
    """Numbers as numbers; what JSON has no form for travels as a word and is shown as NaN."""
    if not isinstance(value, dict):
        return {}
    return {name: float(number) if isinstance(number, int | float) else None for name, number in value.items()}


def _checkpoint(value: Any, head: Any) -> TrackedCheckpoint | None:
    if not isinstance(value, dict):
        return None
    watermark = datetime.fromisoformat(value["watermark"])
    parent = (head.get("id") or "") if isinstance(head, dict) else ""
    partitions = value.get("partitions", 0)
    return TrackedCheckpoint(value["id"], value["number"], value["uri"], watermark, partitions, parent)


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
