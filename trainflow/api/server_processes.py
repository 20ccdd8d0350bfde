"""Processes that are forked from one that has imported what they need, and are started again when they end.

The parent holds the sockets, waits, and does nothing else: it has no thread and no connection to a database, so it may
fork at any time, and what it has imported is in memory once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from trainflow.errors import TrainflowError
from trainflow.observability.process_lifetime import die_with_parent, watch_parent

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 60.0
#: one that has lived so long did not fail at its beginning
_LIVED_SECONDS = 60.0
#: how long processes may take to end, before they are killed
_STOP_SECONDS = 5.5
_PARENT_LOOK_SECONDS = 1.0
#: how often it is asked whether it is over
_LOOK_SECONDS = 2.0
_WRONG_INPUT, _BROKEN = 2, 1


class ProcessSpec(NamedTuple):
    """A process. `run`: what it does; `when`: it is started when there is something to read on one of these, a first
    connection say, and may end by itself; none: it always runs."""

    name: str
    run: Callable[[], object]
    when: Sequence[socket.socket] = ()


class _Process:
    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.pid: int | None = None
        self.started_at = float("-inf")
        self.not_before = float("-inf")
        self._pause = _FIRST_PAUSE_SECONDS

    def is_due(self, now: float) -> bool:
        return self.pid is None and now >= self.not_before

    def ended(self, code: int, now: float) -> None:
        self.pid = None
        if code == 0 and self.spec.when:
            self._pause = _FIRST_PAUSE_SECONDS
            return
        if now - self.started_at >= _LIVED_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        self.not_before = now + self._pause
        log.error("the %s ended (exit code %d): started again in %g s", self.spec.name, code, self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)


class ServerProcesses:
    """Keeps processes running until SIGINT or SIGTERM, or until the parent of this one ends."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        parent: int | None = None,
        *,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        """`parent`: a process that this one ends with. `is_over`: asked every two seconds; they are ended once it says
        so."""
        self._processes = [_Process(spec) for spec in specs]
        self._parent = parent
        self._is_over = is_over
        self._stops = False

    def run(self, ready: Callable[[], object]) -> bool:
        """Start them, and keep them; `ready` is called when those that always run have begun. Returns whether it was
        `is_over` that ended them, and no signal, not even while they ended."""
        assert threading.active_count() == 1, "a process with threads cannot be forked"
        with _wakened(self._stop) as wake, _parent_descriptor(self._parent) as parent:
            try:
                self._start(set())
                ready()
                over = False
                while not self._stops and not over:
                    asked = self._wait([wake, *parent])
                    self._reap()
                    over = self._is_over is not None and self._is_over()
                    if not over and not self._stops and not self._parent_has_ended(parent, asked):
                        self._start(asked)
            finally:
                self._end_all()
        return not self._stops

    def _stop(self) -> None:
        self._stops = True

    def _start(self, asked: set[int]) -> None:
        now = time.monotonic()
        for each in self._processes:
            when = [one.fileno() for one in each.spec.when]
            if each.is_due(now) and (not when or not asked.isdisjoint(when)):
                self._fork(each)

    def _fork(self, process: _Process) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        process.started_at = time.monotonic()
        process.pid = os.fork()
        if process.pid == 0:
            _become(process.spec, parent)

    def _wait(self, descriptors: list[int]) -> set[int]:
        """Wait for a signal, for a first connection, or until one may be started again."""
        now = time.monotonic()
        waiting = [each for each in self._processes if each.pid is None]
        due = [one.fileno() for each in waiting if each.is_due(now) for one in each.spec.when]
        later = [each.not_before - now for each in waiting if not each.is_due(now)]
        if self._is_over is not None:
            later.append(_LOOK_SECONDS)
        if self._parent is not None and len(descriptors) == 1:
            later.append(_PARENT_LOOK_SECONDS)
        timeout = min(later, default=None)
        found, _, _ = select.select([*descriptors, *due], [], [], timeout)
        if descriptors[0] in found:
            with contextlib.suppress(BlockingIOError):
                os.read(descriptors[0], 4096)
        return set(found)

    def _parent_has_ended(self, parent: list[int], asked: set[int]) -> bool:
        if self._parent is not None and (asked & set(parent) or os.getppid() != self._parent):
            self._stops = True
        return self._stops

    def _reap(self) -> None:
        for each in self._processes:
            if each.pid is None:
                continue
            found, status = os.waitpid(each.pid, os.WNOHANG)
            if found:
                each.ended(os.waitstatus_to_exitcode(status), time.monotonic())

    def _end_all(self) -> None:
        """SIGTERM, a wait, SIGKILL."""
        living = [each.pid for each in self._processes if each.pid is not None]
        for pid in living:
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + _STOP_SECONDS
        while living and time.monotonic() < end:
            living = [pid for pid in living if os.waitpid(pid, os.WNOHANG)[0] == 0]
            if living:
                select.select([], [], [], 0.02)
        for pid in living:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _become(spec: ProcessSpec, parent: int) -> None:
    """Never returns: what the parent was about is not for its child."""
    code = _BROKEN
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if not die_with_parent(parent):
            watch_parent(parent)
        spec.run()
        code = 0
    except TrainflowError as error:
        log.error("the %s cannot go on: %s", spec.name, error)
        code = _WRONG_INPUT
    except BaseException:
        log.exception("the %s is broken", spec.name)
    finally:
        with contextlib.suppress(Exception):
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


@contextmanager
def _wakened(stop: Callable[[], None]) -> Iterator[int]:
    """A descriptor that can be read when a signal has come."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def stopped(_number: int, _frame: Any) -> None:
        stop()

    handlers = {signal.SIGCHLD: _ignored, signal.SIGINT: stopped, signal.SIGTERM: stopped}
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield reading
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def _ignored(_number: int, _frame: Any) -> None:
    """The descriptor says that a child has ended."""


@contextmanager
def _parent_descriptor(parent: int | None) -> Iterator[list[int]]:
    """A descriptor that can be read when a process has ended, where there are such."""
    found: list[int] = []
    if parent is not None:
        with contextlib.suppress(OSError, AttributeError):
            found = [os.pidfd_open(parent)]
    try:
        yield found
    finally:
        for each in found:
            os.close(each)
