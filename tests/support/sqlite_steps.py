"""What a question costs SQLite, counted: the same on every machine, however busy."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from sqlalchemy import Engine, event

#: instructions of SQLite's machine that are counted as one
_COARSE = 10


def steps_of(engine: Engine, call: Callable[[], object]) -> int:
    """About so many instructions of SQLite's machine a call takes."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def begin(_connection: object, cursor: sqlite3.Cursor, *_: object) -> None:
        cursor.connection.set_progress_handler(count, _COARSE)

    event.listen(engine, "before_cursor_execute", begin)
    try:
        call()
    finally:
        event.remove(engine, "before_cursor_execute", begin)
    return counted * _COARSE
