"""Deletes runs that ended long ago (`[database] keep_runs_days`), and logs of which no run knows, while an engine is at
work.

In small steps, by a timer, a hundredth of the time at most: no decision waits for more than one of them. Runs are
deleted by one scheduler of a database, logs by each engine in its own home. Killed on the way, it has deleted a part.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.deadlines import pause_after
from trainflow.errors import describe
from trainflow.executors.reactor import Reactor
from trainflow.humanize import bytes_text, counted
from trainflow.identifiers import attempt_time
from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.database import Database
from trainflow.metadata.queries import cleanup_queries, event_queries
from trainflow.metadata.queries.event_queries import ApiEvent
from trainflow.metadata.transaction_retries import is_own_fault
from trainflow.settings.home import Home

log = logging.getLogger(__name__)

#: so long after an engine began it looks first, and so long after it has looked again
FIRST_SECONDS, AGAIN_SECONDS = 10.0, 6 * 3600.0
#: what one step deletes at most, and how many logs it looks at
_RUNS_A_STEP, _FILES_A_STEP = 10, 1_000
_PAUSE_SECONDS = 0.1
#: what the event log calls it
EVENT = "db_clean"


class OldLog(NamedTuple):
    """A log of an attempt that was written to last before a moment."""

    path: Path
    size: int


class RunCleanup:
    """What an engine deletes by itself. `may_delete_runs` says whether it is the one that does."""

    def __init__(
        self,
        home: Home,
        database: Database,
        reactor: Reactor,
        clock: Clock,
        *,
        keep: timedelta,
        owner: str,
        may_delete_runs: Callable[[Connection], bool],
    ) -> None:
        """`owner`: what the event log names."""
        self._home, self._database, self._reactor, self._clock = home, database, reactor, clock
        self._keep = keep
        self._owner = owner
        self._may_delete_runs = may_delete_runs
        self._steps: Iterator[None] = iter(())

    def begin(self) -> None:
        """Look from time to time from now on."""
        self._reactor.call_later(FIRST_SECONDS, self._look)

    def _look(self) -> None:
        self._steps = self.steps(self._clock.now() - self._keep)
        self._step()

    def _step(self) -> None:
        began = self._clock.monotonic()
        if self._ends():
            self._reactor.call_later(AGAIN_SECONDS, self._look)
            return
        pause = pause_after(self._clock.monotonic() - began, _PAUSE_SECONDS)
        self._reactor.call_later(pause, self._step)

    def _ends(self) -> bool:
        """Take the next step, if there is one. One that fails ends this look and nothing else: nothing waits for it."""
        try:
            return bool(next(self._steps, True))  # a step yields None
        except Exception as error:
            own = error if is_own_fault(error) else None
            hours = AGAIN_SECONDS / 3600
            log.warning("what is old cannot be deleted now, next in %g h: %s", hours, describe(error), exc_info=own)
            return True

    def steps(self, before: datetime) -> Iterator[None]:
        """Delete what ended before a moment; others may do something wherever it yields."""
        if self._database.read(self._may_delete_runs):
            for dag_id in self._database.read(cleanup_queries.dag_ids):
                yield from self._delete_runs(dag_id, before)
        yield from self._delete_logs(before)

    def _delete_runs(self, dag_id: str, before: datetime) -> Iterator[None]:
        needed = self._database.read(partial(cleanup_queries.needed_of, dag_id=dag_id))
        gone, after = 0, None
        while needed is not None:
            old = self._database.read(
                partial(cleanup_queries.ended_of, needed=needed, before=before, after=after, most=_RUNS_A_STEP)
            )
            if not old:
                break
            after = old[-1]
            ids = [each.id for each in old if not each.is_awaited]
            gone += len(self._database.write(partial(cleanup_queries.delete_ended, ids=ids, before=before)))
            yield
        if gone:
            log.info("deleted %s of '%s' that ended before %s", counted(gone, "run"), dag_id, f"{before:%Y-%m-%d}")
            self._database.write(partial(self._note, dag_id=dag_id, runs=gone, before=before))
            yield

    def _note(self, connection: Connection, dag_id: str, runs: int, before: datetime) -> None:
        extra = {"runs": runs, "before": before.isoformat()}
        event = ApiEvent(at=self._clock.now(), event=EVENT, owner=self._owner, address="", dag_id=dag_id, extra=extra)
        event_queries.add(connection, event)

    def _delete_logs(self, before: datetime) -> Iterator[None]:
        gone: list[OldLog] = []
        for files in _log_files(self._home):
            logs = old_logs(files, before)
            gone += [each for each in logs_of_no_run(logs, self._database) if deleted(each.path)]
            yield
        if gone:
            size = bytes_text(sum(each.size for each in gone))
            log.info("deleted %s of no run (%s) in %s", counted(len(gone), "log"), size, self._home.logs)


def _log_files(home: Home) -> Iterator[Collection[Path]]:
    """Files that may be logs of attempts, some at a time. A folder that is deleted meanwhile, or cannot be looked into,
    is passed over; so is what lies in none: the logs of the home's processes."""
    folders = (each for each in os.walk(home.logs) if each[0] != str(home.logs))
    files = (Path(folder, name) for folder, _, names in folders for name in names if ".log" in name)
    yield from in_parts(files, _FILES_A_STEP)


def old_logs(paths: Iterable[Path], before: datetime) -> list[OldLog]:
    """Logs of attempts among these files, and what was rotated of them, that were written to last before a moment."""
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):  # it is rotated just now
            status = path.lstat()
            if attempt_time(_attempt_of(path)) is not None and status.st_mtime < before.timestamp():
                found.append(OldLog(path, status.st_size))
    return found


def logs_of_no_run(
    logs: Collection[OldLog], database: Database, going: Collection[int] = frozenset()
) -> Iterator[OldLog]:
    """Choose those of these logs that are of no run, or of one of `going`: another host of the same database has
    deleted the run, or it is another database now."""
    for some in in_parts(logs):
        attempts = {_attempt_of(each.path) for each in some}
        runs = database.read(partial(cleanup_queries.runs_of_attempts, attempt_ids=attempts))
        for each in some:
            run = runs.get(_attempt_of(each.path))
            if run is None or run in going:
                yield each


def _attempt_of(path: Path) -> str:
    return path.name.partition(".")[0]


def deleted(path: Path) -> bool:
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
