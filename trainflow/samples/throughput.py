"""How fast training goes, how much fits into the time a run should take, how far a chain is behind its samples, and
whether it will ever catch up. Pure rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from trainflow.samples.partitions import after_watermark, count_between, mean_seconds, shift
from trainflow.samples.spec import Samples, SplitLimits

#: so many of the newest runs tell how fast training goes
HISTORY = 20
#: a split is at most so many times larger than the largest of the runs it is judged by: small runs tell little of
#: large ones
GROWTH = 4
#: to be one partition behind is what following the newest looks like
_SOME_PARTITIONS = 2


class PastRun(msgspec.Struct, frozen=True):
    """A run that was: how long it took from its split to its commit, and what it trained on."""

    seconds: float
    partitions: int
    rows: int | None = None
    bytes: int | None = None


class Throughput(msgspec.Struct, frozen=True):
    """How fast training goes; None: not known."""

    seconds_a_row: float | None = None
    seconds_a_partition: float | None = None

    def estimate(self, partitions: int, rows: int | None) -> float | None:
        """Seconds that a run over so much takes."""
        if self.seconds_a_row is not None and rows:
            return self.seconds_a_row * rows
        if self.seconds_a_partition is not None:
            return self.seconds_a_partition * partitions
        return None


def throughput_of(experiences: Iterable[PastRun]) -> Throughput:
    """The median of what was: one run on a busy machine changes little."""
    known = [each for each in experiences if each.seconds > 0 and each.partitions]
    by_rows = [each.seconds / each.rows for each in known if each.rows]
    return Throughput(
        seconds_a_row=_median(by_rows) if by_rows else None,
        seconds_a_partition=_median([each.seconds / each.partitions for each in known]) if known else None,
    )


def limits_for_target(limits: SplitLimits, experiences: Sequence[PastRun]) -> SplitLimits:
    """`limits` with their target duration turned into a bound of rows, else of bytes, else of partitions: whichever
    all runs that were know. The same history gives the same bound. Without a history it is one partition."""
    target = limits.target_seconds
    if target is None:
        return limits
    plain = msgspec.structs.replace(limits, target_seconds=None)
    known = [each for each in experiences if each.seconds > 0 and each.partitions]
    if not known:
        return msgspec.structs.replace(plain, partitions=1)
    for name in ("rows", "bytes", "partitions"):
        amounts = [getattr(each, name) for each in known]
        if all(amounts):
            fits = target / _median([each.seconds / amount for each, amount in zip(known, amounts, strict=True)])
            bound = max(1, int(min(fits, GROWTH * max(amounts))))
            given = getattr(plain, name)
            return msgspec.structs.replace(plain, **{name: bound if given is None else min(bound, given)})
    raise AssertionError("every run that was has partitions")


def _median(values: Sequence[float]) -> float:
    """The middle of values, or between the two in the middle. `statistics` takes longer to import than `status` has."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


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
    enough, so a handful of questions does where counting would list all of them. Holes in between are counted too.

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
