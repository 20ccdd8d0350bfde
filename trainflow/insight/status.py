"""Where each pipeline is: its head, its lag, what runs, what failed last; and the engine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trainflow.errors import InputError, PipelineFileError
from trainflow.identifiers import chain_dag_id
from trainflow.insight.chains.chain_status import ChainStatus, chain_statuses_in
from trainflow.insight.snapshot import (
    DagSnapshot,
    EngineSnapshot,
    LastFailure,
    RunSnapshot,
    TaskSnapshot,
    dag_snapshots,
    engine_state,
)
from trainflow.insight.why_task import not_begun
from trainflow.metadata.queries import status_queries
from trainflow.metadata.queries.status_queries import ImportProblemRow, Undelivered
from trainflow.metadata.sql_text import ReadableDatabase, ReadingConnection
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.settings.project import Project
from trainflow.workspace.locate import Selection, locate, project_files
from trainflow.workspace.pipeline_file import dags_named_in, is_changed, recorded_problem
from trainflow.workspace.pipelines import read_pipeline
from trainflow.workspace.workspace import Workspace

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


class PipelineStatus(ChainStatus, frozen=True, kw_only=True):
    """One DAG and its chain; see `DagSnapshot`. `head_number`, `holes`, `holes_arrived` None: it has no chain."""

    dag_id: str
    path: str
    pipeline: str | None
    stage: str | None
    branch: str | None
    known: bool
    paused: bool
    drained: str | None
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


def status(selection: Selection, now: datetime, *, processes: int = 1) -> ProjectStatus:
    """Status of the DAGs that are meant, asked by up to `processes` copies of this process. Raises InputError; what is
    wrong with a chain or a file is in its line."""
    found = overview_of(selection, now)
    missing = found.undelivered
    statuses = chain_statuses_in(found.workspace, found.snapshots, now, processes=processes)
    return ProjectStatus(
        engine=found.engine,
        undelivered=missing.waiting,
        undelivered_reason=missing.reason,
        refused=missing.refused,
        refused_reason=missing.refused_reason,
        pipelines=[line_of(each, status, now) for each, status in zip(found.snapshots, statuses, strict=True)],
    )


#: of a DAG without a chain
_NO_CHAIN = ChainStatus(head_number=None, holes=None, holes_arrived=None)


def line_of(snapshot: DagSnapshot, status: ChainStatus | None, now: datetime) -> PipelineStatus:
    """What is shown of a DAG; `status`: of its chain, None where it has none."""
    chain, last = snapshot.chain, snapshot.last
    run = snapshot.running[0] if snapshot.running else snapshot.queued
    same = (
        "dag_id",
        "path",
        "known",
        "paused",
        "drained",
        "missing_since",
        "import_problem",
        "last_failure",
        "undelivered",
    )
    return PipelineStatus(
        **msgspec.structs.asdict(status or _NO_CHAIN),
        **{name: getattr(snapshot, name) for name in same},
        pipeline=chain.pipeline if chain else None,
        stage=chain.stage if chain else None,
        branch=chain.branch if chain else None,
        run=_current(run, now) if run is not None else None,
        last_run=LastRun(last.run_id, last.number, last.state, last.ended_at, last.note) if last is not None else None,
    )


def _current(run: RunSnapshot, now: datetime) -> CurrentRun:
    task = current_task(run)
    return CurrentRun(
        run.run_id,
        run.number,
        run.state,
        run.started_at,
        task.task_id if task else None,
        task.state if task else None,
        task.progress if task else None,
        (not_begun(task, now) or task.note) if task else run.note,
    )


def current_task(run: RunSnapshot) -> TaskSnapshot | None:
    """The task that tells most about where a run is."""
    for state in _BUSY:
        for task in run.tasks:
            if task.state == state:
                return task
    return None


# -- the DAGs that are meant -------------------------------------------------------------------------------------------


class Overview(NamedTuple):
    """What was found. `undelivered`: all that the mirror has not got."""

    workspace: Workspace
    engine: EngineSnapshot
    snapshots: list[DagSnapshot]
    undelivered: Undelivered


def overview_of(selection: Selection, now: datetime) -> Overview:
    """The DAGs that are meant, each as the database knows it, or as its file seems to define it. Changes nothing.

    Raises InputError.
    """
    workspace, path, dag_id = selection
    project, database = workspace.project, workspace.read_database
    engine = engine_state(project, workspace.settings, database, now)
    stored = project.relative(path) if path is not None and dag_id is None else None
    known, undelivered, problems = _known(database, workspace, engine, stored, dag_id, now)
    if dag_id is not None and path is None and not known:
        locate(dag_id, read=False)  # raises, and says what there is
    paths = [path] if path is not None else project_files(workspace) if selection.everything else []
    known = [_as_the_file_is(each, project, problems, now) for each in known]
    unread = [each for each in paths if project.relative(each) not in {found.path for found in known}]
    found = [*known, *(each for file in unread for each in _unknown(file, project, dag_id, engine, problems))]
    return Overview(workspace, engine, sorted(found, key=lambda each: (each.path, each.dag_id)), undelivered)


def _as_the_file_is(snapshot: DagSnapshot, project: Project, problems: Mapping[str, str], now: datetime) -> DagSnapshot:
    """An engine that is alive will find out by itself; without one, the database does not show yet that the file is
    gone, and with it what was wrong with it."""
    if project.absolute(snapshot.path).is_file():
        return msgspec.structs.replace(snapshot, import_problem=problems.get(snapshot.path))
    return msgspec.structs.replace(snapshot, missing_since=snapshot.missing_since or now)


def _known(
    database: ReadableDatabase | None,
    workspace: Workspace,
    engine: EngineSnapshot,
    path: str | None,
    dag_id: str | None,
    now: datetime,
) -> tuple[list[DagSnapshot], Undelivered, dict[str, str]]:
    """What the database knows: DAGs, what MLflow has not got, and what was wrong with files, by path."""
    if database is None:
        return [], Undelivered(), {}
    with database.reading() as connection:
        found = dag_snapshots(connection, workspace.settings, engine, now, path=path, dag_id=dag_id)
        undelivered = status_queries.undelivered(connection, OutboxChannel.MLFLOW)
        return found, undelivered, _problems(connection, workspace.project)


def _problems(connection: ReadingConnection, project: Project) -> dict[str, str]:
    """What was wrong with files that were read last without success, by path."""
    return {row.path: _recorded(row, project.absolute(row.path)) for row in status_queries.problems(connection)}


def _recorded(row: ImportProblemRow, path: Path) -> str:
    """The problem as it was found; of a file that was changed since, when: it may be mended, and is not read here."""
    return recorded_problem(row.message, row.at) if is_changed(path, row.at) else row.message


def _unknown(
    path: Path, project: Project, dag_id: str | None, engine: EngineSnapshot, problems: Mapping[str, str]
) -> list[DagSnapshot]:
    """What a file that gave no DAG yet seems to define. It is not read here: that may take long, or for ever."""
    stored = project.relative(path)
    try:
        found = dags_named_in(path)
    except PipelineFileError as error:
        return [DagSnapshot(dag_id=path.stem, path=stored, known=False, engine=engine, import_problem=str(error))]
    return [
        DagSnapshot(
            dag_id=each.dag_id,
            path=stored,
            known=False,
            engine=engine,
            chain=each.chain,
            import_problem=problems.get(stored),
        )
        for each in found
        if dag_id in (None, each.dag_id)
    ]


def snapshots_of(found: Overview, selection: Selection, stage: str | None, branch: str | None) -> list[DagSnapshot]:
    """The DAGs of this stage and branch (None: of all). A branch that this home knows nothing of is looked for in the
    store. Raises InputError that says what there is."""
    if stage is None and branch is None:
        return found.snapshots
    chosen = [
        each
        for each in found.snapshots
        if each.chain is not None and stage in (None, each.chain.stage) and branch in (None, each.chain.branch)
    ]
    if chosen:
        return chosen
    if selection.everything:
        raise InputError("no pipeline of this project has that stage and branch: name the pipeline")
    workspace, path, _ = selection
    file = read_pipeline(workspace, path or workspace.project.absolute(found.snapshots[0].path), {})
    return [
        DagSnapshot(
            dag_id=chain_dag_id(key.pipeline, key.stage, key.branch),
            path=file.name,
            known=False,
            engine=found.engine,
            chain=chain.document,
        )
        for chain in file.chosen(stage, branch)
        for key in (chain.key,)
    ]
