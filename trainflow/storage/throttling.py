"""Patience with a store that asks for fewer requests: wait, a little longer each time, and give up in the end."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: how often a call is made before its error counts
TRIES = 6
_FIRST_SECONDS = 1.0
_MOST_SECONDS = 30.0
_STATUSES = {429, 503}
_WORDS = ("SlowDown", "TooManyRequests", "Throttling", "RequestLimitExceeded", "reduce your request rate")


def retry_throttled(call: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """What `call` returns. Raises its error at once, or after `TRIES` times when the store asked for patience.

    A refused request has done nothing; a create of which the reply was lost before it says that the file exists.
    """
    for number in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            if not is_throttled(error):
                raise
        sleep(retry_delay_seconds(number))
    return call()


def retry_delay_seconds(number: int) -> float:
    """Seconds to wait after failure `number` (from 0): between half and all of a doubling time, so that writers who
    were refused together do not come back together."""
    whole = min(_FIRST_SECONDS * 2**number, _MOST_SECONDS)
    return float(whole * random.uniform(0.5, 1.0))


def is_throttled(error: BaseException) -> bool:
    """Whether the store refused because it is asked too much. Each driver says so in its own way."""
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return True
    statuses = {getattr(error, name, None) for name in ("status", "code", "status_code")}
    return bool(_STATUSES & {each for each in statuses if isinstance(each, int)}) or any(
        word in str(error) for word in _WORDS
    )
