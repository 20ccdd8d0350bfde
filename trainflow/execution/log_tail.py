"""Send the log of an attempt on, as it grows: all of it, or its beginning and its end where it grows faster.

The file is on the disk of a worker, which has no place for whatever a task prints. So what was sent is cut away from
time to time, and what is too far behind is left out; in its place stands how much that was. The process of the attempt
appends to the file, whatever was cut.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from trainflow.execution.http_api_client import ApiUnreachable, HttpApiClient
from trainflow.humanize import bytes_text
from trainflow.messages.execution_api import AppendLog, Failed, LogTaken
from trainflow.messages.http_protocol import LOG_CHUNK
from trainflow.messages.workload import AttemptKey

log = logging.getLogger(__name__)

#: bytes that are sent and cut away, that may wait to be sent, and that are kept of what is left out
_CUT, MOST_BEHIND, KEPT = 16 << 20, 64 << 20, 1 << 20
#: seconds for which one call sends at most: heartbeats come in between
_TURN_SECONDS = 0.5
_FULL = "\n… the disk of the worker was full: some of what was printed is missing here …\n"


class LogTail:
    """Sends a log on as it grows. Used by one thread at a time."""

    def __init__(self, client: HttpApiClient, key: AttemptKey, path: Path) -> None:
        self._client = client
        self._key = key
        self._path = path
        #: how much the server has, how far the file was read, and what of that the server has not taken yet
        self._taken = self._read = 0
        self._waiting = b""

    def send(self) -> bool:
        """Send what is new, for a moment; returns whether there may be more. Raises ApiUnreachable."""
        end = time.monotonic() + _TURN_SECONDS
        self._leave_out(MOST_BEHIND)
        while self._waiting or self._take_next():
            answer = self._client.ask_once(AppendLog(self._key, self._taken, self._waiting[:LOG_CHUNK]))
            if not isinstance(answer, LogTaken):
                if isinstance(answer, Failed):
                    log.warning("the log is not taken: %s", answer.message)
                return False
            self._waiting = self._waiting[max(answer.size - self._taken, 0) :]
            self._taken = answer.size
            if time.monotonic() >= end:
                return True
        return False

    def finish(self, patience_seconds: float) -> None:
        """Send the rest, as long as there is an answer; where that takes longer, the end of it."""
        end = time.monotonic() + patience_seconds
        try:
            while self.send():
                if time.monotonic() >= end:
                    self._leave_out(KEPT)
                    while self.send():
                        pass
        except ApiUnreachable as away:
            log.warning("the end of the log was not sent: %s", away)

    def _take_next(self) -> bool:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                self._waiting = file.read(LOG_CHUNK)
                self._read += len(self._waiting)
                if not self._waiting and self._read and os.fstat(file.fileno()).st_size == self._read:
                    self._make_room(os.fstatvfs(file.fileno()).f_bavail == 0)
        except FileNotFoundError:
            return False
        return bool(self._waiting)

    def _leave_out(self, most: int) -> None:
        """Where more than `most` bytes of the file were not read yet, go on with the end of it."""
        try:
            size = self._path.stat().st_size
            if size - self._read <= most:
                return
            with self._path.open("rb") as file:
                file.seek(size - KEPT)
                kept = file.read(KEPT)
        except FileNotFoundError:
            return
        left_out = bytes_text(size - KEPT - self._read)
        log.warning("%s of the log of attempt %s are left out", left_out, self._key.attempt_id)
        note = f"\n… {left_out} are left out here: the log grew faster than it could be sent …\n"
        self._waiting += note.encode() + kept
        self._cut()

    def _make_room(self, is_full: bool) -> None:
        """Cut away what was sent, where that is much, or the disk is full: what was printed since then is lost."""
        if is_full:
            self._waiting = _FULL.encode()
        if is_full or self._read >= _CUT:
            self._cut()

    def _cut(self) -> None:
        os.truncate(self._path, 0)
        self._read = 0
