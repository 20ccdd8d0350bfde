"""What an engine does for its home from time to time: logs are kept within limits and sent away, leftovers are deleted.

Left are copies for runs that failed for good, and outcomes of attempts that were cleared while no engine lived. Goes by
what the database still waits for, and by age: an attempt whose database was lost may be at work; what it touched lately
stays.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.errors import describe
from trainflow.executors.reactor import Reactor
from trainflow.metadata.database import Database
from trainflow.metadata.queries import attempt_queries, run_queries
from trainflow.metadata.transaction_retries import is_own_fault
from trainflow.observability.log_files import rotate
from trainflow.observability.processes import hostname
from trainflow.settings.home import ENDED_TRAINING, Home
from trainflow.settings.model import LoggingSettings, Settings
from trainflow.settings.project import Project

if TYPE_CHECKING:
    from trainflow.engine.log_uploads import LogUploads


log = logging.getLogger(__name__)

#: whatever was written since may still be needed, whatever the database says
OLD = timedelta(days=1)
#: what is kept of stores elsewhere is of use to the next run, which may be a month later: longer without a use
UNUSED = timedelta(days=45)
#: saves are large, and a run that is gone on with after longer than this has those in the store
UNUSED_SAVES = timedelta(days=7)


def sweep_home(home: Home, database: Database, now: datetime) -> list[Path]:
    """Delete what is old and belongs to no run and no attempt that is under way; what was deleted."""
    old = [path for path, age in _candidates(home) if _newest(path) < now - age]
    if not old:
        return []
    with database.reading() as connection:
        attempts = attempt_queries.under_way(connection)
        runs = {home.run_scratch(*run) for run in run_queries.unfinished_names(connection)}
        ended = attempt_queries.of_unfinished_runs(connection, ended=True)
    needed = runs.union(folder for folder in _to_be_uploaded(home) if folder.name in ended)
    gone = [path for path in old if not _is_needed(path, attempts, needed) and _deleted(path)]
    if gone:
        log.info("deleted %d leftovers of attempts and runs that have ended, in %s", len(gone), home.path)
    return gone


def _candidates(home: Home) -> Iterator[tuple[Path, timedelta]]:
    """What may go, and how long after its last use."""
    left = ((folder, OLD) for folder in (home.outcomes, home.attempts_scratch, home.runs_scratch))
    known = ((folder, UNUSED) for folder in (home.store_copies, home.store_probes, home.artifact_cache))
    for folder, age in (*left, (home.local_saves, UNUSED_SAVES), *known):
        if folder.is_dir():
            yield from ((path, age) for path in sorted(folder.iterdir()))


def _is_needed(path: Path, attempts: Collection[str], others: Collection[Path]) -> bool:
    # an outcome is called after its attempt too
    return path in others or path.name.partition(".")[0] in attempts


class _EndedTraining(msgspec.Struct):
    """What is read of the record of a training that has ended; `artifacts`: all of its files are in the store."""

    output: str
    artifacts: msgspec.Raw = msgspec.Raw(b"null")


def _to_be_uploaded(home: Home) -> set[Path]:
    """The working folders of attempts that have trained and were lost before all of it was in the store: the next
    attempt of the run puts it there, however long the store was away."""
    found = set()
    for path in home.local_saves.glob(f"*/{ENDED_TRAINING}"):
        with suppress(OSError, msgspec.MsgspecError):
            ended = msgspec.json.decode(path.read_bytes(), type=_EndedTraining)
            if bytes(ended.artifacts) == b"null":
                found.add(Path(ended.output).parent)
    return found


def _deleted(path: Path) -> bool:
    """Delete a file or a folder. False where it cannot be: said."""
    try:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s, which nothing needs any more, cannot be deleted: %s", path, error.strerror)
        return False
    return True


def _newest(path: Path) -> datetime:
    """When anything below was written last. What vanishes meanwhile belongs to an attempt at work."""
    try:
        moments = [path.stat().st_mtime, *(below.lstat().st_mtime for below in path.rglob("*"))]
    except OSError:
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromtimestamp(max(moments), UTC)


def limit_logs(home: Home, database: Database, settings: LoggingSettings) -> list[Path]:
    """Rotate the logs of this home's processes and of all attempts under way; returns those that were too large.

    A log that cannot be rotated is left alone and named: it is no reason to stop anything.
    """
    attempts = [home.logs / name for name in database.read(attempt_queries.logs_under_way)]
    rotated = []
    for path in (*home.process_logs, *attempts):
        try:
            if rotate(path, settings.max_bytes, settings.backup_count):
                rotated.append(path)
        except OSError as error:
            log.warning("the log %s cannot be rotated: %s", path, error.strerror or error)
    for path in rotated:
        log.warning("the log %s was larger than %d bytes and was rotated", path, settings.max_bytes)
    return rotated


class HomeUpkeep:
    """Looks after a home, by the timers of its engine."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        database: Database,
        reactor: Reactor,
        clock: Clock,
        *,
        may_delete_runs: Callable[[Connection], bool],
    ) -> None:
        """`may_delete_runs`: whether it is this engine that deletes runs of the database."""
        self._may_delete_runs = may_delete_runs
        self._project = project
        self._settings = settings
        self._database = database
        self._reactor = reactor
        self._clock = clock
        self._log_uploads: LogUploads | None = None

    def begin(self) -> None:
        """Look after it from now on."""
        logs, project = self._settings.logs, self._project
        if logs.url is not None:
            from trainflow.engine.log_uploads import LogUploads

            self._log_uploads = LogUploads(project.home, project.root, logs, self._database, self._clock)
            self._log_uploads.begin()
        self._sweep_leftovers()
        self._limit_logs()
        if (days := self._settings.database.keep_runs_days) is not None:
            self._delete_runs(timedelta(days=days))

    def _delete_runs(self, keep: timedelta) -> None:
        from trainflow.engine.run_cleanup import RunCleanup

        cleanup = RunCleanup(
            self._project.home,
            self._database,
            self._reactor,
            self._clock,
            keep=keep,
            owner=f"scheduler on {hostname()}",
            may_delete_runs=self._may_delete_runs,
        )
        cleanup.begin()

    def _sweep_leftovers(self) -> None:
        """Delete what is left in the home, once a day: what goes wrong with it ends no engine."""
        self._reactor.call_later(OLD.total_seconds(), self._sweep_leftovers)
        try:
            sweep_home(self._project.home, self._database, self._clock.now())
        except Exception as error:
            own = error if is_own_fault(error) else None
            log.warning("leftovers cannot be deleted now, next in a day: %s", describe(error), exc_info=own)

    def _limit_logs(self) -> None:
        limit_logs(self._project.home, self._database, self._settings.logging)
        self._reactor.call_later(self._settings.engine.heartbeat_seconds, self._limit_logs)

    def close(self) -> None:
        """Send what is left of the logs."""
        if self._log_uploads is not None:
            self._log_uploads.close()
