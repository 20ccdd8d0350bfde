"""Files of logs: the one that a process of the control plane writes, and the bound on those that others append to.

A task's log is written by its process and by what that starts, through descriptors opened for appending. So the file is
copied and emptied in place, as logrotate's `copytruncate` does: no writer has to reopen it. What is written between the
copy and the emptying is lost; that is bounded by the speed of the writer and microseconds.

Apart from `logs`: the handlers that `logging` has for files are not for processes that attempts are forked from.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
from logging.handlers import WatchedFileHandler
from pathlib import Path

_CHUNK = 1 << 20


def rotate(path: Path, max_bytes: int, backup_count: int) -> bool:
    """Empty `path` when it is larger than `max_bytes`; its last `max_bytes` are kept as `path.1`, what was `path.1` as
    `path.2`, up to `path.{backup_count}`.

    Returns whether it was too large. A file that is not there is none. Raises OSError when it cannot be written.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    if size <= max_bytes:
        return False
    for number in range(backup_count, 1, -1):
        older = backup(path, number - 1)
        if older.exists():
            older.replace(backup(path, number))
    with path.open("r+b") as file:
        if backup_count:
            file.seek(size - max_bytes)
            with open(backup(path, 1), "wb", opener=_private) as copy:
                shutil.copyfileobj(file, copy, _CHUNK)
        file.truncate(0)
    return True


def backup(path: Path, number: int) -> Path:
    """Name the `number`-th newest part that was rotated away, from 1."""
    return path.with_name(f"{path.name}.{number}")


def parts(path: Path) -> list[Path]:
    """List what there is of a log, oldest part first, `path` itself last."""
    found = []
    number = 1
    while (older := backup(path, number)).exists():
        found.append(older)
        number += 1
    return [*reversed(found), path]


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


class LogFile(WatchedFileHandler):
    """A log that may not be writable for a while: what it loses then it tells in one sentence, once."""

    _told = False

    def _open(self) -> io.TextIOWrapper:
        """Open the file for this user alone."""
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(descriptor, "a")),
            encoding=self.encoding,
            errors=self.errors,
            write_through=True,
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # of the old stream, when it opens the file anew
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            sys.stderr.write(f"the log {self.baseFilename} cannot be written: {error.strerror}\n")
