"""End processes, whatever their parent is: SIGTERM, a short wait, SIGKILL."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable

from trainflow.observability.process_table import ProcessEntry
from trainflow.observability.processes import is_alive

#: how long a process that was left behind may clean up after SIGTERM, in seconds
GRACE_SECONDS = 3.0
#: how long the end of one that was killed is waited for, in seconds
KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.05


def signal_all(entries: Iterable[ProcessEntry], number: signal.Signals) -> None:
    """Send a signal to each that is still the same process."""
    for entry in entries:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if is_alive(entry.pid, entry.started):
                os.kill(entry.pid, number)


def terminate_processes(find: Callable[[], list[ProcessEntry]], grace_seconds: float) -> list[ProcessEntry]:
    """End what `find` finds, again and again until it finds nothing: they may start others meanwhile.

    Waits. Returns what cannot be ended.
    """
    told: set[tuple[int, float]] = set()
    end_of_grace = time.monotonic() + grace_seconds
    end_of_all = end_of_grace + KILL_SECONDS
    while found := find():
        now = time.monotonic()
        if now >= end_of_all:
            return found
        if now >= end_of_grace:
            signal_all(found, signal.SIGKILL)
            _wait_for_one(found, end_of_all - now)
        else:
            signal_all([each for each in found if (each.pid, each.started) not in told], signal.SIGTERM)
            told |= {(each.pid, each.started) for each in found}
            _wait_for_one(found, end_of_grace - now)
    return []


def _wait_for_one(entries: list[ProcessEntry], seconds: float) -> None:
    """Wait until one of them has ended, at most so long."""
    with contextlib.ExitStack() as stack:
        descriptors = []
        for entry in entries:
            try:
                descriptor = os.pidfd_open(entry.pid)
            except ProcessLookupError:
                return
            except (AttributeError, OSError):
                seconds = min(seconds, _LOOK_SECONDS)
                continue
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
        select.select(descriptors, [], [], seconds)
