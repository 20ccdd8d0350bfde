"""What the metadata database knows to be under way: commands that change a chain look here first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainflow.workspace.workspace import Workspace


def active_runs(workspace: Workspace, dag_id: str) -> list[str]:
    """Ids of the runs of a DAG that have not ended; none where there is no database."""
    database = workspace.existing_database
    if database is None:
        return []
    from trainflow.metadata import run_queries

    with database.reading() as connection:
        return [row.run_id for row in run_queries.unfinished_of(connection, dag_id)]


def living_attempts(workspace: Workspace) -> set[str]:
    """Attempts whose artifacts may still be committed: all of runs that have not ended."""
    database = workspace.existing_database
    if database is None:
        return set()
    from trainflow.metadata import attempt_queries

    with database.reading() as connection:
        return attempt_queries.of_unfinished_runs(connection)
