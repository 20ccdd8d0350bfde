"""What PIPELINE on a command line means: a file, its DAGs, and the chains they train.

Reads the file, not the database, so that commands about a chain work where nothing else is left. The database is asked
only where a name is no file: which file defines the DAG of that id?
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from trainflow.errors import InputError
from trainflow.workspace.workspace import find_project, pipeline_path

if TYPE_CHECKING:
    from trainflow.checkpoints.actions.import_spec import Adopt
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.messages.parsed_file import ChainAccess, ParsedFile
    from trainflow.samples.spec import Samples
    from trainflow.serialization.document import ChainDocument, DagDocument
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project


class Chain(NamedTuple):
    """A chain that a DAG of the file trains, and the way to it."""

    dag_id: str
    document: ChainDocument
    access: ChainAccess
    project: Project
    settings: Settings

    @property
    def key(self) -> ChainKey:
        """Its name. Raises InputError where that is known only when a run renders it."""
        from trainflow.checkpoints.chain import ChainKey

        names = (self.document.pipeline, self.document.stage, self.document.branch)
        if any("{" in name for name in names):
            raise InputError(
                f"DAG {self.dag_id!r} names its chain by a template ({'/'.join(names)}), which only a run renders"
            )
        return ChainKey(*names)

    def ledger(self, key: ChainKey | None = None) -> Ledger:
        """Its ledger, or that of another chain in the same store."""
        from trainflow.checkpoints.ledger.ledger import Ledger
        from trainflow.operators.storage import open_chain_store, store_url

        url = store_url(self.document.store or None, self.settings)
        store = open_chain_store(url, given=self.access.store_options, settings=self.settings, root=self.project.root)
        return Ledger(store, key or self.key)

    def is_stored(self) -> bool:
        """Whether the store knows it: something was begun there at least."""
        from trainflow.checkpoints.actions.prune import chains_of

        return self.key in chains_of(self.ledger().store, self.key.pipeline)

    @property
    def samples(self) -> Samples | None:
        """Its sample table, with what it takes to reach it."""
        import msgspec

        from trainflow.operators.storage import sample_options

        if self.document.samples is None:
            return None
        options = sample_options(self.access.sample_options, self.settings)
        return msgspec.structs.replace(self.document.samples, storage_options=options)

    @property
    def adopt(self) -> Adopt | None:
        """What it begins with, with what it takes to reach it."""
        import msgspec

        from trainflow.operators.storage import foreign_options

        if self.document.adopt is None:
            return None
        options = foreign_options(self.document.adopt.path, self.access.adopt_options, self.settings)
        adopt: Adopt = msgspec.structs.replace(self.document.adopt, storage_options=options)
        return adopt

    def existing_samples(self) -> Samples:
        """Its sample table. Raises InputError where it has none."""
        if self.samples is None:
            raise InputError(f"DAG {self.dag_id!r} has no samples: no DataCheckerOperator says where they are")
        return self.samples


class PipelineFile(NamedTuple):
    """A pipeline file as it is now."""

    path: Path
    project: Project
    settings: Settings
    documents: list[DagDocument]
    chains: list[Chain]

    @property
    def name(self) -> str:
        """What people call it."""
        return self.project.relative(self.path)

    def some_chains(self) -> list[Chain]:
        """Its chains. Raises InputError when it trains none."""
        if not self.chains:
            raise InputError(
                f"{self.path} trains no chain: none of its DAGs ({', '.join(each.dag_id for each in self.documents)}) "
                "has a CheckpointOperator"
            )
        return self.chains

    def chosen(self, stage: str | None = None, branch: str | None = None) -> list[Chain]:
        """The chains that are meant, each once: without a choice all of the file; a stage or branch that the file does
        not name any more, or never did, is looked for in the store. Raises InputError that says what there is."""
        every = self.some_chains()
        found = [
            chain
            for chain in every
            if stage in (None, chain.document.stage) and branch in (None, chain.document.branch)
        ]
        if found:
            return _once(found)
        of_stage = [chain for chain in every if stage in (None, chain.document.stage)] or every
        forked = _once([each._replace(document=_renamed(each.document, stage, branch)) for each in of_stage])
        stored = [chain for chain in forked if chain.is_stored()]
        if not stored:
            raise InputError(self._unknown(of_stage, stage, branch))
        return stored

    def one_chain(self, stage: str | None = None, branch: str | None = None) -> Chain:
        """The chain that is meant. Raises InputError when it is none or not clear which."""
        found = self.chosen(stage, branch)
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{chain.dag_id} ({chain.key})" for chain in found)
        raise InputError(f"{self.name} trains several chains: {known}; choose with --stage, --branch or by DAG id")

    def _unknown(self, of_stage: list[Chain], stage: str | None, branch: str | None) -> str:
        from trainflow.checkpoints.actions.prune import chains_of
        from trainflow.near_names import did_you_mean

        stages = list(dict.fromkeys(chain.document.stage for chain in self.chains))
        if stage is not None and stage not in stages:
            return f"{self.name} has no stage '{stage}'{did_you_mean(stage, stages)}"
        keys = {chain.key for chain in of_stage}
        for chain in of_stage:
            keys |= {key for key in chains_of(chain.ledger().store, chain.key.pipeline) if stage in (None, key.stage)}
        of = f" of stage '{stage}'" if stage is not None else ""
        known = sorted({key.branch for key in keys})
        return f"{self.name} has no branch '{branch}'{of}{did_you_mean(branch or '', known)}"


def open_pipeline(name: str, overrides: Mapping[str, str] = MappingProxyType({})) -> PipelineFile:
    """The pipeline that `name` means, its file read anew. Raises InputError."""
    path, dag_id = locate(name)
    file = read_pipeline(path, dict(overrides))
    if dag_id is None:
        return file
    return file._replace(
        documents=[document for document in file.documents if document.dag_id == dag_id],
        chains=[chain for chain in file.chains if chain.dag_id == dag_id],
    )


def read_pipeline(path: Path, overrides: dict[str, str]) -> PipelineFile:
    """Read a file. Raises InputError."""
    from trainflow.settings.load import load_settings
    from trainflow.settings.project import project_of
    from trainflow.workspace.file_reading import read_file

    project = project_of(path)
    settings = load_settings(project)
    return describe(read_file(project, settings, path, overrides), path, project, settings)


def describe(parsed: ParsedFile, path: Path, project: Project, settings: Settings) -> PipelineFile:
    """The DAGs and chains of what was read."""
    from trainflow.messages.parsed_file import ChainAccess
    from trainflow.serialization.document import decode

    documents = [decode(bytes(dag.document)) for dag in parsed.result.dags]
    chains = [
        Chain(each.dag_id, each.chain, parsed.access.get(each.dag_id, ChainAccess()), project, settings)
        for each in documents
        if each.chain is not None
    ]
    return PipelineFile(path, project, settings, documents, chains)


def locate(name: str, *, read: bool = True) -> tuple[Path, str | None]:
    """The file that `name` means and, where `name` is the id of a DAG, that id. Raises InputError.

    `read`: a file that mentions the id may be read to see whether it defines it; otherwise its names decide.
    """
    try:
        return pipeline_path(name), None
    except InputError as unknown:
        path = _file_of_dag(name, read=read)
        if path is None:
            raise unknown from None
        return path, name


def _file_of_dag(dag_id: str, *, read: bool) -> Path | None:
    """Find the file that defines a DAG: as the database remembers, or else the first of those that mention it or (to be
    read) may make up its id."""
    from trainflow.errors import ProjectError
    from trainflow.settings.load import load_settings

    try:
        project = find_project()
    except ProjectError:
        return None
    settings = load_settings(project)
    remembered = _remembered(dag_id, project, settings)
    if remembered is not None:
        return remembered
    files = project_files(project, settings)
    mentioning = [path for path in files if dag_id.partition(".")[0] in path.read_text(errors="replace")]
    others = [path for path in files if read and path.suffix == ".py" and path not in mentioning]
    return next((path for path in [*mentioning, *others] if _defines(path, dag_id, read=read)), None)


def _defines(path: Path, dag_id: str, *, read: bool) -> bool:
    from trainflow.workspace.unread_files import named_in

    try:
        if not read or path.suffix != ".py":
            return any(each.dag_id == dag_id for each in named_in(path))
        return any(document.dag_id == dag_id for document in read_pipeline(path, {}).documents)
    except InputError:
        return False


def _remembered(dag_id: str, project: Project, settings: Settings) -> Path | None:
    from trainflow.errors import DagNotFound
    from trainflow.workspace.workspace import existing_database

    with existing_database(project, settings) as database:
        if database is None:
            return None
        from trainflow.metadata import dag_queries

        with database.reading() as connection:
            try:
                path = project.absolute(dag_queries.get(connection, dag_id).path)
            except DagNotFound:
                return None
    return path if path.is_file() else None


def project_files(project: Project, settings: Settings) -> list[Path]:
    """The pipeline files of a project."""
    from trainflow.dag_processor.files import pipeline_files

    return pipeline_files(project.root / settings.dag_processor.folder)


def _once(chains: list[Chain]) -> list[Chain]:
    """Each chain once, however many DAGs train it."""
    found: dict[tuple[str, ...], Chain] = {}
    for chain in chains:
        document = chain.document
        found.setdefault((document.store, document.pipeline, document.stage, document.branch), chain)
    return list(found.values())


def _renamed(document: ChainDocument, stage: str | None, branch: str | None) -> ChainDocument:
    import msgspec

    names = {"stage": stage or document.stage, "branch": branch or document.branch}
    return msgspec.structs.replace(document, **names)
