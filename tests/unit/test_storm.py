"""A storm is worth nothing when it does not see what is wrong with a model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.storm.rounds import values_of
from tests.storm.shapes import SHAPES, Model, problems_of
from tests.support.tiny_project import ROWS_A_DAY

DAYS = 3


def trained(*days: tuple[int, int]) -> Model:
    """A model that saw these days in these editions, each in an order of its own."""
    orders = [np.random.default_rng(day).permutation(ROWS_A_DAY) for day, _ in days]
    rows = [day * ROWS_A_DAY + order for (day, _), order in zip(days, orders, strict=True)]
    values = [values_of(day, edition)[order] for (day, edition), order in zip(days, orders, strict=True)]
    return Model(np.concatenate(rows), np.concatenate(values))


def problems(shape: str, stage: str, model: Model, editions: list[int]) -> list[str]:
    return problems_of(SHAPES[shape], stage, model, DAYS, editions, values_of)


@pytest.mark.parametrize(
    ("shape", "stage", "days"),
    [
        ("backfill", "main", [(0, 0), (1, 1), (2, 0)]),
        ("replay", "main", [(0, 0), (1, 1), (2, 0)]),
        ("stages", "fine", [(0, 0), (1, 1), (2, 0), (2, 0)]),
        ("stages", "fine", [(0, 0), (1, 1), (2, 0), (1, 1), (2, 0)]),
        ("stages", "once", [(0, 0), (1, 0), (2, 0), (0, 0), (1, 1), (2, 0)]),
    ],
)
def test_problems_of_right_model_is_nothing(shape: str, stage: str, days: list[tuple[int, int]]) -> None:
    assert problems(shape, stage, trained(*days), [1, 2, 1]) == []


def test_problems_of_model_that_misses_repeats_or_invents_rows() -> None:
    assert problems("backfill", "main", trained((0, 0), (2, 0)), [1, 1, 1])[0] == "row 40 was trained 0 times, not 1"
    twice = trained((0, 0), (1, 0), (1, 0), (2, 0))
    assert problems("backfill", "main", twice, [1, 1, 1])[0] == "row 40 was trained 2 times, not 1"
    assert "never published" in problems("backfill", "main", trained((0, 0), (1, 0), (2, 0), (3, 0)), [1, 1, 1])[0]
    assert problems("stages", "once", trained((0, 0), (1, 0), (2, 0)), [1, 1, 1])


def test_problems_of_day_of_two_editions_or_of_older_one() -> None:
    model = trained((0, 0), (1, 0), (2, 0))
    other = values_of(1, 1)
    mixed = model.values.copy()
    first = int(np.flatnonzero(model.rows // ROWS_A_DAY == 1)[0])
    mixed[first] = other[model.rows[first] - ROWS_A_DAY]
    assert problems("backfill", "main", Model(model.rows, mixed), [1, 2, 1]) == [
        "day 1: its rows are of no one edition"
    ]
    assert problems("backfill", "main", model, [1, 2, 1]) == []
    assert problems("replay", "main", model, [1, 2, 1]) == ["day 1: trained on edition 0, the newest is 1"]
