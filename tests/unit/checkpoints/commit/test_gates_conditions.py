from __future__ import annotations

import math

import pytest

from trainflow.checkpoints.commit.gates import parse_condition
from trainflow.errors import InputError


@pytest.mark.parametrize(
    ("text", "value", "previous", "passes"),
    [
        ("auc >= 0.6", 0.6, None, True),
        ("auc >= 0.6", 0.599, None, False),
        ("auc > 0.6", 0.6, None, False),
        ("auc<=.5", 0.5, None, True),
        ("auc < 1e-3", 0.0005, None, True),
        ("auc > -1", -2.0, None, False),
        ("auc == 3", 3.0, None, True),
        ("auc >= 0.98 * previous", 0.98, 1.0, True),
        ("auc >= 0.98 * previous", 0.97, 1.0, False),
        ("auc >= 0.98*previous", 0.1, None, True),
        ("auc <= previous + 0.01", 1.01, 1.0, True),
        ("auc <= previous + 0.01", 1.02, 1.0, False),
        ("auc >= previous - 0.1", 0.95, 1.0, True),
        ("auc >= previous - 0.1", 0.85, 1.0, False),
        ("auc <= 2 * previous + 1", 3.0, 1.0, True),
        ("auc <= 2 * previous + 1", 3.5, 1.0, False),
        ("auc >= previous", math.nan, 1.0, False),
        ("auc >= previous", 0.1, math.nan, True),
        ("auc >= 0", math.nan, None, False),
        ("auc is finite", 1.0, None, True),
        ("auc is finite", math.nan, None, False),
        ("auc  is  finite ", -math.inf, None, False),
    ],
)
def test_condition_is_met_or_not(text: str, value: float, previous: float | None, passes: bool) -> None:
    before = {} if previous is None else {"auc": previous}

    failure = parse_condition(text).failure({"auc": value}, before)

    assert (failure is None) is passes


@pytest.mark.parametrize("name", ["auc", "val/auc", "precision@10", "train.loss", "f1-macro", "_x"])
def test_metrics_are_named_as_people_name_them(name: str) -> None:
    assert parse_condition(f"{name} >= 0.5").metric == name


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        (">= 0.5", 1),
        ("auc", 4),
        ("auc => 0.5", 5),
        ("auc >= half", 8),
        ("auc >= ", 8),
        ("auc is fine", 5),
        ("auc >= previous * 0.98", 8),
        ("auc >= 0.5 or loss < 1", 8),
        ("auc >= 0.98 * before", 8),
    ],
)
def test_bad_condition_says_where_and_shows_good_ones(text: str, column: int) -> None:
    with pytest.raises(InputError, match=f"at column {column}, ") as caught:
        parse_condition(text)

    assert '"auc >= 0.6"' in str(caught.value)


def test_missing_metric_fails_and_message_names_what_there_is() -> None:
    failure = parse_condition("acu >= 0.6").failure({"loss": 1.0, "auc": 0.7}, {})

    assert failure == "acu >= 0.6: there is no metric 'acu' (there are: auc, loss); did you mean 'auc'?"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("auc >= 0.6", "auc >= 0.6: it is 0.5"),
        ("auc >= 0.98 * previous", "auc >= 0.98 * previous: it is 0.5, the limit is 0.882 (previous: 0.9)"),
    ],
)
def test_failure_is_told_with_numbers(text: str, told: str) -> None:
    assert parse_condition(text).failure({"auc": 0.5}, {"auc": 0.9}) == told
