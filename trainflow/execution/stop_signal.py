"""SIGTERM, SIGINT and execution time-outs, turned into exceptions in the task, once each.

SIGTERM: the machine is wanted for something else, or the engine ends. The task ends soon and goes again; one that holds
the stop (it saves how far it is at its next save point) gets the grace for it. SIGINT: the attempt is not waited for
any more (a person cancelled or cleared it); it ends at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainflow.task_signals import TaskTerminated, TaskTimeout

#: of the grace, this much is left for the report: a share of it, and no more than so many seconds
_REPORT_SHARE, _REPORT_SECONDS = 0.25, 5.0
_BLOCKED = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Remembers that the attempt was told to stop: whatever the task makes of the exception, it is no success."""

    def __init__(self, grace_seconds: float = 30.0) -> None:
        """`grace_seconds`: after it, the process that told the attempt to stop ends it by force."""
        self.received = False
        self._patience = grace_seconds - min(grace_seconds * _REPORT_SHARE, _REPORT_SECONDS)
        self._raises = False
        self._raised = False
        self._held = False
        self._on_stop: Callable[[], None] | None = None
        #: what threads that fork right now had blocked before
        self._masks: dict[int, Iterable[int]] = {}

    def install(self) -> None:
        """Listen. In the main thread only."""
        signal.signal(signal.SIGTERM, self._told)
        # attempts lead sessions of their own: Ctrl-C in the engine's terminal does not come here
        signal.signal(signal.SIGINT, self._abandoned)
        os.register_at_fork(before=self._block, after_in_parent=self._unblock, after_in_child=self._forget)

    def _block(self) -> None:
        # Python throws away what a forked process was sent before it runs: one that is stopped as soon as it is started
        # would go on. Blocked, the signal waits in the kernel
        self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)

    def _unblock(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(threading.get_ident(), ()))

    def _forget(self) -> None:
        """What the task forks is told to stop by the task: it ends on SIGTERM as any process does."""
        mine = {signal.SIGTERM: self._told, signal.SIGINT: self._abandoned, signal.SIGALRM: self._out_of_patience}
        for number, handler in mine.items():
            if signal.getsignal(number) == handler:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._unblock()

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        first, self.received = not self.received, True
        if not first:
            return
        if not self._held:
            self._raise("told to stop (SIGTERM)")
            return
        self._limit_patience()
        if self._on_stop is not None:
            self._on_stop()

    def _abandoned(self, _number: int, _frame: FrameType | None) -> None:
        self.received = True
        self._raise("it is not waited for any more (SIGINT)")

    def _out_of_patience(self, _number: int, _frame: FrameType | None) -> None:
        self._raise("told to stop (SIGTERM), and did not within the grace")

    def _raise(self, message: str) -> None:
        # raised once: `on_kill` and `finally` blocks of the task run undisturbed; after the grace time comes SIGKILL
        if self._raises and not self._raised:
            self._raised = True
            raise TaskTerminated(message)

    def _limit_patience(self) -> None:
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        if left == 0 or left > self._patience:  # an execution time-out that comes first stays
            signal.signal(signal.SIGALRM, self._out_of_patience)
            signal.setitimer(signal.ITIMER_REAL, self._patience)

    def hold(self, on_stop: Callable[[], None] | None = None) -> None:
        """Have SIGTERM only set `received` and call `on_stop` from now on (in the signal handler: it must be brief). A
        task that has not ended by itself when most of the grace is over is interrupted after all."""
        self._held, self._on_stop = True, on_stop

    def release(self) -> None:
        """SIGTERM interrupts again. Raises TaskTerminated when told to stop meanwhile."""
        self._held, self._on_stop = False, None
        if self.received:
            self._raise("told to stop (SIGTERM)")

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise TaskTerminated inside for a stop, also for one that came before. Outside it is only remembered: judging
        and reporting how the task ended comes to its end."""
        self._raises = True
        try:
            if self.received:
                raise TaskTerminated("told to stop (SIGTERM)")
            yield
        finally:
            self._raises = False
            signal.setitimer(signal.ITIMER_REAL, 0)  # nothing is left to run out of patience with

    def sleep(self, seconds: float) -> None:
        """Wait. Raises TaskTerminated when told to stop before or meanwhile."""
        if self.received:
            raise TaskTerminated("told to stop (SIGTERM)")
        time.sleep(seconds)  # where being told interrupts, the handler raises out of it


@contextmanager
def time_limit(seconds: float | None, *, spent: float = 0.0) -> Iterator[None]:
    """Raise TaskTimeout in the task once it has taken this long, `spent` seconds of which lie behind it; whatever the
    task makes of it, it leaves with nothing else. In the main thread only."""
    if seconds is None:
        yield
        return
    message = f"execution_timeout: the task took longer than {seconds:g} s{', its waits included' if spent else ''}"
    if spent >= seconds:
        raise TaskTimeout(message)
    timeout: TaskTimeout | None = None

    def expired(_number: int, _frame: FrameType | None) -> None:
        nonlocal timeout
        timeout = TaskTimeout(message)
        raise timeout

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds - spent)
    try:
        yield
    except TaskTerminated:
        raise
    except BaseException:
        if timeout is not None:
            raise timeout from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if timeout is not None:
        raise timeout
