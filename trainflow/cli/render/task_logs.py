"""What an attempt wrote: which attempt is meant, printed as it grows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.pluralize import counted

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from trainflow.workspace.workspace import Opened

_FOLLOW_SECONDS = 0.25


def choose_attempt(connection: Connection, row: Row[Any], wanted: str | None) -> Row[Any]:
    """The attempt that a person means: its number, counted from either end, or how its id begins; the last one.

    Raises InputError.
    """
    from trainflow.errors import InputError
    from trainflow.metadata import attempt_queries

    attempts = attempt_queries.of_task(connection, row.id)
    if not attempts:
        raise InputError(f"task '{row.task_id}' has had no attempt yet: 'trainflow tasks show' says what it waits for")
    if wanted is None:
        return attempts[-1]
    for attempt in attempts:
        if attempt.attempt_id == wanted:
            return attempt
    if wanted.removeprefix("-").isdigit() and len(wanted) < 6:
        number = int(wanted)
        if number and -len(attempts) <= number <= len(attempts):
            return attempts[number - 1 if number > 0 else number]
        raise InputError(f"--attempt {wanted}: task '{row.task_id}' has had {counted(len(attempts), 'attempt')}")
    found = [attempt for attempt in attempts if attempt.attempt_id.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(attempt.attempt_id for attempt in attempts)
        raise InputError(f"--attempt {wanted}: {'no' if not found else 'more than one'} attempt begins so; {known}")
    return found[0]


def print_rotated(path: Path) -> bool:
    """Print the parts of a log that were rotated away, oldest first; returns whether there were any."""
    from trainflow.observability.rotation import parts

    *older, _ = parts(path)
    for each in older:
        print_from(each, 0)
    return bool(older)


def print_from(path: Path, position: int) -> int:
    """Print what was written after `position` (bytes); returns where it ends now. A log that has become shorter was
    rotated: it is printed from its beginning."""
    if not path.exists():
        return position
    if path.stat().st_size < position:
        position = 0
    sys.stdout.flush()
    with path.open("rb") as file:
        file.seek(position)
        while data := file.read(1 << 16):
            position += len(data)
            sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return position


def has_ended(here: Opened, task_instance_id: int, attempt_id: str) -> bool:
    """A wait is no end: the attempt goes on in the same log."""
    from trainflow.metadata import task_queries

    with here.database.reading() as connection:
        row = task_queries.row(connection, task_instance_id)
    if row is None or row.attempt_id != attempt_id:
        return True
    resumes = row.state == "scheduled" and row.next_method is not None
    return not resumes and row.state not in ("queued", "running", "deferred")


def pause() -> None:
    """Until it is looked again."""
    import time

    time.sleep(_FOLLOW_SECONDS)
