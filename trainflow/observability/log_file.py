"""The file that a process of the control plane logs into.

Apart from `logs`: the handlers that `logging` has for files are not for processes that attempts are forked from.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from logging.handlers import WatchedFileHandler


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
