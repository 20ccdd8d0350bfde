"""SIGTERM and execution time-outs, turned into exceptions in the task, once each."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trainflow.errors import TaskTerminated, TaskTimeout


class StopSignal:
    """Remembers that the attempt was told to stop: whatever the task makes of the exception, it is no success."""

    def __init__(self) -> None:
        self.received = False
        self._raises = False

    def install(self) -> None:
        """Listen for SIGTERM. In the main thread only."""
        signal.signal(signal.SIGTERM, self._told)
        # Ctrl-C in a terminal is the engine's business
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        first, self.received = not self.received, True
        # raised once: `on_kill` and `finally` blocks of the task run undisturbed; after the grace time comes SIGKILL
        if first and self._raises:
            raise TaskTerminated("told to stop (SIGTERM)")

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside, being told to stop raises TaskTerminated, also when it came before. Outside it is only remembered:
        judging and reporting how the task ended comes to its end."""
        self._raises = True
        try:
            if self.received:
                raise TaskTerminated("told to stop (SIGTERM)")
            yield
        finally:
            self._raises = False

    def sleep(self, seconds: float) -> None:
        """Wait. Raises TaskTerminated when told to stop before or meanwhile."""
        if self.received:
            raise TaskTerminated("told to stop (SIGTERM)")
        time.sleep(seconds)  # where being told interrupts, the handler raises out of it


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TaskTimeout in the task after this long. In the main thread only."""
    if seconds is None:
        yield
        return

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise TaskTimeout(f"execution_timeout: the task took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
