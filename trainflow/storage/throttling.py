"""What is said while a store that asks for fewer requests is waited for: in the log, and to a listener."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

Listener = Callable[[str | None], None]


class _Waits:
    """One for a process: an attempt shows what it waits for beside how far it is."""

    listener: Listener | None = None


_WAITS = _Waits()


def tell_waits(listener: Listener | None) -> None:
    """Have a listener told, by the thread that waits, what it waits for from now on, and None when that is over."""
    _WAITS.listener = listener


def say_wait(url: str, seconds: float, number: int, most: int) -> None:
    """Say that a store is asked again in so many seconds, the time `number` of `most`."""
    said = f"{url} asks for fewer requests: asked again in {seconds:.0f} s ({number} of {most} times)"
    log.warning("%s", said)
    if _WAITS.listener is not None:
        _WAITS.listener(said)


def say_over() -> None:
    """Say that a store answers again."""
    if _WAITS.listener is not None:
        _WAITS.listener(None)
