"""The chains of a project by their names, as the database, the files and the stores know them.

No pipeline is read for a question about a chain: the database has the document of each DAG, and a YAML file says how
its store is reached. What decides about a chain has its file read by another process, as a command does.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.errors import InputError, NotFound, PipelineFileError
from trainflow.identifiers import did_you_mean
from trainflow.messages.parsed_file import ChainAccess
from trainflow.metadata.queries import status_queries
from trainflow.serialization.document import ChainDocument, DagDocument, decode_known
from trainflow.workspace.branches import as_branch
from trainflow.workspace.locate import project_files
from trainflow.workspace.pipeline_file import dags_named_in
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain, read_pipeline
from trainflow.workspace.workspace import Workspace


class KnownChain(NamedTuple):
    """A chain, the file of its DAG, and that DAG as an engine has read it last (None: none has)."""

    chain: PipelineChain
    path: Path
    document: DagDocument | None

    def as_known(self) -> OpenedPipeline:
        """Open its file as far as it is known without reading it: enough to ask about this chain."""
        documents = [] if self.document is None else [self.document]
        return OpenedPipeline(self.path, self.chain.workspace, documents, [self.chain])


def known_chains(workspace: Workspace) -> list[KnownChain]:
    """The chains that DAGs of this project train, as an engine has read them or as their files name them."""
    found = _read_chains(workspace)
    read = {each.path for each in found}
    for path in project_files(workspace):
        if path not in read:
            found += _named_chains(workspace, path)
    return found


def _read_chains(workspace: Workspace) -> list[KnownChain]:
    database = workspace.existing_database
    if database is None:
        return []
    with database.reading() as connection:
        rows = status_queries.dags(connection)
    found = []
    for row in rows:
        document = decode_known(row.dag_id, row.document)
        if document.chain is not None:
            path = workspace.project.absolute(row.path)
            chain = PipelineChain(row.dag_id, document.chain, _access(path, row.dag_id), workspace)
            found.append(KnownChain(chain, path, document))
    return found


def _named_chains(workspace: Workspace, path: Path) -> list[KnownChain]:
    try:
        named = dags_named_in(path)
    except PipelineFileError:
        return []
    return [
        KnownChain(PipelineChain(each.dag_id, each.chain, each.access or ChainAccess(), workspace), path, None)
        for each in named
        if each.chain is not None
    ]


def _access(path: Path, dag_id: str) -> ChainAccess:
    """Options that stand in a YAML file: the database keeps no secrets."""
    try:
        found = [each.access for each in dags_named_in(path) if each.dag_id == dag_id]
    except PipelineFileError:
        return ChainAccess()
    return found[0] if found and found[0] is not None else ChainAccess()


def known_chain(workspace: Workspace, key: ChainKey) -> KnownChain:
    """The chain of a name; one that was forked and not trained here yet is looked for in the store. Raises NotFound,
    StoreFailure."""
    every = known_chains(workspace)
    for each in every:
        if _names(each.chain.document) == (key.pipeline, key.stage, key.branch):
            return each if each.document is not None else _read(each)
    for each in every:
        if (each.chain.document.pipeline, each.chain.document.stage) == (key.pipeline, key.stage):
            document = msgspec.structs.replace(each.chain.document, branch=key.branch)
            forked = each._replace(chain=each.chain._replace(document=document))
            if forked.chain.is_stored():
                return forked
    names = ["/".join(_names(each.chain.document)) for each in every]
    raise NotFound(f"no chain is called {key}{did_you_mean(str(key), names)}")


def _read(named: KnownChain) -> KnownChain:
    """A chain whose file no engine has read: its names do not say where its samples are."""
    try:
        file, chain = read_again(named)
    except InputError:
        return named  # its ledger can be asked about all the same
    document = next((each for each in file.documents if each.dag_id == chain.dag_id), None)
    return KnownChain(chain, named.path, document)


def _names(document: ChainDocument) -> tuple[str, str, str]:
    return document.pipeline, document.stage, document.branch


def read_again(known: KnownChain) -> tuple[OpenedPipeline, PipelineChain]:
    """The file of a chain, read by another process as it is now, and the chain in it. Raises InputError."""
    key, document = known.chain.key, known.document
    trains_it = document is not None and document.chain is not None and document.chain.branch == key.branch
    file = read_as_in_force(known.chain.workspace, known.path, known.chain.dag_id if trains_it else None)
    with suppress(InputError):  # of a branch that is not whole its ledger can be decided about all the same
        file = as_branch(file, key.branch)
    return file, file.one_chain(key.stage, key.branch)


def read_as_in_force(workspace: Workspace, path: Path, dag_id: str | None) -> OpenedPipeline:
    """A file read by another process as it is now, with what a DAG of it was read with last: its store, retention or
    samples may be others than those of the file. `dag_id`: None: as the file is. Raises InputError."""
    from trainflow.metadata.queries import dag_queries

    database = workspace.existing_database
    overrides: dict[str, str] = {}
    if dag_id is not None and database is not None:
        overrides = database.read(lambda connection: dag_queries.overrides_of_dag(connection, dag_id))
    return read_pipeline(workspace, path, overrides)
