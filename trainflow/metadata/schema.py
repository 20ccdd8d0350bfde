"""Create and migrate the schema. A new database is made at once; Alembic is loaded only when there is an old one."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from trainflow.bootstrap import version
from trainflow.errors import EngineError
from trainflow.metadata.api_models import METADATA
from trainflow.metadata.database import Database
from trainflow.metadata.models import InstallationTable, PoolTable
from trainflow.metadata.sqlite_reader import HEAD as HEAD

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
#: of the lock under which the schema changes: any number, the same in every process
_LOCK_NUMBER = 7_281_965
_LOCK_SECONDS = 60
#: the revision of a database that is being made: where MySQL was cut off, nothing of it is of any use yet
_BEING_MADE = "being made"
DEFAULT_POOL = "default_pool"
DEFAULT_POOL_SLOTS = 128


def ensure_schema(database: Database) -> None:
    """Bring the database to this version of the schema, whatever it is now. Safe when two processes do it at once."""
    if database.file is not None:
        database.file.parent.mkdir(parents=True, exist_ok=True)
        # for this user alone, and so its journal, which takes its mode from it; what is wrong with the place is said
        # when it is connected to
        with suppress(OSError):
            os.close(os.open(database.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with database.reading() as connection:
        found = _revision(connection)
    if found == HEAD:
        return
    if found in (None, _BEING_MADE):
        _create_unless_there(database)
    elif found.isdecimal() and int(found) > int(HEAD):
        raise EngineError(_made_by_newer(database, found))
    else:
        upgrade(database)
        log.info("the metadata database was migrated from revision %s to %s", found or "none", HEAD)


def _made_by_newer(database: Database, found: str) -> str:
    """What to do about a database of a later revision. Migrations only add, so what was running then goes on; what
    starts cannot know."""
    url = database.url.render_as_string(hide_password=True)
    said = (
        f"the metadata database {url} is of revision {found}: a newer trainflow has migrated it. This is trainflow "
        f"{version()}, of revision {HEAD}: upgrade it here"
    )
    if database.file is None:
        return f"{said}, too; parts of it that ran before the migration go on until they end"
    return f"{said}, or move the file away: nothing about training is kept there, the chains go on at their heads"


def _create_unless_there(database: Database) -> None:
    with _alone(database), database.transaction() as connection:
        found = _revision(connection)
        if found == _BEING_MADE:
            # MySQL keeps each table when it is made, whatever becomes of the transaction
            METADATA.drop_all(connection)
        if found in (None, _BEING_MADE):
            _create(connection)


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Keep all others from creating or migrating meanwhile, until what was done is committed.

    On a server, making a table does not wait for another transaction that makes the same one: it fails. The lock is
    held by a connection of its own: MySQL commits wherever a table is made, and what comes after that last. On SQLite
    there is one writer anyway.
    """
    kind = database.engine.dialect.name
    if kind == "postgresql":
        with database.engine.connect() as connection, connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
            yield
        return
    if kind not in ("mysql", "mariadb"):
        yield
        return
    name = {"name": f"trainflow {_LOCK_NUMBER}", "seconds": _LOCK_SECONDS}
    with database.engine.connect() as connection:
        if connection.execute(text("SELECT GET_LOCK(:name, :seconds)"), name).scalar() != 1:
            raise EngineError(f"another process has been migrating the metadata database for {_LOCK_SECONDS} s")
        try:
            yield
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)


def upgrade(database: Database, revision: str = "head") -> None:
    """Run the migrations that are missing."""
    from alembic import command
    from alembic.util import CommandError

    # each of its plug-ins, and how it goes about it
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with _alone(database), database.transaction() as connection:
            command.upgrade(_alembic_config(connection), revision)
    except (CommandError, SQLAlchemyError) as error:
        raise EngineError(
            f"cannot migrate the metadata database {database.url.render_as_string(hide_password=True)}: {error}. "
            "Nothing about training is kept there: it may be moved away, the chains go on at their heads"
        ) from error


def reset(database: Database) -> None:
    """Drop everything and create it anew."""
    with database.transaction() as connection:
        METADATA.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
        _create(connection)


def current_revision(database: Database) -> str | None:
    """The revision of the schema, None for an empty database, "" where no migration has run yet."""
    with database.reading() as connection:
        return _revision(connection)


def damage_of(database: Database) -> str | None:
    """What is wrong with the file of a SQLite database; None: nothing."""
    with database.reading() as connection:
        found = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    return None if found == "ok" else str(found)


def _create(connection: Connection) -> None:
    connection.execute(
        text(
            "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("DELETE FROM alembic_version"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": _BEING_MADE})
    METADATA.create_all(connection, checkfirst=False)
    seed(connection)
    connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": HEAD})


def seed(connection: Connection) -> None:
    """The rows every database has."""
    pool = PoolTable.table
    connection.execute(
        pool.insert().values(
            name=DEFAULT_POOL, slots=DEFAULT_POOL_SLOTS, include_deferred=False, description="Default pool"
        )
    )
    connection.execute(InstallationTable.table.insert().values(id=uuid.uuid4().hex))


#: whether a migration was ever run, by dialect. Asked by SQLAlchemy's inspector it would cost each process a MiB
_HAS_REVISION = {
    "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'",
    "postgresql": "SELECT to_regclass('alembic_version') IS NOT NULL",
    "mysql": (
        "SELECT count(*) FROM information_schema.tables"
        " WHERE table_schema = database() AND table_name = 'alembic_version'"
    ),
}


def _revision(connection: Connection) -> str | None:
    asked = _HAS_REVISION.get(connection.dialect.name, _HAS_REVISION["mysql"])
    if not connection.execute(text(asked)).scalar():
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _alembic_config(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
