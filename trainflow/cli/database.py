"""Look into the metadata database if there is one: commands that only show something never create it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainflow.settings.model import Settings
from trainflow.settings.project import Project

if TYPE_CHECKING:
    from trainflow.metadata.database import Database


@contextmanager
def existing_database(project: Project, settings: Settings) -> Iterator[Database | None]:
    """The database of a project, its schema current; None where there is none yet."""
    if settings.database.url is None and not project.home.database.is_file():
        yield None
        return
    from trainflow.metadata.database import Database
    from trainflow.metadata.schema import ensure_schema

    database = Database.of(project.home, settings)
    try:
        ensure_schema(database)
        yield database
    finally:
        database.close()
