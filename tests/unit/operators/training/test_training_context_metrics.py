"""What functions may return, and how it survives JSON."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainflow.errors import TaskError
from trainflow.execution.attempt_ending import is_programming_error
from trainflow.operators.training.save_points import Saved
from trainflow.operators.training.training_context import (
    ParentCheckpoint,
    checked_metrics,
    metrics_from_xcom,
    metrics_to_xcom,
    seed_of,
)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": True}, {"a": 1.0}),
        ({"a": np.float32(0.5), "b": np.int64(3), "c": np.array([2.0])[0]}, {"a": 0.5, "b": 3.0, "c": 2.0}),
        ({"a": Decimal("0.25")}, {"a": 0.25}),
        ({"a": math.inf}, {"a": math.inf}),
    ],
)
def test_numbers_become_floats(returned: Any, expected: dict[str, float]) -> None:
    found = checked_metrics(returned, "f")
    assert found == expected
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (0.5, "returned float 0.5: return a dict"),
        ([("a", 1)], "returned list"),
        ({"a": "0.5"}, "'a' = str '0.5': a metric is a number"),
        ({"a": None}, "'a' = NoneType None"),
        ({"a": np.zeros(3)}, "'a' = ndarray"),
        (
            {"a": {"b": 1}},
            "'a' = dict .*: a metric is one number, and each has a name of its own at the top of the dict",
        ),
        ({"a": [0.3, 0.2]}, "'a' = list .*: a metric is one number: of a curve its last value"),
        ({1: 0.5}, "a metric named 1"),
        ({"": 0.5}, "a metric named ''"),
    ],
)
def test_metrics_of_other_type_are_refused_by_name(returned: Any, says: str) -> None:
    with pytest.raises(TaskError, match=says) as refused:
        checked_metrics(returned, "the training function m:f")
    # another attempt returns the same; None is the answer of a service as often as a mistake
    assert is_programming_error(refused.value, Path("/project")) == ("None" not in says)


def test_metrics_not_finite_survive_json() -> None:
    metrics = {"loss": math.nan, "top": math.inf, "bottom": -math.inf, "auc": 0.5}
    found = metrics_from_xcom(json.loads(json.dumps(metrics_to_xcom(metrics), allow_nan=False)))
    assert math.isnan(found.pop("loss"))
    assert found == {"top": math.inf, "bottom": -math.inf, "auc": 0.5}
    assert metrics_from_xcom(None) == {}


def test_seed_is_pure_function_of_chain_and_split() -> None:
    # a value that changes here would train every unfinished split in another order
    assert seed_of("model/main/main", "sha256:00") == 1045451972
    seeds = {seed_of(chain, split) for chain in ("a/b/c", "a/b/d") for split in ("sha256:00", "sha256:01")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(
    "opened", [ParentCheckpoint("id", 1, datetime(2024, 1, 1, tzinfo=UTC), Path("/a/b")), Saved({}, Path("/a/b"))]
)
def test_parent_and_save_stand_for_their_folder(opened: ParentCheckpoint | Saved) -> None:
    assert opened / "model.bin" == Path("/a/b/model.bin") == Path(opened, "model.bin")
