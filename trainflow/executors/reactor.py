"""Wait for anything: file descriptors, timers, a wake-up from another thread. One thread, callbacks, no locks.

The whole control plane of a process turns on one of these, so that nothing in it ever runs beside anything else.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
from collections import deque
from collections.abc import Callable
from typing import Protocol

from trainflow.clock import Clock


class HasFileno(Protocol):
    """An object with a file descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


Callback = Callable[[], None]


class Timer:
    """A call that is to be made later; `cancel` forgets it."""

    def __init__(self, at: float, callback: Callback) -> None:
        self.at = at
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Forget the call."""
        self.callback = None


class _Source:
    """What is called for a file descriptor; nothing once it is unwatched, also in the turn that found it ready."""

    __slots__ = ("on_readable", "on_writable")

    def __init__(self, on_readable: Callback | None, on_writable: Callback | None) -> None:
        self.on_readable = on_readable
        self.on_writable = on_writable


class Reactor:
    """Calls back when something is readable, writable or due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, _Source(self._drain, None))
        self.woken = False
        #: seconds in which nothing was to be done, so far
        self.waited_seconds = 0.0
        #: asked for by other threads
        self._soon: deque[Callback] = deque()

    def watch(self, source: HasFileno | int, on_readable: Callback | None, on_writable: Callback | None = None) -> None:
        """Call back when `source` is readable (writable); replaces what was watched on it before."""
        events = (selectors.EVENT_READ if on_readable else 0) | (selectors.EVENT_WRITE if on_writable else 0)
        try:
            key = self._selector.get_key(source)
        except KeyError:
            self._selector.register(source, events, _Source(on_readable, on_writable))
            return
        key.data.on_readable, key.data.on_writable = on_readable, on_writable
        if key.events != events:
            self._selector.modify(source, events, key.data)

    def unwatch(self, source: HasFileno | int) -> None:
        """Forget a source; unknown ones are ignored. To be called before it is closed."""
        try:
            key = self._selector.unregister(source)
        except (KeyError, ValueError):
            return
        key.data.on_readable = key.data.on_writable = None

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Call back once, `seconds` from now."""
        timer = Timer(self._clock.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.at, next(self._order), timer))
        return timer

    def wake(self) -> None:
        """End the current (or the next) wait. May be called from any thread and from a signal handler."""
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return

    def call_soon(self, callback: Callback) -> None:
        """Make a call in the next turn. May be called from any thread."""
        self._soon.append(callback)
        self.wake()

    def turn(self, timeout: float | None) -> None:
        """Wait until something happens, at most `timeout` seconds (None: without end), and make the calls."""
        began = self._clock.monotonic()
        ready = self._selector.select(self._patience(timeout))
        self.waited_seconds += self._clock.monotonic() - began
        for key, mask in ready:
            found: _Source = key.data
            if mask & selectors.EVENT_WRITE and found.on_writable:
                found.on_writable()
            # asked again: any callback before may have unwatched it, and closed it
            if mask & selectors.EVENT_READ and found.on_readable:
                found.on_readable()
        self._run_timers()

    def _patience(self, timeout: float | None) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return timeout
        until_timer = max(0.0, self._timers[0][0] - self._clock.monotonic())
        return until_timer if timeout is None else min(timeout, until_timer)

    def _run_timers(self) -> None:
        now = self._clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()

    def _drain(self) -> None:
        self.woken = True
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass
        while self._soon:
            self._soon.popleft()()

    def close(self) -> None:
        """Give the descriptors back."""
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
