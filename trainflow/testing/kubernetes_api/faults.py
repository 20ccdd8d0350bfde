"""What goes wrong because a test wants it to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from trainflow.testing.kubernetes_api.status import ApiStatus
from trainflow.testing.kubernetes_api.versioned_objects import Change


class _Refusal(NamedTuple):
    status: ApiStatus | None
    verb: str | None
    plural: str | None


class Faults:
    """Refusals of requests and connections that are cut; events of watches that are dropped, swapped, held back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refusals: list[_Refusal] = []
        self._dropped = 0
        self._dropped_if: Callable[[Change], bool] = lambda _change: True
        self._swapped = 0
        #: how often those that watched were silenced
        self.silences = 0

    def refuse(
        self, status: ApiStatus | None, *, verb: str | None = None, plural: str | None = None, times: int = 1
    ) -> None:
        """Answer the next requests of a verb (`create`, `list`, `watch` …) and a resource with `status`; None: with
        a connection that is cut."""
        with self._lock:
            self._refusals += [_Refusal(status, verb, plural)] * times

    def silence_watches(self) -> None:
        """Have all that watch now hear nothing any more, and no end: as behind a firewall that has forgotten their
        connections. Who begins to watch afterwards hears everything."""
        with self._lock:
            self.silences += 1

    def drop_events(self, times: int = 1, which: Callable[[Change], bool] = lambda _change: True) -> None:
        """Keep the next changes from all watches."""
        with self._lock:
            self._dropped, self._dropped_if = times, which

    def swap_events(self, times: int = 1) -> None:
        """Have the next changes that are seen together come in the opposite order, so many times."""
        with self._lock:
            self._swapped = times

    def next_refusal(self, verb: str, plural: str) -> _Refusal | None:
        """What this request is answered with instead; None: what it asks for."""
        with self._lock:
            for refusal in self._refusals:
                if refusal.verb in (None, verb) and refusal.plural in (None, plural):
                    self._refusals.remove(refusal)
                    return refusal
        return None

    def seen(self, changes: list[Change]) -> list[Change]:
        """What a watch gets to see of some changes, in which order."""
        kept = []
        with self._lock:
            for change in changes:
                if self._dropped > 0 and self._dropped_if(change):
                    self._dropped -= 1
                else:
                    kept.append(change)
            if self._swapped > 0 and len(kept) > 1:
                self._swapped -= 1
                kept.reverse()
        return kept
