"""The schema of a new SQLite database, made once in a process: a copy takes a tenth of making it."""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import cast

from trainflow.metadata import schema
from trainflow.metadata.database import Database


@cache
def empty_schema() -> bytes:
    """What every new metadata database is."""
    database = Database("sqlite://")
    schema.ensure_schema(database)
    raw = cast("sqlite3.Connection", database.engine.raw_connection().driver_connection)
    try:
        return raw.serialize()
    finally:
        database.close()


def make_schema(database: Database) -> None:
    """As `schema.ensure_schema`."""
    if database.file is None or database.file.exists():
        schema.ensure_schema(database)
    else:
        database.file.parent.mkdir(parents=True, exist_ok=True)
        database.file.write_bytes(empty_schema())
