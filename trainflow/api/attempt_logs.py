"""Logs of attempts on other hosts, added to the logs of the home part by part."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Connection

from trainflow.messages.execution_api import AppendLog, LogTaken
from trainflow.metadata import attempt_credentials
from trainflow.metadata.database import Database
from trainflow.observability.log_files import rotate
from trainflow.settings.home import Home
from trainflow.settings.model import LoggingSettings


class AttemptLogs:
    """Writes where `trainflow logs` reads. The file is named by the database, never by a request."""

    def __init__(self, database: Database, home: Home, limits: LoggingSettings) -> None:
        """`limits`: of one log; where the home has an engine as well, that looks after them too."""
        self._database = database
        self._home = home
        self._limits = limits

    def append(self, request: AppendLog) -> LogTaken:
        """Add what is new of a part; returns how much of the log there is then.

        A part that comes twice, or overlaps what is there, adds nothing twice. One that begins behind the end adds
        nothing: what is missing has to come first. Raises OSError when the file cannot be written.
        """

        def add(connection: Connection) -> LogTaken:
            log = attempt_credentials.lock_log(connection, request.key)
            new = request.data[log.size - request.offset :] if request.offset <= log.size else b""
            if not new:
                return LogTaken(log.size)
            attempt_credentials.note_log(connection, request.key, log.size + len(new))
            # before the commit: a part that could not be written is sent again. After a crash in between, it is there
            # twice: rather than not at all
            path = self._home.attempt_log(log.dag_id, log.run_id, log.task_id, request.key.attempt_id)
            _append(path, new)
            rotate(path, self._limits.max_bytes, self._limits.backup_count)
            return LogTaken(log.size + len(new))

        return self._database.write(add)


def _append(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
