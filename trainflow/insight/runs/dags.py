"""The DAGs that an engine has read, what a pipeline file defines now, and files that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row

from trainflow.messages.workload import ParseProblem
from trainflow.metadata.queries import dag_queries, run_queries, status_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.observability.redaction import redact
from trainflow.serialization.document import DagDocument, decode, decode_known, version_of
from trainflow.workspace.names import dag_named
from trainflow.workspace.pipeline_file import is_changed, parse, recorded_problem
from trainflow.workspace.workspace import Workspace


class DagSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A DAG as it was read last. `tasks`: how many; `chain`: pipeline/stage/branch; `runs`: state → count;
    `missing_since`: no file defines it any more."""

    dag_id: str
    path: str
    version: int
    is_paused: bool
    missing_since: datetime | None
    parsed_at: datetime
    description: str | None
    tags: list[str]
    max_active_runs: int
    tasks: int
    chain: str | None
    runs: dict[str, int]


class DagListing(msgspec.Struct, frozen=True):
    """All DAGs; `broken`: pipeline files that cannot be read."""

    dags: list[DagSummary]
    broken: list[ImportProblem]


class DagDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A DAG with its document, without secrets. What only the database knows is None for a file."""

    dag_id: str
    path: str
    version: int | None
    digest: str
    is_paused: bool | None
    missing_since: datetime | None
    parsed_at: datetime | None
    document: dict[str, Any]


class FileCheck(msgspec.Struct, frozen=True):
    """What a pipeline file defines: documents as in `DagDetail`; or the `problem` for which it cannot be read."""

    path: str
    problem: str | None
    dags: list[dict[str, Any]]


class ImportProblem(ParseProblem, frozen=True, kw_only=True):
    """A pipeline file that cannot be read, since `at`, and why. `is_changed`: the file has changed since."""

    at: datetime
    is_changed: bool

    @property
    def said(self) -> str:
        """The problem as it was found; of a file that has changed since, when: it may be mended."""
        return recorded_problem(self.message, self.at) if self.is_changed else self.message


class DagRow(NamedTuple):
    """A row of `dag`, its document, and whether its file cannot be read now."""

    row: Row[Any]
    document: DagDocument
    is_broken: bool


def dag_rows(workspace: Workspace) -> list[DagRow]:
    """All DAGs that an engine has read, by id."""
    with workspace.database.reading() as connection:
        broken = {row.path for row in status_queries.problems(connection)}
        rows = dag_queries.everything(connection)
    return [DagRow(row, decode_known(row.dag_id, row.document), row.path in broken) for row in rows]


def dag_row(workspace: Workspace, dag_id: str) -> DagRow:
    """The DAG of exactly this id. Raises DagNotFound."""
    with workspace.database.reading() as connection:
        row = dag_queries.get(connection, dag_id)
        document, _ = Versions().get(connection, row.version_id)
        return DagRow(row, document, any(each.path == row.path for each in status_queries.problems(connection)))


def dag_version(workspace: Workspace, dag: DagRow) -> tuple[Row[Any], int]:
    """The row of its current version, and how many runs of it have not ended."""
    with workspace.database.reading() as connection:
        version = dag_queries.version(connection, dag.row.version_id)
        return version, run_queries.count_unfinished(connection, dag.row.dag_id)


def list_dags(workspace: Workspace) -> DagListing:
    """All that an engine has read, by id."""
    with workspace.database.reading() as connection:
        counts = run_queries.counts(connection)
    rows = [_summary(each.row, each.document, counts) for each in dag_rows(workspace)]
    return DagListing(rows, import_problems(workspace))


def _summary(row: Row[Any], document: DagDocument, counts: dict[str, dict[str, int]]) -> DagSummary:
    chain = document.chain
    return DagSummary(
        dag_id=row.dag_id,
        path=row.path,
        version=row.version_number,
        is_paused=row.is_paused,
        missing_since=row.missing_since,
        parsed_at=row.parsed_at,
        description=document.description,
        tags=document.tags,
        max_active_runs=document.max_active_runs,
        tasks=len(document.tasks),
        chain=f"{chain.pipeline}/{chain.stage}/{chain.branch}" if chain else None,
        runs=counts.get(row.dag_id, {}),
    )


def dag_detail(workspace: Workspace, dag: str) -> DagDetail:
    """A DAG as the engine has read it. Raises DagNotFound, InputError."""
    with workspace.database.reading() as connection:
        row = dag_named(connection, workspace.project, dag)
        version = dag_queries.version(connection, row.version_id)
        document, _ = Versions().get(connection, row.version_id)
    return DagDetail(
        dag_id=row.dag_id,
        path=row.path,
        version=version.number,
        digest=version.digest,
        is_paused=row.is_paused,
        missing_since=row.missing_since,
        parsed_at=row.parsed_at,
        document=_without_secrets(document),
    )


def dags_of_file(workspace: Workspace, path: Path, overrides: Mapping[str, str]) -> list[DagDetail]:
    """What a file defines now; it is read by another process, and nothing is kept. Raises InputError."""
    result = parse(workspace.project, workspace.settings, path, dict(overrides))
    return [
        DagDetail(
            dag_id=parsed.dag_id,
            path=workspace.project.relative(path),
            version=None,
            digest=version_of(bytes(parsed.document)),
            is_paused=None,
            missing_since=None,
            parsed_at=None,
            document=_without_secrets(decode(bytes(parsed.document))),
        )
        for parsed in result.dags
    ]


def import_problems(workspace: Workspace) -> list[ImportProblem]:
    """Files that cannot be read, as an engine found them. One that was deleted since is not among them: without an
    engine, the database does not show that yet."""
    names = ParseProblem.__struct_fields__
    with workspace.database.reading() as connection:
        found = status_queries.problems(connection)
    files = [(row, workspace.project.absolute(row.path)) for row in found]
    return [
        ImportProblem(**{name: getattr(row, name) for name in names}, at=row.at, is_changed=is_changed(file, row.at))
        for row, file in files
        if file.is_file()
    ]


def _without_secrets(document: DagDocument) -> dict[str, Any]:
    """The document in full."""
    facts = msgspec.to_builtins(document)
    for task in facts["tasks"]:
        task.setdefault("upstream", [])
    facts.setdefault("params", {})
    facts.setdefault("chain", None)
    shown: dict[str, Any] = redact(facts)
    return shown
