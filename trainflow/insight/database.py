"""The metadata database as it is: where, whether it can be read, which revision. Nothing is created or migrated."""

from __future__ import annotations

import msgspec
from sqlalchemy.exc import DBAPIError

from trainflow.errors import EngineError
from trainflow.metadata.database import Database
from trainflow.metadata.schema import HEAD, current_revision, damage_of
from trainflow.observability.file_access import unwritable
from trainflow.workspace.workspace import Workspace


class DatabaseReport(msgspec.Struct, frozen=True):
    """`place`: a file, or a URL without its password; `revision`: None where there is no database yet, which is ok: the
    first start makes it; `head`: the revision that this trainflow needs."""

    ok: bool
    place: str
    dialect: str
    exists: bool
    revision: str | None
    head: str
    problem: str | None


class DatabaseRevision(msgspec.Struct, frozen=True):
    """The revision of the schema, None: there is no database yet, and the one this trainflow needs."""

    revision: str | None
    head: str
    is_current: bool


def exists(database: Database) -> bool:
    """A SQLite file that is not there yet is no error: the first command that writes makes it."""
    return database.file is None or database.file.is_file()


def place_of(database: Database) -> str:
    """The file, or the URL without its password."""
    return str(database.file or database.url.render_as_string(hide_password=True))


def database_place(workspace: Workspace) -> str:
    """Where the database of a project is, or will be. Raises SettingsError."""
    with workspace.untouched_database() as database:
        return place_of(database)


def database_revision(workspace: Workspace) -> DatabaseRevision:
    """Revision that the database is on. Raises EngineError."""
    with workspace.untouched_database() as database:
        revision = current_revision(database) if exists(database) else None
    return DatabaseRevision(revision, HEAD, revision == HEAD)


def check_database(workspace: Workspace) -> DatabaseReport:
    """Whether it can be reached, is whole and current. Raises SettingsError."""
    with workspace.untouched_database() as database:
        revision, problem = _examined(database)
        dialect = database.engine.dialect.name
        return DatabaseReport(problem is None, place_of(database), dialect, exists(database), revision, HEAD, problem)


def _examined(database: Database) -> tuple[str | None, str | None]:
    """Revision and problem."""
    if not exists(database):
        return None, None
    try:
        revision = current_revision(database)
        if database.is_sqlite:
            damage = damage_of(database)
            if damage is not None:
                return revision, f"is damaged: {damage}. It may be moved away: the chains go on at their heads"
    except (EngineError, DBAPIError) as error:
        return None, f"cannot be read: {error.orig if isinstance(error, DBAPIError) else error}"
    why = unwritable(database.file) if database.file is not None else None
    if why is not None:
        return revision, f"cannot be written: {why}"
    if revision not in (None, HEAD):
        return revision, f"is at revision {revision}, this trainflow needs {HEAD}: 'trainflow db migrate'"
    return revision, None
