"""Runs: which there are, and of one its tasks, its origin, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from trainflow.errors import InputError
from trainflow.identifiers import did_you_mean
from trainflow.insight.runs.durations import WorkingTime
from trainflow.insight.runs.tasks import TaskSummary, task_summaries
from trainflow.metadata.queries import attempt_queries, dag_queries, run_queries
from trainflow.observability.redaction import redact
from trainflow.observability.store_requests import Totals, totals
from trainflow.states import DagRunState
from trainflow.workspace.names import dags_named, run_named
from trainflow.workspace.workspace import Workspace


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run. Times are UTC; `seconds` from start to end (or until now), without the time in which no engine ran;
    `conf` without secrets."""

    dag_id: str
    run_id: str
    number: int
    state: str
    run_type: str
    triggered_by: str
    conf: dict[str, Any]
    logical_date: datetime | None
    run_after: datetime
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    note: str | None
    clear_number: int
    mlflow_run_id: str | None


class RunListing(msgspec.Struct, frozen=True):
    """Runs, newest first. `dag_ids`: of which DAGs, where some were named."""

    runs: list[RunSummary]
    dag_ids: list[str] | None


class ParentRun(msgspec.Struct, frozen=True):
    """The run, and its task, that triggered a run."""

    dag_id: str
    run_id: str
    task_id: str


class ChildRun(msgspec.Struct, frozen=True):
    """A run that a run triggered."""

    dag_id: str
    run_id: str
    state: str


class RunDetail(RunSummary, frozen=True, kw_only=True):
    """A run with its tasks, its origin, and what came of it."""

    version: int
    path: str
    overrides: dict[str, Any]
    parent: ParentRun | None
    children: list[ChildRun]
    tasks: list[TaskSummary]
    #: what its attempts asked of stores in the network; None: nothing
    store: Totals | None


def list_runs(
    workspace: Workspace, dag: str | None, now: datetime, *, state: str | None = None, limit: int = 50
) -> RunListing:
    """List at most `limit` runs of all DAGs or of those that `dag` means, in a state. Raises InputError,
    DagNotFound."""
    wanted = _state(state)
    with workspace.database.reading() as connection:
        rows = dags_named(connection, workspace.project, dag) if dag is not None else None
        dag_ids = [row.dag_id for row in rows] if rows is not None else None
        found = run_queries.listing(connection, dag_ids, limit, wanted)
        time = WorkingTime.read(connection, workspace.settings, now, [row.id for row in found])
        return RunListing([RunSummary(**_facts(row, time)) for row in found], dag_ids)


def _state(name: str | None) -> DagRunState | None:
    if name is None:
        return None
    known = [state.value for state in DagRunState]
    if name not in known:
        raise InputError(f"--state {name}: a run is never that{did_you_mean(name, known)}")
    return DagRunState(name)


def run_row(workspace: Workspace, dag_id: str, run_id: str) -> Row[Any]:
    """The row of the run of exactly this id. Raises DagNotFound, DagRunNotFound."""
    with workspace.database.reading() as connection:
        return run_queries.get(connection, dag_id, run_id)


def run_summary(row: Row[Any], now: datetime) -> RunSummary:
    """What is told of a row of `dag_run` that was made or ended just now."""
    return RunSummary(**_facts(row, WorkingTime([], now)))


def _facts(row: Row[Any], time: WorkingTime) -> dict[str, Any]:
    computed = {"conf": redact(row.conf), "seconds": time.of_run(row)}
    names = [name for name in RunSummary.__struct_fields__ if name not in computed]
    return {name: getattr(row, name) for name in names} | computed


def run_detail(workspace: Workspace, dag: str, run: str, now: datetime) -> RunDetail:
    """One run, by its id, how its id begins, its number, or `latest`. Raises DagNotFound, DagRunNotFound."""
    with workspace.database.reading() as connection:
        row = run_named(connection, workspace.project, dag, run)
        tasks = task_summaries(workspace, connection, row, now)
        time = WorkingTime.read(connection, workspace.settings, now, [row.id])
        store = store_totals(connection, [row.id])[row.id]
        return RunDetail(**_facts(row, time), **_relatives(connection, row), tasks=tasks, store=store)


def _relatives(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    version = dag_queries.version(connection, row.version_id)
    parent = run_queries.by_id(connection, row.parent_id) if row.parent_id is not None else None
    children = run_queries.children(connection, row.id)
    return {
        "version": version.number,
        "path": version.source["path"],
        "overrides": redact(version.source.get("overrides", {})),
        "parent": ParentRun(parent.dag_id, parent.run_id, row.parent_task_id) if parent else None,
        "children": [ChildRun(child.dag_id, child.run_id, child.state) for child in children],
    }


def store_totals(connection: Connection, runs: Sequence[int]) -> dict[int, Totals | None]:
    """What the attempts of runs asked of stores; None: nothing. By the id of the run."""
    found = attempt_queries.store_use_by_run(connection, runs)
    return {run: totals(uses) if uses else None for run, uses in found.items()}
