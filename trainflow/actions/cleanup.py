"""Delete runs that ended long ago, and logs of which no run knows.

Without it a home grows for ever: some kilobytes of database and a log for each task of each run. What was trained stays
in the ledgers and checkpoint stores, which know runs by their names alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trainflow.errors import InputError
from trainflow.identifiers import attempt_time
from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.database import Database
from trainflow.metadata.queries import cleanup_queries
from trainflow.settings.home import Home
from trainflow.workspace.workspace import Workspace

log = logging.getLogger(__name__)

#: what ended lately may still be looked at, cleared or waited for
LEAST_AGE = timedelta(days=1)
#: runs that are deleted in one transaction: others write in between
_RUNS_AT_ONCE = 100


class OldRuns(msgspec.Struct, frozen=True):
    """The runs of a DAG that are deleted: how many, and when the first and the last of them ended."""

    dag_id: str
    runs: int
    first_ended_at: datetime
    last_ended_at: datetime


class Cleanup(msgspec.Struct, frozen=True):
    """What is deleted, or would be: runs that ended before a moment (`before`), and logs of this host that are of no
    run (any more), with their bytes. `awaited`: runs that stay, since a system outside is still to be told of them."""

    before: datetime
    dags: list[OldRuns]
    awaited: int
    logs: int
    log_bytes: int


class _Log(NamedTuple):
    path: Path
    size: int


def plan_cleanup(workspace: Workspace, older_than: timedelta, now: datetime) -> Cleanup:
    """What `clean_up` would delete. Raises InputError for what is younger than a day."""
    before = _before(older_than, now)
    rows = workspace.database.read(lambda connection: cleanup_queries.ended_before(connection, before))
    going = [row for row in rows if not row.is_awaited]
    logs = list(_logs_of_no_run(workspace.project.home, workspace.database, before, {row.id for row in going}))
    return Cleanup(before, _by_dag(going), len(rows) - len(going), len(logs), sum(each.size for each in logs))


def clean_up(workspace: Workspace, older_than: timedelta, now: datetime) -> Cleanup:
    """Delete runs that ended so long ago, with their tasks, XComs and logs; engines may be at work. Killed on the way,
    it has deleted a part, and what is left is deleted the next time. Raises InputError for what is younger than a day.
    """
    before = _before(older_than, now)
    database = workspace.database
    rows = database.read(lambda connection: cleanup_queries.ended_before(connection, before))
    going = {row.id: row for row in rows if not row.is_awaited}
    gone: list[int] = []
    for some in in_parts(going, _RUNS_AT_ONCE):
        gone += database.write(partial(cleanup_queries.delete_ended, ids=some, before=before))
    logs = [each for each in _logs_of_no_run(workspace.project.home, database, before) if _deleted(each.path)]
    by_dag = _by_dag([going[number] for number in gone])
    return Cleanup(before, by_dag, len(rows) - len(going), len(logs), sum(each.size for each in logs))


def _before(older_than: timedelta, now: datetime) -> datetime:
    if older_than < LEAST_AGE:
        raise InputError("--older-than is at least 1d: what ended lately may still be looked at, cleared or waited for")
    return now - older_than


def _by_dag(rows: Collection[Any]) -> list[OldRuns]:
    found: dict[str, list[datetime]] = {}
    for row in rows:
        found.setdefault(row.dag_id, []).append(row.ended_at)
    return [OldRuns(dag_id, len(ended), min(ended), max(ended)) for dag_id, ended in sorted(found.items())]


def _logs_of_no_run(
    home: Home, database: Database, before: datetime, going: Collection[int] = frozenset()
) -> Iterator[_Log]:
    """Logs of attempts on this host that were written to last before a moment and are of no run, or of one of `going`:
    another host of the same database has deleted the run, or it is another database now."""
    for some in in_parts(_old_logs(home, before)):
        attempts = {_attempt_of(each.path) for each in some}
        runs = database.read(partial(cleanup_queries.runs_of_attempts, attempt_ids=attempts))
        for each in some:
            run = runs.get(_attempt_of(each.path))
            if run is None or run in going:
                yield each


def _old_logs(home: Home, before: datetime) -> list[_Log]:
    """Logs of attempts, and what was rotated of them, that were written to last before a moment."""
    found = []
    for path in sorted(home.logs.glob("*/*/*/*.log*")):
        with contextlib.suppress(OSError):  # it is rotated just now
            status = path.lstat()
            if attempt_time(_attempt_of(path)) is not None and status.st_mtime < before.timestamp():
                found.append(_Log(path, status.st_size))
    return found


def _attempt_of(path: Path) -> str:
    return path.name.partition(".")[0]


def _deleted(path: Path) -> bool:
    """Delete a log, and the folders of its task and its run when they are empty. False where it cannot be: said."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the log %s cannot be deleted: %s", path, error.strerror)
        return False
    with contextlib.suppress(OSError):  # others are in them
        path.parent.rmdir()
        path.parent.parent.rmdir()
    return True
