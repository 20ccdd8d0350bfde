"""Ordinary code that can be stopped wherever it pauses, for as long as one likes, or for ever.

It runs in a thread, but never at the same time as what lets it run: the two hand a token to and fro. So it may be
any code - operators, stores, training functions - and a history is still the same each time.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread, current_thread
from typing import Any


class Killed(BaseException):
    """The process is gone. Raised at the pause, and at every further one, so that nothing is done on the way out."""


class Fiber:
    """Runs `body` from pause to pause."""

    def __init__(self, body: Callable[[], Any], owner: Any = None) -> None:
        self._body = body
        #: whose it is
        self.owner = owner
        self._thread: _FiberThread | None = None
        self._point: Any = None
        self._answer: Any = None
        self._interruption: Callable[[], None] | None = None
        self.killed = False
        self.ended = False
        #: what the body returned
        self.result: Any = None
        self._error: BaseException | None = None

    def run(self, answer: Any = None) -> Any:
        """Let it run to its next pause, which gives `answer`. Returns what it pauses at, None once it has ended.

        Raises what the body raises.
        """
        self._answer = answer
        return self._let()

    def interrupt(self, by: Callable[[], None]) -> Any:
        """Let `by` happen inside of it, at its pause, as a signal does. It goes on pausing unless that raises."""
        self._interruption = by
        return self._let()

    def kill(self) -> None:
        """Nothing of it ever happens again."""
        self.killed = True
        if self._thread is not None and not self.ended:
            self._let()

    def pause(self, point: Any) -> Any:
        """Called by the body: stop here. Returns the answer."""
        assert self._thread is not None
        while True:
            if self.killed:
                raise Killed
            self._point = point
            self._thread.give_back()
            if self.killed:
                raise Killed
            by, self._interruption = self._interruption, None
            if by is None:
                return self._answer
            by()

    def _let(self) -> Any:
        global _current
        before, _current = _current, self
        if self._thread is None:
            self._thread = _idle.pop() if _idle else _FiberThread()
            self._thread.fiber = self
        try:
            self._thread.let()
        finally:
            _current = before
        if not self.ended:
            return self._point
        if self._error is not None:
            raise self._error
        return None

    def live(self) -> None:
        """Called by the thread: the whole body."""
        try:
            if not self.killed:
                self.result = self._body()
        except Killed:
            pass
        except BaseException as error:
            self._error = error
        self.ended = True


class _FiberThread(Thread):
    """Serves one fiber after the other. Exactly one of it and what lets it run holds the token."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="simulated process")
        self._ours, self._theirs = Lock(), Lock()
        self._ours.acquire()
        self._theirs.acquire()
        self.fiber: Fiber | None = None
        self.start()

    def let(self) -> None:
        self._ours.release()
        self._theirs.acquire()

    def give_back(self) -> None:
        self._theirs.release()
        self._ours.acquire()

    def run(self) -> None:
        self._ours.acquire()
        while True:
            assert self.fiber is not None
            self.fiber.live()
            self.fiber = None
            _idle.append(self)
            self.give_back()


#: threads whose fiber has ended
_idle: list[_FiberThread] = []
#: the fiber that runs now
_current: Fiber | None = None


def current() -> Fiber | None:
    """The fiber that runs now, None outside of all."""
    return _current


def is_in_fiber() -> bool:
    """Whether the code that asks is that of a fiber, and none of another thread."""
    return isinstance(current_thread(), _FiberThread)
