"""Which requests to a store are made again, and when: those it throttles, and those that failed on their way. That a
store that asks for fewer requests is waited for is said, in the log and to a listener."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from trainflow.storage.errors import is_throttled, is_transient

log = logging.getLogger(__name__)

T = TypeVar("T")
Listener = Callable[[str | None], None]

#: how often a call is made, to a store that asks for fewer requests, before its error counts
TRIES = 6
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 30.0
#: the same for a request that failed on its way
_TRIES_ON_THE_WAY, _FIRST_WAIT_ON_THE_WAY_SECONDS = 4, 0.2


class _Waits:
    """One for a process: an attempt shows what it waits for beside how far it is."""

    listener: Listener | None = None


_WAITS = _Waits()


def tell_waits(listener: Listener | None) -> None:
    """Have a listener told, by the thread that waits, what it waits for from now on, and None when that is over."""
    _WAITS.listener = listener


def _say_wait(url: str, seconds: float, number: int, most: int) -> None:
    """Say that a store is asked again in so many seconds, the time `number` of `most`."""
    said = f"{url} asks for fewer requests: asked again in {seconds:.0f} s ({number} of {most} times)"
    log.warning("%s", said)
    if _WAITS.listener is not None:
        _WAITS.listener(said)


def _say_over() -> None:
    """Say that a store answers again."""
    if _WAITS.listener is not None:
        _WAITS.listener(None)


def retried(call: Callable[[], T], sleep: Callable[[float], None], tries: int | None = None, url: str = "") -> T:
    """What `call` returns. Raises its error at once, or after `TRIES` times when the store asked for patience, or after
    `tries` times when the request failed on its way. That the store at `url` is waited for is said.

    A refused request has done nothing; a create of which the reply was lost before it says that the file exists.
    """
    on_the_way = _TRIES_ON_THE_WAY if tries is None else tries
    throttled = failed = 0
    while True:
        try:
            found = call()
        except Exception as error:
            if is_throttled(error) and throttled < TRIES - 1:
                wait = min(_FIRST_WAIT_SECONDS * 2**throttled, _LONGEST_WAIT_SECONDS)
                throttled += 1
                _say_wait(url, wait, throttled, TRIES - 1)
            elif is_transient(error) and failed < on_the_way - 1:
                wait = _FIRST_WAIT_ON_THE_WAY_SECONDS * 2**failed
                failed += 1
            else:
                raise
        else:
            if throttled:
                _say_over()
            return found
        # between half and all of it: writers who were refused together do not come back together
        import random  # here: a forked attempt that nothing throttles does without

        sleep(wait * random.uniform(0.5, 1.0))
