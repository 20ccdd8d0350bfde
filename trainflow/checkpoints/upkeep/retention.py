"""Retention: which checkpoints of a line keep their files. Values with one pure method; several keep the union.

The head is kept whatever a policy says. Checkpoints that a rewind left behind are kept by `KeepAll` only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, timedelta
from typing import Annotated, Literal

import msgspec

from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary

Count = Annotated[int, msgspec.Meta(ge=1)]


class KeepAll(msgspec.Struct, frozen=True, tag="all"):
    """Policy that deletes nothing."""

    def keep(self, line: Sequence[CheckpointSummary]) -> set[str]:
        """Ids of those of the line (from the root to the head) that stay."""
        return {summary.id for summary in line}


class KeepLatest(msgspec.Struct, frozen=True, tag="latest"):
    """The newest `count`."""

    count: Count

    def keep(self, line: Sequence[CheckpointSummary]) -> set[str]:
        """Ids of those of the line (from the root to the head) that stay."""
        return {summary.id for summary in line[-self.count :]}


class KeepEvery(msgspec.Struct, frozen=True, tag="every"):
    """Every `count`-th of the line, counted from the root: what was kept once stays kept."""

    count: Count

    def keep(self, line: Sequence[CheckpointSummary]) -> set[str]:
        """Ids of those of the line (from the root to the head) that stay."""
        return {summary.id for summary in line if summary.place % self.count == 0}


class KeepBest(msgspec.Struct, frozen=True, tag="best"):
    """The best `count` by a metric: by the score on samples not seen before where there are any, else by the trainer's.

    Of equals the newer one is better.
    """

    metric: str
    mode: Literal["max", "min"] = "max"
    count: Count = 1

    def keep(self, line: Sequence[CheckpointSummary]) -> set[str]:
        """Ids of those of the line (from the root to the head) that stay."""
        scored = any(self.metric in summary.scores for summary in line)
        values = [
            ((summary.scores if scored else summary.metrics).get(self.metric), summary.sequence, summary.id)
            for summary in line
        ]
        sign = 1.0 if self.mode == "max" else -1.0
        known = sorted((sign * value, sequence, name) for value, sequence, name in values if value is not None)
        return {name for _, _, name in known[-self.count :]}


class KeepDaily(msgspec.Struct, frozen=True, tag="daily"):
    """One for each of the newest `count` days that were trained: the last of the day, by what it was trained up to."""

    count: Count

    def keep(self, line: Sequence[CheckpointSummary]) -> set[str]:
        """Ids of those of the line (from the root to the head) that stay."""
        return _last_of_each(line, self.count, lambda day: (day,))


class KeepWeekly(msgspec.Struct, frozen=True, tag="weekly"):
    """One for each of the newest `count` weeks that were trained (Monday to Sunday, UTC)."""

    count: Count

    def keep(self, line: Sequence[CheckpointSummary]) -> set[str]:
        """Ids of those of the line (from the root to the head) that stay."""
        return _last_of_each(line, self.count, lambda day: day.isocalendar()[:2])


def _last_of_each(
    line: Sequence[CheckpointSummary], count: int, period: Callable[[date], tuple[object, ...]]
) -> set[str]:
    # a watermark is exclusive: midnight is the end of the day before
    last = {period((each.watermark.astimezone(UTC) - _MOMENT).date()): each.id for each in line}
    return set(list(last.values())[-count:])


_MOMENT = timedelta(microseconds=1)
Policy = KeepAll | KeepLatest | KeepEvery | KeepBest | KeepDaily | KeepWeekly


def keeps_all(policies: Sequence[Policy]) -> bool:
    """Whether nothing ever goes."""
    return not policies or any(isinstance(policy, KeepAll) for policy in policies)


def removable(
    state: ChainState, summaries: Sequence[CheckpointSummary], policies: Iterable[Policy], pinned: Collection[str] = ()
) -> list[str]:
    """The checkpoints no policy keeps, in the order of their sequence. Never the head, a promoted or a pinned one.

    `summaries` are all kept checkpoints of the chain (`Ledger.kept`).
    """
    policies = tuple(policies)
    if keeps_all(policies):
        return []
    line = [summary for summary in summaries if summary.on_line]
    kept = {*pinned, *state.promoted.values()}.union(*(policy.keep(line) for policy in policies))
    if state.head:
        kept.add(state.head.id)
    return [summary.id for summary in summaries if summary.id not in kept]
