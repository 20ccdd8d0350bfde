"""What PIPELINE on a command line means: a file, its DAGs, and the chains they train.

Reads the file, not the database, so that commands about a chain work where nothing else is left. The database is asked
only where a name is no file: which file defines the DAG of that id?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from trainflow.errors import InputError
from trainflow.workspace.locate import locate
from trainflow.workspace.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Author
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.ledger_changes.import_spec import Adopt
    from trainflow.messages.parsed_file import ChainAccess, ParsedFile
    from trainflow.messages.workload import ParseResult
    from trainflow.samples.spec import Samples
    from trainflow.serialization.document import ChainDocument, DagDocument


class PipelineChain(NamedTuple):
    """A chain that a DAG of the file trains, and the way to it."""

    dag_id: str
    document: ChainDocument
    access: ChainAccess
    workspace: Workspace

    @property
    def root(self) -> Path:
        """The root of its project."""
        return self.workspace.project.root

    def by(self, who: Author) -> Author:
        """What a ledger records of who acts on the chain: the person or program, and the DAG that it is about."""
        import msgspec

        return msgspec.structs.replace(who, dag_id=self.dag_id)

    @property
    def key(self) -> ChainKey:
        """Name of the chain. Raises InputError where that is known only when a run renders it."""
        from trainflow.checkpoints.chain import ChainKey

        names = (self.document.pipeline, self.document.stage, self.document.branch)
        if any("{" in name for name in names):
            raise InputError(
                f"DAG {self.dag_id!r} names its chain by a template ({'/'.join(names)}), which only a run renders"
            )
        return ChainKey(*names)

    def ledger(self, key: ChainKey | None = None, *, dry_run: bool = False) -> Ledger:
        """Ledger of the chain, or that of another chain in the same store. `dry_run`: nothing is added to it."""
        from trainflow.checkpoints.ledger.ledger_writer import Ledger
        from trainflow.operators.chain.storage_options import open_chain_store, store_url

        settings = self.workspace.settings
        url = store_url(self.document.store or None, settings)
        home = self.workspace.project.home
        # a command that only looks makes no home
        known = home if home.path.is_dir() else None
        store = open_chain_store(url, given=self.access.store_options, settings=settings, root=self.root, home=known)
        return Ledger(store, key or self.key, dry_run=dry_run)

    def is_stored(self) -> bool:
        """Whether the store knows it: something was begun there at least."""
        from trainflow.checkpoints.ledger_changes.prune import chains_of

        return self.key in chains_of(self.ledger().store, self.key.pipeline)

    @property
    def samples(self) -> Samples | None:
        """Sample table of the chain, with what it takes to reach it."""
        import msgspec

        from trainflow.operators.chain.storage_options import sample_options

        if self.document.samples is None:
            return None
        options = sample_options(self.access.sample_options, self.workspace.settings)
        return msgspec.structs.replace(self.document.samples, storage_options=options)

    @property
    def adopt(self) -> Adopt | None:
        """What it begins with, with what it takes to reach it."""
        import msgspec

        from trainflow.operators.chain.storage_options import foreign_options

        if self.document.adopt is None:
            return None
        options = foreign_options(self.document.adopt.path, self.access.adopt_options, self.workspace.settings)
        adopt: Adopt = msgspec.structs.replace(self.document.adopt, storage_options=options)
        return adopt

    def existing_samples(self) -> Samples:
        """Sample table of the chain. Raises InputError where it has none."""
        if self.samples is None:
            raise InputError(f"DAG {self.dag_id!r} has no samples: no DataCheckerOperator says where they are")
        return self.samples


class OpenedPipeline(NamedTuple):
    """A pipeline file as it is now. `parsed`: what was read, None: it was not, its names say enough; `overrides`: what
    it was read with."""

    path: Path
    workspace: Workspace
    documents: list[DagDocument]
    chains: list[PipelineChain]
    parsed: ParseResult | None = None
    overrides: Mapping[str, str] = MappingProxyType({})

    @property
    def name(self) -> str:
        """What people call it."""
        return self.workspace.project.relative(self.path)

    def some_chains(self) -> list[PipelineChain]:
        """Chains of the file. Raises InputError when it trains none."""
        if not self.chains:
            raise InputError(
                f"{self.path} trains no chain: none of its DAGs ({', '.join(each.dag_id for each in self.documents)}) "
                "has a CheckpointOperator"
            )
        return self.chains

    def chosen(self, stage: str | None = None, branch: str | None = None) -> list[PipelineChain]:
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

    def one_chain(self, stage: str | None = None, branch: str | None = None) -> PipelineChain:
        """The chain that is meant. Raises InputError when it is none or not clear which."""
        found = self.chosen(stage, branch)
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{chain.dag_id} ({chain.key})" for chain in found)
        raise InputError(f"{self.name} trains several chains: {known}; choose with --stage, --branch or by DAG id")

    def _unknown(self, of_stage: list[PipelineChain], stage: str | None, branch: str | None) -> str:
        from trainflow.checkpoints.ledger_changes.prune import chains_of
        from trainflow.identifiers import did_you_mean

        stages = list(dict.fromkeys(chain.document.stage for chain in self.chains))
        if stage is not None and stage not in stages:
            return f"{self.name} has no stage '{stage}'{did_you_mean(stage, stages)}"
        keys = {chain.key for chain in of_stage}
        for chain in of_stage:
            keys |= {key for key in chains_of(chain.ledger().store, chain.key.pipeline) if stage in (None, key.stage)}
        of = f" of stage '{stage}'" if stage is not None else ""
        known = sorted({key.branch for key in keys})
        return f"{self.name} has no branch '{branch}'{of}{did_you_mean(branch or '', known)}"


@contextmanager
def open_pipeline(name: str, overrides: Mapping[str, str] = MappingProxyType({})) -> Iterator[OpenedPipeline]:
    """The pipeline that `name` means, its file read anew, and its workspace. Raises InputError."""
    path, dag_id = locate(name)
    with open_workspace(path) as workspace:
        file = read_pipeline(workspace, path, overrides)
        if dag_id is not None:
            file = file._replace(
                documents=[document for document in file.documents if document.dag_id == dag_id],
                chains=[chain for chain in file.chains if chain.dag_id == dag_id],
            )
        yield file


def read_pipeline(workspace: Workspace, path: Path, overrides: Mapping[str, str]) -> OpenedPipeline:
    """Read a file. Raises InputError."""
    from trainflow.workspace.pipeline_file import read_file

    parsed = read_file(workspace.project, workspace.settings, path, dict(overrides))
    return describe(parsed, path, workspace)._replace(overrides=dict(overrides))


def describe(parsed: ParsedFile, path: Path, workspace: Workspace) -> OpenedPipeline:
    """The DAGs and chains of what was read."""
    from trainflow.messages.parsed_file import ChainAccess
    from trainflow.serialization.document import decode

    documents = [decode(bytes(dag.document)) for dag in parsed.result.dags]
    chains = [
        PipelineChain(each.dag_id, each.chain, parsed.access.get(each.dag_id, ChainAccess()), workspace)
        for each in documents
        if each.chain is not None
    ]
    return OpenedPipeline(path, workspace, documents, chains, parsed.result)


def _once(chains: list[PipelineChain]) -> list[PipelineChain]:
    """Each chain once, however many DAGs train it."""
    found: dict[tuple[str, ...], PipelineChain] = {}
    for chain in chains:
        document = chain.document
        found.setdefault((document.store, document.pipeline, document.stage, document.branch), chain)
    return list(found.values())


def _renamed(document: ChainDocument, stage: str | None, branch: str | None) -> ChainDocument:
    import msgspec

    names = {"stage": stage or document.stage, "branch": branch or document.branch}
    return msgspec.structs.replace(document, **names)
