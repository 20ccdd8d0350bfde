"""Leases: which parts of the control plane, and which attempts on other hosts, have been silent for too long.

A part says that it lives by raising its counter. It is dead when the counter has not risen for `dead_after`, measured
by the observer's own monotonic clock from when the observer first saw that value (`Leases`). No clock of the day is
read: hosts whose clocks differ, and clocks that are set, take nothing away from the living. The database's own clock
would not do: it is set like any other, SQLite's is that of the asking process, and a simulation could not move it.

The price: an observer that has just started does not know how long the others have been silent, and waits for
`dead_after` before it takes over (on the host of the dead it sees that the process is gone, and need not wait).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple


class _ObservedLease(NamedTuple):
    heartbeats: int
    silent_seconds: float
    looked_at: float


class Leases:
    """Leases as one process has seen them: the others' counters. Every look counts, whichever part makes it."""

    def __init__(self, monotonic: Callable[[], float], dead_after_seconds: float) -> None:
        self._monotonic = monotonic
        self._dead_after = dead_after_seconds
        # who stood still itself (a suspended machine, a database that was away) has not seen others be silent
        self._longest_gap = dead_after_seconds / 3
        self._seen: dict[Hashable, _ObservedLease] = {}

    def silent(self, rows: Iterable[Any], *, heard: bool = True) -> set[Any]:
        """Look at who has not stopped (`id`, `heartbeats`); ids of those that have been silent for too long.

        `heard`: whether they could have been heard since the last look; if not, their silence says nothing.
        """
        now = self._monotonic()
        seen, self._seen = self._seen, {}
        for row in rows:
            before = seen.get(row.id)
            silent = 0.0
            if before is not None and before.heartbeats == row.heartbeats:
                silent = before.silent_seconds
                if heard:
                    silent += min(now - before.looked_at, self._longest_gap)
            self._seen[row.id] = _ObservedLease(row.heartbeats, silent, now)
        return {number for number, each in self._seen.items() if each.silent_seconds >= self._dead_after}
