"""Delete runs that ended long ago, and logs of which no run knows.

Without it a home grows for ever: some kilobytes of database and a log for each task of each run. What was trained stays
in the ledgers and checkpoint stores, which know runs by their names alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from trainflow.engine.run_cleanup import OldLog, deleted, logs_of_no_run, old_logs
from trainflow.errors import InputError
from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.queries import cleanup_queries
from trainflow.workspace.workspace import Workspace

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


def plan_cleanup(workspace: Workspace, older_than: timedelta, now: datetime) -> Cleanup:
    """What `clean_up` would delete. Raises InputError for what is younger than a day."""
    before = _before(older_than, now)
    rows = workspace.database.read(lambda connection: cleanup_queries.ended_before(connection, before))
    going = [row for row in rows if not row.is_awaited]
    logs = list(_logs_of_no_run(workspace, before, {row.id for row in going}))
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
    logs = [each for each in _logs_of_no_run(workspace, before) if deleted(each.path)]
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


def _logs_of_no_run(workspace: Workspace, before: datetime, going: Collection[int] = frozenset()) -> Iterator[OldLog]:
    logs = old_logs(workspace.project.home.logs.glob("*/**/*.log*"), before)
    return logs_of_no_run(logs, workspace.database, going)
