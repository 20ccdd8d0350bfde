"""What `status` and `why` look at: the DAGs that are meant, each as the database and its chain show it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from trainflow.errors import InputError, PipelineFileError, TrainflowError
from trainflow.identifiers import chain_dag_id
from trainflow.insight.chains.chain_status import ChainStatus, chain_status_of, with_upstream
from trainflow.insight.explain import explain
from trainflow.insight.snapshot import DagSnapshot, EngineSnapshot, dag_snapshots, engine_state
from trainflow.messages.parsed_file import ChainAccess
from trainflow.metadata.database import Database
from trainflow.metadata.outbox_queries import Undelivered, undelivered
from trainflow.serialization.document import ChainDocument
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.workspace.locate import Selection, locate, project_files
from trainflow.workspace.pipelines import PipelineChain, read_pipeline
from trainflow.workspace.unread_files import dags_named_in
from trainflow.workspace.workspace import Workspace


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
    project, database = workspace.project, workspace.existing_database
    engine = engine_state(project, workspace.settings, database, now)
    stored = project.relative(path) if path is not None and dag_id is None else None
    known, undelivered = _known(database, workspace.settings, engine, stored, dag_id)
    if dag_id is not None and path is None and not known:
        locate(dag_id, read=False)  # raises, and says what there is
    paths = [path] if path is not None else project_files(workspace) if selection.everything else []
    known = [_as_the_file_is(each, project, now) for each in known]
    unread = [each for each in paths if project.relative(each) not in {found.path for found in known}]
    found = [*known, *(each for file in unread for each in _unknown(file, project, dag_id, engine))]
    return Overview(workspace, engine, sorted(found, key=lambda each: (each.path, each.dag_id)), undelivered)


class Explanation(msgspec.Struct, frozen=True):
    """Why nothing of a DAG is training, or what is. `kind`: the answer in one word."""

    dag_id: str
    path: str
    kind: str
    sentence: str


class Explanations(msgspec.Struct, frozen=True):
    """One for each DAG that was asked about."""

    answers: list[Explanation]


def why(selection: Selection, now: datetime, *, stage: str | None = None, branch: str | None = None) -> Explanations:
    """Say of each DAG in a sentence why nothing is training, or what is. Raises InputError."""
    found = overview_of(selection, now)
    answers = []
    for snapshot in _of_chains(found, selection, stage, branch):
        answer = explain(snapshot, chain_status_in(snapshot, found, now), now)
        sentence = f"{snapshot.dag_id}: {answer.sentence}"
        answers.append(Explanation(snapshot.dag_id, snapshot.path, answer.kind.value, sentence))
    return Explanations(answers)


def _as_the_file_is(snapshot: DagSnapshot, project: Project, now: datetime) -> DagSnapshot:
    """An engine that is alive will find out by itself; without one, the database does not show yet that the file is
    gone."""
    if snapshot.missing_since is not None or project.absolute(snapshot.path).is_file():
        return snapshot
    return msgspec.structs.replace(snapshot, missing_since=now, import_problem=None)


def _known(
    database: Database | None, settings: Settings, engine: EngineSnapshot, path: str | None, dag_id: str | None
) -> tuple[list[DagSnapshot], Undelivered]:
    if database is None:
        return [], Undelivered()
    with database.reading() as connection:
        found = dag_snapshots(connection, settings, engine, path=path, dag_id=dag_id)
        return found, undelivered(connection)


def _unknown(path: Path, project: Project, dag_id: str | None, engine: EngineSnapshot) -> list[DagSnapshot]:
    """What a file that no engine has read seems to define. It is not read here: that may take long, or for ever."""
    stored = project.relative(path)
    try:
        found = dags_named_in(path)
    except PipelineFileError as error:
        return [DagSnapshot(dag_id=path.stem, path=stored, known=False, engine=engine, import_problem=str(error))]
    return [
        DagSnapshot(dag_id=each.dag_id, path=stored, known=False, engine=engine, chain=each.chain)
        for each in found
        if dag_id in (None, each.dag_id)
    ]


def _of_chains(found: Overview, selection: Selection, stage: str | None, branch: str | None) -> list[DagSnapshot]:
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


def chain_status_in(snapshot: DagSnapshot, found: Overview, now: datetime) -> ChainStatus | None:
    """Where the DAG's chain stands; None for a DAG without one."""
    if snapshot.chain is None:
        return None
    return _reached(found.workspace, snapshot.dag_id, snapshot.chain, snapshot.path, now)


def head_of(workspace: Workspace, dag_id: str, chain: ChainDocument, stored: str, now: datetime) -> ChainStatus:
    """The head of a chain of the pipeline file `stored`; its samples are not looked at."""
    return _reached(workspace, dag_id, chain, stored, now, head_only=True)


def _reached(
    workspace: Workspace,
    dag_id: str,
    document: ChainDocument,
    stored: str,
    now: datetime,
    *,
    head_only: bool = False,
) -> ChainStatus:
    """The database keeps no secrets, so the chain is reached with the settings of the project. Where these do not do,
    options that stand in a YAML file are used."""
    chain = PipelineChain(dag_id, document, ChainAccess(), workspace)
    reached = _chain_status(chain, now, head_only=head_only)
    if reached.problem is None:
        return reached
    access = _access(dag_id, stored, workspace.project)
    return reached if access is None else _chain_status(chain._replace(access=access), now, head_only=head_only)


def _chain_status(chain: PipelineChain, now: datetime, *, head_only: bool) -> ChainStatus:
    try:
        ledger = chain.ledger()
    except TrainflowError as error:
        return ChainStatus(problem=str(error))
    if head_only:
        return chain_status_of(ledger, None, chain.root, now)
    return with_upstream(chain_status_of(ledger, chain.samples, chain.root, now), chain.document, ledger)


def _access(dag_id: str, stored: str, project: Project) -> ChainAccess | None:
    """The options in the pipeline's file, as they stand there; None where it has none, or only its code knows."""
    try:
        found = [each.access for each in dags_named_in(project.absolute(stored)) if each.dag_id == dag_id]
    except PipelineFileError:
        return None
    access = found[0] if found else None
    return access if access is not None and (access.store_options or access.sample_options) else None
