"""What the metadata database knows to be under way: commands that change a chain look here first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainflow.settings.model import Settings
    from trainflow.settings.project import Project


def active_runs(project: Project, settings: Settings, dag_id: str) -> list[str]:
    """Ids of the runs of a DAG that have not ended; none where there is no database."""
    from trainflow.workspace.workspace import existing_database

    with existing_database(project, settings) as database:
        if database is None:
            return []
        from trainflow.metadata import run_queries

        with database.reading() as connection:
            return [row.run_id for row in run_queries.unfinished_of(connection, dag_id)]


def living_attempts(project: Project, settings: Settings) -> set[str]:
    """Attempts whose artifacts may still be committed: all of runs that have not ended."""
    from trainflow.workspace.workspace import existing_database

    with existing_database(project, settings) as database:
        if database is None:
            return set()
        from trainflow.metadata import attempt_queries

        with database.reading() as connection:
            return attempt_queries.of_unfinished_runs(connection)
