"""Two checkpoints, of a chain or of two branches, side by side: their scores over the watermark, their diets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from trainflow.checkpoints.diet import Diet, Meal
from trainflow.checkpoints.entries import Checkpoint, HoleFilled


class Score(msgspec.Struct, frozen=True):
    """The metrics of both at one watermark; None: that line has no checkpoint there.

    Those on samples not seen before where there are any, else the trainer's own.
    """

    watermark: datetime
    a: dict[str, float] | None
    b: dict[str, float] | None


class Changed(msgspec.Struct, frozen=True):
    """One partition that both were trained on, with another content."""

    a: Meal
    b: Meal


class Comparison(msgspec.Struct, frozen=True):
    """What sets two checkpoints apart. `common` counts partitions with the same content."""

    scores: list[Score]
    only_a: list[Meal]
    only_b: list[Meal]
    changed: list[Changed]
    common: int


def compare(line_a: Iterable[Checkpoint], line_b: Iterable[Checkpoint], a: Diet, b: Diet) -> Comparison:
    """Compare; the lines are those that lead to the two checkpoints, in any order."""
    scores_a, scores_b = _scores(line_a), _scores(line_b)
    meals_a, meals_b = _by_time(a.meals), _by_time(b.meals)
    both = [(meals_a[time], meals_b[time]) for time in sorted(meals_a.keys() & meals_b.keys())]
    return Comparison(
        scores=[
            Score(watermark, scores_a.get(watermark), scores_b.get(watermark))
            for watermark in sorted(scores_a.keys() | scores_b.keys())
        ],
        only_a=[meals_a[time] for time in sorted(meals_a.keys() - meals_b.keys())],
        only_b=[meals_b[time] for time in sorted(meals_b.keys() - meals_a.keys())],
        changed=[Changed(one, other) for one, other in both if one.fingerprint != other.fingerprint],
        common=sum(one.fingerprint == other.fingerprint for one, other in both),
    )


def _scores(line: Iterable[Checkpoint]) -> dict[datetime, dict[str, float]]:
    """A filled hole says nothing about its watermark, which was there before."""
    return {
        entry.watermark: dict(entry.evaluation or entry.metrics) for entry in line if not isinstance(entry, HoleFilled)
    }


def _by_time(meals: Sequence[Meal]) -> dict[tuple[datetime, datetime], Meal]:
    """A partition that was eaten in two chains counts as the later one was."""
    return {(meal.start, meal.end): meal for meal in meals}
