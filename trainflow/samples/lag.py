"""How far a chain is behind its samples, and whether it will ever catch up. Pure rules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from trainflow.samples.partitions import after_watermark, count_between, mean_seconds, shift
from trainflow.samples.spec import Samples

#: to be one partition behind is what following the newest looks like
_SOME_PARTITIONS = 2


class Lag(msgspec.Struct, frozen=True):
    """What is ready beyond a watermark: partitions, and the time they span in seconds."""

    partitions: int
    seconds: float


class CatchUpEstimate(msgspec.Struct, frozen=True):
    """Whether training overtakes the samples. `seconds`: until it has caught up; None: never, or not known."""

    never: bool
    seconds: float | None


def lag_behind(
    samples: Samples, watermark: datetime | None, is_ready: Callable[[datetime], bool], now: datetime
) -> Lag:
    """How far the newest ready partition is ahead of the watermark, found by halving: partitions arrive in order, near
    enough, so a handful of questions does where pluralize would list all of them. Holes in between are counted too.

    Raises InputError for a watermark inside a partition, and what `is_ready` raises.
    """
    first = after_watermark(samples, watermark)
    # the partition of the present is the last one that can be there
    count = count_between(samples, first, now)
    ready, missing = 0, count + 1
    step = count
    while missing - ready > 1:
        if is_ready(shift(samples, first, step - 1)):
            ready = step
        else:
            missing = step
        step = (ready + missing) // 2
    return Lag(ready, (shift(samples, first, ready) - first).total_seconds())


def estimate_catch_up(samples: Samples, lag: int, seconds_a_partition: float | None, now: datetime) -> CatchUpEstimate:
    """What comes of `lag` partitions when each takes `seconds_a_partition` (None: not known) and, while the table goes
    on, another one arrives every partition's length."""
    if lag == 0:
        return CatchUpEstimate(False, 0.0)
    if seconds_a_partition is None:
        return CatchUpEstimate(False, None)
    if samples.end is not None and samples.end <= now:
        return CatchUpEstimate(False, lag * seconds_a_partition)
    busy = seconds_a_partition / mean_seconds(samples)
    if busy >= 1:
        return CatchUpEstimate(lag >= _SOME_PARTITIONS, None)
    return CatchUpEstimate(False, lag * seconds_a_partition / (1 - busy))
