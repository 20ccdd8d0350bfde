"""What attempts left in a home and no attempt comes back for.

Copies for runs that failed for good, outcomes of attempts that were cleared while no engine lived. Goes by what the
database still waits for, and by age: an attempt whose database was lost may be at work; what it touched lately stays.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trainflow.metadata import attempt_queries, run_queries
from trainflow.metadata.database import Database
from trainflow.settings.home import Home

log = logging.getLogger(__name__)

#: whatever was written since may still be needed, whatever the database says
OLD = timedelta(days=1)


def sweep_home(home: Home, database: Database, now: datetime) -> list[Path]:
    """Delete what is old and belongs to no run and no attempt that is under way; what was deleted."""
    old = [path for path in _candidates(home) if _newest(path) < now - OLD]
    if not old:
        return []
    with database.reading() as connection:
        attempts = attempt_queries.under_way(connection)
        runs = {home.run_scratch(*run) for run in run_queries.unfinished_names(connection)}
    gone = [path for path in old if not _is_needed(path, attempts, runs)]
    for path in gone:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if gone:
        log.info("deleted %d leftovers of attempts and runs that have ended, in %s", len(gone), home.path)
    return gone


def _candidates(home: Home) -> Iterator[Path]:
    for folder in (home.outcomes, home.attempts_scratch, home.runs_scratch):
        if folder.is_dir():
            yield from sorted(folder.iterdir())


def _is_needed(path: Path, attempts: Collection[str], runs: Collection[Path]) -> bool:
    # an outcome is called after its attempt too
    return path in runs or path.name.partition(".")[0] in attempts


def _newest(path: Path) -> datetime:
    """When anything below was written last. What vanishes meanwhile belongs to an attempt at work."""
    try:
        moments = [path.stat().st_mtime, *(below.lstat().st_mtime for below in path.rglob("*"))]
    except OSError:
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromtimestamp(max(moments), UTC)
