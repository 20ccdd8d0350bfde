"""A database server that tests own: new databases for those that need one, and one that is emptied for all others."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class LocalServer(ABC):
    """A running server. It listens on a socket in a folder of its own only."""

    #: of a database that always exists
    administration: str

    def __init__(self) -> None:
        from sqlalchemy import create_engine

        self._admin: Engine = create_engine(self.url(self.administration), isolation_level="AUTOCOMMIT")
        self._shared: str | None = None

    @abstractmethod
    def url(self, database: str) -> str:
        """The URL of a database by its name."""

    @abstractmethod
    def empty(self, connection: Connection, tables: list[str]) -> None:
        """Delete all rows of these tables and restart their numbering. Fails, rather than waits, while another
        transaction has them locked."""

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def clean_database(self) -> str:
        """The URL of a database with the current schema and the rows every database has. Always the same one: what
        was in it is gone, and numbering begins anew."""
        from sqlalchemy import create_engine

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
            self.empty(connection, list(METADATA.tables))
            schema.seed(connection)
        engine.dispose()
        return self._shared

    def execute(self, statement: str) -> None:
        """Execute one statement as the server's administrator, outside of a transaction."""
        from sqlalchemy import text

        with self._admin.connect() as connection:
            connection.execute(text(statement))

    def close(self) -> None:
        """Give the connections back."""
        self._admin.dispose()
