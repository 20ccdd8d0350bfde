"""Send logs of attempts from the home in which they are written to a store that other hosts read.

A thread of its own, which no attempt and no decision waits for: a store that is away delays nothing and fails nothing.
What was written meanwhile is sent when it is back.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.concurrent_map import concurrent_map
from trainflow.deadlines import TOLERANCE
from trainflow.engine.log_backlog import LogBacklog, attempt_of
from trainflow.humanize import agreeing, counted
from trainflow.identifiers import earliest_attempt_id
from trainflow.metadata.database import Database
from trainflow.metadata.queries import attempt_queries
from trainflow.metadata.transaction_retries import is_own_fault
from trainflow.observability.log_files import parts
from trainflow.settings.home import Home
from trainflow.settings.model import LogStoreSettings
from trainflow.storage.local import make_folder
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store

log = logging.getLogger(__name__)

#: attempts that began so long before this process are looked at again, whatever was noted of them
_BEFORE = timedelta(days=1)
#: logs that are held at a time, beside those of attempts under way: while a store is away for long, more are put off
_MOST = 2000
#: a log that is larger by so much is sent so much less often while its attempt runs
_LARGE = 1 << 20
#: a log that is larger is not read into memory
_WHOLE = 8 << 20
#: what an attempt prints last comes after its end is known, perhaps over a network: so many seconds it is looked for
_LATE_SECONDS = 60.0
#: logs that are sent beside each other: one that is large, or a store that is slow, holds up no others
_AT_ONCE = 4
#: how long what is left may take to be sent when the process ends
_LAST_SECONDS = 10.0


class _Sent(NamedTuple):
    """The state of a file when it was sent."""

    size: int
    changed: int
    at: float


class LogUploads:
    """The logs of one home, and what of them the store has."""

    def __init__(
        self,
        home: Home,
        root: Path,
        settings: LogStoreSettings,
        database: Database,
        clock: Clock,
        *,
        store: Callable[[], Store] | None = None,
    ) -> None:
        """`root`: of the project. `store`: opens another one than the settings name."""
        assert settings.url is not None
        self._home = home
        self._url = settings.url
        self._open = store or (lambda: open_store(self._url, storage_options=settings.storage_options, root=root))
        self._database = database
        self._clock = clock
        self._pause = settings.upload_seconds
        self._store: Store | None = None
        #: names of logs that may still grow, or are not in the store yet; when each was last known to grow
        self._names: dict[str, float] = {}
        #: attempts that were handed out before this moment are known
        self._since = clock.now() - _BEFORE
        self._known: set[str] = set()
        self._backlog = LogBacklog(home.log_upload_mark, self._url)
        self._backlog.begin(earliest_attempt_id(self._since))
        #: names of logs whose attempts wait in the triggerer, and how often these have
        self._waits: set[tuple[str, int]] = set()
        self._sent: dict[str, _Sent] = {}
        #: those that could not be sent the last time
        self._refused: set[str] = set()
        self._complained = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="log uploads", daemon=True)

    def begin(self) -> None:
        """Send from now on."""
        self._thread.start()

    def close(self) -> None:
        """Send what is left, unless that takes long."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS)
        # its thread may be at work still
        self._note(ends=True)
        if left := sum(not self._is_sent(name) for name in list(self._names)):
            log.warning(
                "%s not in %s yet: %s in %s, and %s sent by the next engine of this home",
                f"{counted(left, 'log')} {agreeing(left, 'is', 'are')}", self._url,
                agreeing(left, "it stays", "they stay"), self._home.logs, agreeing(left, "is", "are"),
            )  # fmt: skip

    def _go_on(self) -> None:
        while not self._ended.wait(self._pause):
            self.look()
        self.look()

    def look(self) -> None:
        """Send what is new. Raises nothing."""
        try:
            under_way = self._database.read(self._follow)
            try:
                self._send_all(under_way)
            finally:
                # it grows no more, and the store has all of it
                late = self._clock.monotonic() - _LATE_SECONDS
                self._names = {
                    name: grew for name, grew in self._names.items() if grew > late or not self._is_sent(name)
                }
                self._put_off(under_way)
                kept = {path for name in self._names for path in self._files(name)}
                self._sent = {path: sent for path, sent in self._sent.items() if path in kept}
                self._note()
        except Exception as error:
            if not self._complained:
                own = error if is_own_fault(error) else None
                log.warning("logs cannot be sent to %s, and are sent when they can: %s", self._url, error, exc_info=own)
            self._complained = True
            return
        if self._complained:
            log.info("logs are sent to %s again", self._url)
        self._complained = False

    def _send_all(self, under_way: set[str]) -> None:
        """Send what is new of each log. The first that cannot be sent ends that, and comes last the next time: what is
        wrong with one keeps none of the others here."""
        names = sorted(self._names, key=lambda name: (name in self._refused, attempt_of(name)))
        due = [name for name in names if self._due(name, ends=name not in under_way or self._ended.is_set())]
        if not due:
            return
        if self._store is None:
            self._store = self._open()
        try:
            for _ in concurrent_map(_AT_ONCE, partial(self._send, self._store), due):
                pass
        except Exception:
            # opened anew the next time: what it is reached with may have changed (an expired token)
            self._store = None
            raise

    def _put_off(self, under_way: set[str]) -> None:
        """Hold no more than so many."""
        left = self._names.keys() - under_way
        if len(left) > _MOST:
            self._backlog.put_off(left)
            self._names = {name: grew for name, grew in self._names.items() if name in under_way}

    def _note(self, *, ends: bool = False) -> None:
        """Remember up to where the store has all."""
        since = earliest_attempt_id(self._since)
        self._backlog.note(min(map(attempt_of, self._names), default=since), self._clock.monotonic(), ends=ends)

    def _follow(self, connection: Connection) -> set[str]:
        """Take up attempts that were handed out since the last look, and those that have gone on after a wait; the logs
        of those that are under way."""
        now, grows = self._clock.now(), self._clock.monotonic()
        since = earliest_attempt_id(self._since)
        found = dict(attempt_queries.logs_since(connection, since))
        under_way = set(attempt_queries.logs_under_way(connection))
        waits = attempt_queries.logs_that_wait(connection)
        went_on = {name for name, _ in self._waits - waits}
        new = {name for attempt_id, name in found.items() if attempt_id not in self._known}
        self._names |= dict.fromkeys(self._backlog.page(connection, set(self._names)), float("-inf"))
        self._names |= dict.fromkeys(new | went_on | under_way, grows)
        # of another scheduler, whose clock is behind, some may come that look as if they had been there before
        self._since, self._known, self._waits = now - TOLERANCE, set(found), waits
        return under_way

    def _files(self, name: str) -> dict[str, Path]:
        """The parts of a log in this home, by their names in the store."""
        folder = name.rpartition("/")[0]
        return {f"{folder}/{path.name}": path for path in parts(self._home.logs / name) if path.exists()}

    def _is_sent(self, name: str) -> bool:
        """Whether the store has all of a log; so it has of one that another home writes."""
        try:
            return all(
                (sent := self._sent.get(path)) is not None and (sent.size, sent.changed) == _state(file)
                for path, file in self._files(name).items()
            )
        except FileNotFoundError:
            return False  # it is rotated just now

    def _due(self, name: str, *, ends: bool) -> bool:
        """Whether something of a log is to be sent now."""
        for path, file in self._files(name).items():
            before, state = self._sent.get(path), _state(file)
            if before is None:
                return True
            pause = 0.0 if ends else self._pause * (state[0] / _LARGE)
            if (before.size, before.changed) != state and self._clock.monotonic() - before.at >= pause:
                return True
        return False

    def _send(self, store: Store, name: str) -> None:
        """Send what the store has not of a log. In one of several threads, each with another log."""
        self._refused.add(name)
        for path, file in self._files(name).items():
            before, state = self._sent.get(path), _state(file)
            if before is None or (before.size, before.changed) != state:
                _put(store, path, file, state[0])
                self._sent[path] = _Sent(*state, self._clock.monotonic())
        self._refused.discard(name)


def _put(store: Store, path: str, file: Path, size: int) -> None:
    """Replace what the store has, whatever the size; who reads sees the old one or the new one."""
    target = store.local_path(path)
    if size <= _WHOLE:
        store.replace(path, file.read_bytes())
    elif target is None:
        store.put_file(file, path)
    else:
        made = target.with_name(f".{target.name}.sending")
        make_folder(target.parent)
        shutil.copyfile(file, made)
        os.replace(made, target)


def _state(file: Path) -> tuple[int, int]:
    """Size, and when it was changed last."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns
