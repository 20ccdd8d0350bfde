"""Where each pipeline is: its head, its lag, what runs, what failed last; and the engine."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from trainflow.insight.chains.chain_status import ChainStatus
from trainflow.insight.dag_selection import chain_status_in, overview_of
from trainflow.insight.snapshot import DagSnapshot, EngineSnapshot, LastFailure, RunSnapshot, TaskSnapshot
from trainflow.workspace.locate import Selection

_BUSY = ("running", "deferred", "up_for_retry", "up_for_reschedule", "queued", "scheduled")


class CurrentRun(msgspec.Struct, frozen=True):
    """The run under way, or queued, with the task that tells most about where it is."""

    run_id: str
    number: int
    state: str
    started_at: datetime | None
    task_id: str | None
    task_state: str | None
    progress: dict[str, Any] | None
    note: str | None


class LastRun(msgspec.Struct, frozen=True):
    """The run that ended last."""

    run_id: str
    number: int
    state: str
    ended_at: datetime | None
    note: str | None


class PipelineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One DAG and its chain; `ChainStatus` and `DagSnapshot` say what the fields mean. None: it has no chain."""

    dag_id: str
    path: str
    pipeline: str | None
    stage: str | None
    branch: str | None
    known: bool
    head_sequence: int | None
    head_id: str | None
    watermark: datetime | None
    lag: int | None
    lag_is_more: bool
    lag_seconds: float | None
    never_catches_up: bool
    catches_up_in_seconds: float | None
    holes: int | None
    holes_arrived: int | None
    republished: list[datetime]
    stopped: list[str]
    samples_changed: str | None
    waits: str | None
    problem: str | None
    paused: bool
    missing_since: datetime | None
    import_problem: str | None
    run: CurrentRun | None
    last_run: LastRun | None
    last_failure: LastFailure | None
    undelivered: int


class ProjectStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The engine, what MLflow has not got (deliveries that wait, and those that it refused), the pipelines."""

    engine: EngineSnapshot
    undelivered: int
    undelivered_reason: str | None
    refused: int
    refused_reason: str | None
    pipelines: list[PipelineStatus]


def status(selection: Selection, now: datetime) -> ProjectStatus:
    """Status of the DAGs that are meant. Raises InputError; what is wrong with a chain or a file is in its line."""
    found = overview_of(selection, now)
    missing = found.undelivered
    return ProjectStatus(
        engine=found.engine,
        undelivered=missing.waiting,
        undelivered_reason=missing.reason,
        refused=missing.refused,
        refused_reason=missing.refused_reason,
        pipelines=[_line(each, chain_status_in(each, found, now)) for each in found.snapshots],
    )


#: of a DAG without a chain
_NOT_KNOWN = {"head_sequence": None, "holes": None, "holes_arrived": None}


def _line(snapshot: DagSnapshot, status: ChainStatus | None) -> PipelineStatus:
    chain, last = snapshot.chain, snapshot.last
    run = snapshot.running[0] if snapshot.running else snapshot.queued
    known = msgspec.structs.asdict(status or ChainStatus()) | ({} if status else _NOT_KNOWN)
    of_chain = {name: known[name] for name in PipelineStatus.__struct_fields__ if name in known}
    return PipelineStatus(
        dag_id=snapshot.dag_id,
        path=snapshot.path,
        pipeline=chain.pipeline if chain else None,
        stage=chain.stage if chain else None,
        branch=chain.branch if chain else None,
        known=snapshot.known,
        **of_chain,
        paused=snapshot.paused,
        missing_since=snapshot.missing_since,
        import_problem=snapshot.import_problem,
        run=_current(run) if run is not None else None,
        last_run=LastRun(last.run_id, last.number, last.state, last.ended_at, last.note) if last is not None else None,
        last_failure=snapshot.last_failure,
        undelivered=snapshot.undelivered,
    )


def _current(run: RunSnapshot) -> CurrentRun:
    task = current_task(run)
    return CurrentRun(
        run.run_id,
        run.number,
        run.state,
        run.started_at,
        task.task_id if task else None,
        task.state if task else None,
        task.progress if task else None,
        task.note if task else run.note,
    )


def current_task(run: RunSnapshot) -> TaskSnapshot | None:
    """The task that tells most about where a run is."""
    for state in _BUSY:
        for task in run.tasks:
            if task.state == state:
                return task
    return None
