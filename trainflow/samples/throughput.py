"""How fast training goes, and how much of it fits into the time a run should take. Pure rules over what was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from trainflow.samples.spec import SplitLimits

#: so many of the newest runs tell how fast training goes
HISTORY = 20
#: a split is at most so many times larger than the largest of the runs it is judged by: small runs tell little of
#: large ones
GROWTH = 4


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
        seconds_a_row=median(by_rows) if by_rows else None,
        seconds_a_partition=median(each.seconds / each.partitions for each in known) if known else None,
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
            fits = target / median(each.seconds / amount for each, amount in zip(known, amounts, strict=True))
            bound = max(1, int(min(fits, GROWTH * max(amounts))))
            given = getattr(plain, name)
            return msgspec.structs.replace(plain, **{name: bound if given is None else min(bound, given)})
    raise AssertionError("every run that was has partitions")
