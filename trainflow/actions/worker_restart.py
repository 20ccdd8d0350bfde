"""Whether a worker that stops begins again: once its package is installed anew under it, or SIGHUP asks for that.

From then on it would have parts of two builds: what it has imported, and what it imports next. It stops in good order,
as for SIGTERM, and the same command of the build that is installed by then takes the place of its process, with the
environment that it was started in.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from trainflow.bootstrap import is_replaced, version

log = logging.getLogger(__name__)

#: how often it is looked at what is installed, while no message comes
_LOOK_SECONDS = 2.0


class WorkerRestart:
    """Asks a worker to stop when it is to begin again, and knows afterwards whether it is. Fit for several threads."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """Made before anything is taken out of the environment. `stop`: has the worker stop in good order; fit for a
        signal handler."""
        self._stop = stop
        self._environment = dict(os.environ)
        self._ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._asked = self._told_to_end = False
        self._ended = threading.Event()

    def watch(self) -> None:
        """Look at what is installed, from now on."""
        threading.Thread(target=self._go_on, name="restart", daemon=True).start()

    def _go_on(self) -> None:
        while not self.is_due() and not self._ended.wait(_LOOK_SECONDS):
            pass

    def hear_hangup(self) -> None:
        """Have SIGHUP ask for it, which at a terminal means its end, and under `nohup` nothing. Called by the main
        thread."""
        if self._ignores_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        elif not sys.stdout.isatty():
            signal.signal(signal.SIGHUP, lambda _number, _frame: self._ask("SIGHUP: "))

    def is_due(self) -> bool:
        """Whether it is to begin again, so that nothing new is begun until then. Asked the first time that what is
        installed is another build, it has the worker stop."""
        if not self._asked and is_replaced():
            self._ask(f"trainflow {version()} was replaced where it is installed: ")
        return self._asked

    def _ask(self, why: str) -> None:
        if not self._asked:
            self._asked = True
            log.warning("%sthis worker stops in good order, and begins again", why)
            self._stop()

    def told_to_end(self) -> None:
        """Note that a signal has told the worker to end: it does not begin again. Fit for a signal handler."""
        self._told_to_end = True

    def begins_again(self) -> bool:
        """Whether it does. Called once it has stopped; what it was started with is in its environment again."""
        self._ended.set()
        os.environ.clear()
        os.environ.update(self._environment)
        return self._asked and not self._told_to_end
