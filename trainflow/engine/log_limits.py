"""Keep every log of a home within the limits that the settings give."""

from __future__ import annotations

import logging
from pathlib import Path

from trainflow.metadata import attempt_queries
from trainflow.metadata.database import Database
from trainflow.observability.log_files import rotate
from trainflow.settings.home import Home
from trainflow.settings.model import LoggingSettings

log = logging.getLogger(__name__)


def apply(home: Home, database: Database, settings: LoggingSettings) -> list[Path]:
    """Rotate the logs of this home's processes and of all attempts under way; returns those that were too large.

    A log that cannot be rotated is left alone and named: it is no reason to stop anything.
    """
    attempts = [Path(path) for path in database.read(attempt_queries.logs_under_way) if path]
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
