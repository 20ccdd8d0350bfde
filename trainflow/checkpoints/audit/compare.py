"""Two checkpoints, of a chain or of two branches, side by side: their scores over the watermark, and their lineages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from trainflow.checkpoints.audit.lineage import Lineage, LineageStep
from trainflow.checkpoints.ledger.entries import Checkpoint, HoleFilled


class ComparedScore(msgspec.Struct, frozen=True):
    """What both were measured at one watermark; None: that line has no checkpoint there, or it was not scored."""

    watermark: datetime
    a: dict[str, float] | None
    b: dict[str, float] | None


class ChangedPartition(msgspec.Struct, frozen=True):
    """One partition that both were trained on, with another content."""

    a: LineageStep
    b: LineageStep


class Comparison(msgspec.Struct, frozen=True):
    """What sets two checkpoints apart. `common` counts partitions with the same content.

    `measured` says what the scores are, the same for both and for all of them: by `evaluation`, each line's checkpoint
    before, on the samples that end at the watermark and that it had not seen; or, where nothing ever was evaluated, by
    `training`: the trainer's own metrics.
    """

    scores: list[ComparedScore]
    measured: Literal["evaluation", "training"]
    only_a: list[LineageStep]
    only_b: list[LineageStep]
    changed: list[ChangedPartition]
    common: int


def compare(line_a: Iterable[Checkpoint], line_b: Iterable[Checkpoint], a: Lineage, b: Lineage) -> Comparison:
    """Compare; the lines are those that lead to the two checkpoints, in any order."""
    first, second = list(line_a), list(line_b)
    measured: Literal["evaluation", "training"] = (
        "evaluation" if any(entry.evaluation for entry in (*first, *second)) else "training"
    )
    scores_a, scores_b = _scores(first, measured), _scores(second, measured)
    steps_a, steps_b = _by_time(a.steps), _by_time(b.steps)
    both = [(steps_a[time], steps_b[time]) for time in sorted(steps_a.keys() & steps_b.keys())]
    return Comparison(
        scores=[
            ComparedScore(watermark, scores_a.get(watermark), scores_b.get(watermark))
            for watermark in sorted(scores_a.keys() | scores_b.keys())
        ],
        measured=measured,
        only_a=[steps_a[time] for time in sorted(steps_a.keys() - steps_b.keys())],
        only_b=[steps_b[time] for time in sorted(steps_b.keys() - steps_a.keys())],
        changed=[ChangedPartition(one, other) for one, other in both if one.fingerprint != other.fingerprint],
        common=sum(one.fingerprint == other.fingerprint for one, other in both),
    )


def _scores(line: Iterable[Checkpoint], measured: str) -> dict[datetime, dict[str, float]]:
    """A filled hole says nothing about its watermark, which was there before; an evaluation that was skipped, nothing
    at all."""
    found = {
        entry.watermark: dict(entry.evaluation if measured == "evaluation" else entry.metrics)
        for entry in line
        if not isinstance(entry, HoleFilled)
    }
    return {watermark: metrics for watermark, metrics in found.items() if metrics}


def _by_time(steps: Sequence[LineageStep]) -> dict[tuple[datetime, datetime], LineageStep]:
    """A partition that was eaten in two chains counts as the later one was."""
    return {(step.start, step.end): step for step in steps}
