"""Pause a DAG, let it go on, have the file of one read now."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from trainflow.errors import InputError
from trainflow.messages.workload import DagSource, ParseResult
from trainflow.metadata.queries import dag_queries
from trainflow.workspace.names import dag_named
from trainflow.workspace.pipeline_file import parse
from trainflow.workspace.workspace import Workspace


class PauseDone(msgspec.Struct, frozen=True):
    """Whether a DAG is paused now; `changed`: it was not so already."""

    dag_id: str
    is_paused: bool
    changed: bool


def set_paused(workspace: Workspace, dag: str, *, paused: bool) -> PauseDone:
    """Start no run and no task of a DAG any more (what runs goes on to its end), or let them start again.

    Raises DagNotFound, InputError.
    """
    with workspace.database.transaction() as connection:
        row = dag_named(connection, workspace.project, dag)
        dag_queries.pause(connection, row.dag_id, paused)
    workspace.wake_engine()
    return PauseDone(row.dag_id, paused, row.is_paused != paused)


def read_into_database(workspace: Workspace, path: Path, now: datetime) -> None:
    """Read a pipeline file in a child process and keep what it defines, with the overrides that are in force for it.

    Raises InputError with what is wrong in the file.
    """
    stored = workspace.project.relative(path)
    with workspace.database.reading() as connection:
        overrides = dag_queries.overrides_of(connection, stored)
    result = parse(workspace.project, workspace.settings, path, overrides)
    keep_in_database(workspace, DagSource(stored, overrides), result, now)


def keep_in_database(workspace: Workspace, source: DagSource, parsed: ParseResult, now: datetime) -> None:
    """Make what was read of a pipeline file current. Raises InputError with what is wrong in it."""
    root = workspace.project.root
    problem = workspace.database.write(
        lambda connection: dag_queries.store_result(
            connection, source, parsed, now, is_there=lambda other: (root / other).exists()
        )
    )
    if problem is not None:
        raise InputError(problem.message)
