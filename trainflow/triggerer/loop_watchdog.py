"""The watchdog of event loops: ends one that a trigger blocks."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from trainflow.triggerer.loop_process import Loop

log = logging.getLogger(__name__)

#: how long after it was missed an event loop may still be heard
READ_SECONDS = 0.5


def end_stalled(loops: Iterable[Loop], now: float, watchdog_seconds: float) -> None:
    """End event loops that have not turned for `watchdog_seconds`: what blocks one holds up every wait in it. `now`, a
    moment of the monotonic clock, is all that is looked at."""
    for loop in loops:
        silent = now - loop.heard_at
        if silent <= watchdog_seconds:
            continue
        if loop.missed_at is None:
            # where this process was frozen itself, what the loop has said meanwhile is yet to be read
            loop.missed_at = now
        elif now - loop.missed_at >= READ_SECONDS:
            log.error("the triggers' event loop has been silent for %.0f s: something blocks it; restarted", silent)
            loop.kill(stalled=True)
