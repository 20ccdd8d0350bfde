"""End the engine of a home, and wait until it has ended."""

from __future__ import annotations

import os
import signal
import time

from trainflow.clock import Clock
from trainflow.engine import lock
from trainflow.errors import EngineError
from trainflow.settings.home import Home

_LOOK_SECONDS = 0.05


def tell_to_stop(home: Home, *, at_once: bool = False) -> int | None:
    """Tell the engine to stop, in good order or at once; its pid, None: none is alive. Raises EngineError where it
    belongs to another user."""
    pid = lock.running_engine(home)
    if pid is None:
        return None
    if pid == 0:
        raise EngineError(f"{home.engine_lock} is held by a process that does not say its pid: try again")
    # two signals that are alike may arrive as one; asked twice, the engine stops at once
    for number in [signal.SIGTERM, signal.SIGINT] if at_once else [signal.SIGTERM]:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            break
        except PermissionError:
            raise EngineError(f"the engine (pid {pid}) belongs to another user: they have to stop it") from None
    return pid


def wait_until_stopped(home: Home, pid: int, clock: Clock, *, seconds: float | None = None) -> bool:
    """Whether the engine of that pid has ended, after `seconds` at most (None: however long it takes)."""
    deadline = None if seconds is None else clock.monotonic() + seconds
    # another engine that took over meanwhile is not the one that was to stop
    while lock.running_engine(home) in (pid, 0):
        if deadline is not None and clock.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
