"""The log of one process: UTC times, no secrets, one line a record."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from trainflow.observability.redaction import redact_text

log = logging.getLogger(__name__)

_LINE = "%(asctime)s %(levelname)-7s %(name)s[%(process)d]: %(message)s"


class UtcFormatter(logging.Formatter):
    """`2013-01-31T06:00:00.123Z INFO    trainflow.scheduler[4711]: …`, redacted.

    Redacts here and not in a logging filter: a filter sees the message before its arguments and the traceback are put
    in, and these are where a URL with a password turns up.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__(_LINE)

    def format(self, record: logging.LogRecord) -> str:
        # undecodable bytes of a file's name, in a foreign exception, have no encoding: the line must be written anyway
        return redact_text(super().format(record)).encode("utf-8", "backslashreplace").decode("utf-8")


def configure_logging(level: str, file: Path | None = None) -> logging.Handler:
    """Send this process's log to `file` (appended to; its folder is made), or to stderr; calling again replaces it.

    The file may be moved away by logrotate while it is open. Raises ValueError for an unknown level, OSError when the
    folder cannot be made.
    """
    root = logging.getLogger()
    root.setLevel(level)
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        from trainflow.observability.log_files import LogFile

        file.parent.mkdir(parents=True, exist_ok=True)
        handler = LogFile(file, encoding="utf-8", delay=True)
    handler.setFormatter(UtcFormatter())
    for old in [old for old in root.handlers if isinstance(old.formatter, UtcFormatter)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    logging.captureWarnings(True)
    return handler


def _opened_log(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        # its folder is there, but for the first attempt of a DAG
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, flags, 0o600)


def redirect_output(path: str) -> None:
    """Have what this process prints and logs go to a file. One that cannot be made (a full disk, one that became
    read-only) is told, and is no reason not to train."""
    try:
        descriptor = _opened_log(path)
    except OSError as error:
        log.error("the log %s cannot be written: %s; what this attempt prints is lost", path, error.strerror)
        descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
