"""What `status` and `why` look at: the DAGs that are meant, each as the database and its chain show it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trainflow.errors import InputError, PipelineFileError, ProjectError
from trainflow.identifiers import chain_dag_id
from trainflow.settings.load import load_settings
from trainflow.settings.model import Settings
from trainflow.settings.project import Project, project_of
from trainflow.workspace.pipelines import Chain, locate, open_pipeline, project_files
from trainflow.workspace.workspace import existing_database, find_project

if TYPE_CHECKING:
    from trainflow.insight.chain_status import Standing
    from trainflow.insight.snapshot import EngineState, Situation
    from trainflow.messages.parsed_file import ChainAccess
    from trainflow.metadata.database import Database
    from trainflow.metadata.outbox_queries import Undelivered
    from trainflow.serialization.document import ChainDocument


class Look(NamedTuple):
    """What was found. `undelivered`: all that the mirror has not got."""

    project: Project
    settings: Settings
    engine: EngineState
    situations: list[Situation]
    undelivered: Undelivered


def look(pipeline: str | None, now: datetime) -> Look:
    """The DAGs that PIPELINE means, or all of the project this folder is in. Changes nothing. Raises InputError."""
    project, path, dag_id = _meant(pipeline)
    settings = load_settings(project)
    with existing_database(project, settings) as database:
        from trainflow.insight.snapshot import engine_state

        engine = engine_state(project, settings, database, now)
        stored = project.relative(path) if path is not None and dag_id is None else None
        known, undelivered = _known(database, settings, engine, stored, dag_id)
    if pipeline is not None and path is None and not known:
        locate(pipeline, read=False)  # raises, and says what there is
    paths = [path] if path is not None else [] if pipeline is not None else project_files(project, settings)
    known = [_as_the_file_is(each, project, now) for each in known]
    unread = [each for each in paths if project.relative(each) not in {found.path for found in known}]
    found = [*known, *(each for file in unread for each in _unknown(file, project, dag_id, engine))]
    return Look(project, settings, engine, sorted(found, key=lambda each: (each.path, each.dag_id)), undelivered)


def _as_the_file_is(situation: Situation, project: Project, now: datetime) -> Situation:
    """An engine that is alive will find out by itself; without one, nobody has noticed yet that the file is gone."""
    import msgspec

    if situation.missing_since is not None or project.absolute(situation.path).is_file():
        return situation
    return msgspec.structs.replace(situation, missing_since=now, import_problem=None)


def _meant(pipeline: str | None) -> tuple[Project, Path | None, str | None]:
    """(project, file or None, DAG id or None)"""
    if pipeline is None:
        return find_project(), None, None
    try:
        path, dag_id = locate(pipeline, read=False)
    except InputError as unknown:
        # the file of a DAG may be gone while the database remembers the DAG
        try:
            return find_project(), None, pipeline
        except ProjectError:
            raise unknown from None
    return project_of(path), path, dag_id


def _known(
    database: Database | None, settings: Settings, engine: EngineState, path: str | None, dag_id: str | None
) -> tuple[list[Situation], Undelivered]:
    from trainflow.metadata.outbox_queries import Undelivered, undelivered

    if database is None:
        return [], Undelivered()
    from trainflow.insight.snapshot import situations

    with database.reading() as connection:
        found = situations(connection, settings, engine, path=path, dag_id=dag_id)
        return found, undelivered(connection)


def _unknown(path: Path, project: Project, dag_id: str | None, engine: EngineState) -> list[Situation]:
    """What a file that no engine has read seems to define. It is not read here: that may take long, or for ever."""
    from trainflow.insight.snapshot import Situation
    from trainflow.workspace.unread_files import named_in

    stored = project.relative(path)
    try:
        found = named_in(path)
    except PipelineFileError as error:
        return [Situation(dag_id=path.stem, path=stored, known=False, engine=engine, import_problem=str(error))]
    return [
        Situation(dag_id=each.dag_id, path=stored, known=False, engine=engine, chain=each.chain)
        for each in found
        if dag_id in (None, each.dag_id)
    ]


def of_chains(found: Look, pipeline: str | None, stage: str | None, branch: str | None) -> list[Situation]:
    """The DAGs of this stage and branch (None: of all). A branch that this home knows nothing of is looked for in the
    store. Raises InputError that says what there is."""
    if stage is None and branch is None:
        return found.situations
    chosen = [
        each
        for each in found.situations
        if each.chain is not None and stage in (None, each.chain.stage) and branch in (None, each.chain.branch)
    ]
    if chosen:
        return chosen
    if pipeline is None:
        raise InputError("no pipeline of this project has that stage and branch: name the pipeline")
    from trainflow.insight.snapshot import Situation

    file = open_pipeline(pipeline)
    stored, engine = found.project.relative(file.path), found.engine
    return [
        Situation(
            dag_id=chain_dag_id(key.pipeline, key.stage, key.branch),
            path=stored,
            known=False,
            engine=engine,
            chain=chain.document,
        )
        for chain in file.chosen(stage, branch)
        for key in (chain.key,)
    ]


def standing_of(situation: Situation, found: Look, now: datetime) -> Standing | None:
    """Where the DAG's chain stands; None for a DAG without one."""
    if situation.chain is None:
        return None
    return _reached(situation.dag_id, situation.chain, situation.path, found.project, found.settings, now)


def head_of(
    dag_id: str, chain: ChainDocument, stored: str, project: Project, settings: Settings, now: datetime
) -> Standing:
    """The head of a chain of the pipeline file `stored`; its samples are not looked at."""
    return _reached(dag_id, chain, stored, project, settings, now, head_only=True)


def _reached(
    dag_id: str,
    document: ChainDocument,
    stored: str,
    project: Project,
    settings: Settings,
    now: datetime,
    *,
    head_only: bool = False,
) -> Standing:
    """The database keeps no secrets, so the chain is reached with the settings of the project. Where these do not do,
    options that stand in a YAML file are used."""
    from trainflow.messages.parsed_file import ChainAccess

    chain = Chain(dag_id, document, ChainAccess(), project, settings)
    reached = _standing(chain, now, head_only=head_only)
    if reached.problem is None:
        return reached
    access = _access(dag_id, stored, project)
    return reached if access is None else _standing(chain._replace(access=access), now, head_only=head_only)


def _standing(chain: Chain, now: datetime, *, head_only: bool) -> Standing:
    from trainflow.errors import TrainflowError
    from trainflow.insight.chain_status import Standing, standing, with_base

    try:
        ledger = chain.ledger()
    except TrainflowError as error:
        return Standing(problem=str(error))
    if head_only:
        return standing(ledger, None, chain.project.root, now)
    return with_base(standing(ledger, chain.samples, chain.project.root, now), chain.document, ledger)


def _access(dag_id: str, stored: str, project: Project) -> ChainAccess | None:
    """The options in the pipeline's file, as they stand there; None where it has none, or only its code knows."""
    from trainflow.workspace.unread_files import named_in

    try:
        found = [each.access for each in named_in(project.absolute(stored)) if each.dag_id == dag_id]
    except PipelineFileError:
        return None
    access = found[0] if found else None
    return access if access is not None and (access.store_options or access.sample_options) else None
