"""Which logs of a home its store has not: those of attempts that were handed out since a mark, which is kept in a file.

A store may be away for weeks, and the process that sends may be started anew meanwhile. What lies behind is taken up in
pages, oldest first, so that a month of logs is neither asked for nor held at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from trainflow.metadata.queries import attempt_queries

log = logging.getLogger(__name__)

#: attempts whose logs are taken up at a time
PAGE = 100
#: so long a mark may be older on disk than it is, in seconds: what was sent since then is sent again
_WRITE_SECONDS = 60.0


class _UploadMark(msgspec.Struct, frozen=True):
    """The file: for which store, and the attempt from which on something may be missing there."""

    url: str
    attempt_id: str


class LogBacklog:
    """Attempts of before whose logs are still to be sent, if there are any: those after `position`."""

    def __init__(self, path: Path, url: str) -> None:
        """`path`: of the file with the mark."""
        self._path = path
        self._url = url
        #: what is left: after this attempt (None: nothing is), up to that one
        self._position: str | None = None
        self._last = ""
        #: names of those that were taken up last
        self._page: set[str] = set()
        self._told = False
        self._mark, self._written_at = self._read(), float("-inf")

    def _read(self) -> str | None:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_UploadMark)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s cannot be read: logs of the last day are sent again, no older ones: %s", self._path, error)
            return None
        return found.attempt_id if found.url == self._url else None

    def begin(self, until: str) -> None:
        """Take up what the last process of this home has not sent of the attempts before `until`."""
        if self._mark is not None and self._mark < until:
            self._position, self._last = _before(self._mark), _before(until)

    def put_off(self, names: Iterable[str]) -> None:
        """Leave logs for later: they are too many to be held."""
        attempts = sorted(map(attempt_of, names))
        first = _before(attempts[0])
        self._position, self._last = min(first, self._position or first), max(attempts[-1], self._last)
        self._page = set()

    def page(self, connection: Connection, held: set[str]) -> list[str]:
        """Names of the next logs, oldest first; none while some of the last page are still `held`."""
        if self._position is None or self._page & held:
            return []
        after = attempt_queries.logs_since(connection, self._position, PAGE)
        found = [each for each in after if each[0] <= self._last]
        if found and not self._told:
            self._told = True
            log.warning("%s may lack logs from %s on: they are sent now, oldest first", self._url, found[0][1])
        if found:
            self._position, self._page = found[-1][0], {name for _, name in found}
        else:
            if self._told:
                log.warning("%s has the logs of before", self._url)
            self._position, self._page, self._told = None, set(), False
        return [name for _, name in found]

    def note(self, mark: str, now: float, *, ends: bool = False) -> None:
        """Remember that nothing is missing of attempts before `mark` (`now`: monotonic seconds), or before what is put
        off; on disk from time to time, and when the process ends."""
        mark = min(mark, self._position or mark)
        if mark == self._mark or (now - self._written_at < _WRITE_SECONDS and not ends):
            return
        writing = self._path.with_suffix(".tmp")
        try:
            writing.write_bytes(msgspec.json.encode(_UploadMark(self._url, mark)))
            os.replace(writing, self._path)
        except OSError as error:
            log.debug("what logs were sent cannot be noted: %s", error)
            return
        self._mark, self._written_at = mark, now


def _before(attempt_id: str) -> str:
    """What sorts before this attempt, and after all that were handed out earlier."""
    return attempt_id[:-1]


def attempt_of(name: str) -> str:
    """The attempt whose log has this name."""
    return name.rpartition("/")[2].removesuffix(".log")
