"""What a model was trained with, compared with what it is to be trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainflow.errors import FailException, InputError
from trainflow.operators import ModelSignature

FACTS: dict[str, Any] = {
    "objective": "binary",
    "features": ["age", "hour", "price"],
    "classes": [0, 1],
    "map": {"a": 1},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a model that was trained with FACTS."""
    ModelSignature(**FACTS).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "facts",
    [
        FACTS,
        FACTS | {"map": {"a": 1}},
        FACTS | {"classes": (0, 1)},
        FACTS | {"new": "is kept from now on"},
    ],
)
def test_check_same_facts_passes(saved: Path, facts: dict[str, Any]) -> None:
    ModelSignature(**facts).check(saved)


def test_check_nothing_to_go_on_from_passes() -> None:
    ModelSignature(**FACTS).check(None)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objective": "regression"}, 'objective was "binary", and is "regression" now'),
        ({"features": ["hour", "age", "price"]}, 'features[0] was "age", and is "hour" now: the same in another order'),
        ({"features": ["age", "hour"]}, 'features is without ["price"]'),
        ({"features": ["age", "hour", "price", "x"]}, 'features is with ["x"] besides'),
        ({"features": ["age", "hour", "cost"]}, 'features is without ["price"] and with ["cost"] besides'),
        ({"features": ["age", "hour", "price", "age"]}, "features had 3 members, and has 4 now"),
        ({"classes": [0, True]}, "classes is without [1] and with [true] besides"),
        ({"classes": [1, 0]}, "classes[0] was 0, and is 1 now: the same in another order"),
        ({"classes": None}, "classes was [0,1], and is null now"),
        ({"map": {"a": 2}}, 'map was {"a":1}, and is {"a":2} now'),
        ({"map": {"a": 1.0}}, 'map was {"a":1}, and is {"a":1.0} now'),
    ],
)
def test_check_another_fact_names_it(saved: Path, changed: dict[str, Any], said: str) -> None:
    signature = ModelSignature(**(FACTS | changed))
    with pytest.raises(FailException) as raised:
        signature.check(saved)
    assert f"was trained otherwise: {said}. Many" in str(raised.value)
    signature.check(saved, accept=list(changed))


def test_check_fact_that_is_not_given_any_more_is_told(saved: Path) -> None:
    facts = {name: value for name, value in FACTS.items() if name != "objective"}
    with pytest.raises(FailException, match='objective was "binary", and is not given now'):
        ModelSignature(**facts).check(saved)
    ModelSignature(**facts).check(saved, accept={"objective"})


def test_check_several_differences_are_told_at_once(saved: Path) -> None:
    with pytest.raises(FailException, match=r"classes .*; objective "):
        ModelSignature(**(FACTS | {"objective": "x", "classes": []})).check(saved)


def test_check_where_nothing_was_saved_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"accept=\['signature'\]"):
        ModelSignature(**FACTS).check(tmp_path)
    ModelSignature(**FACTS).check(tmp_path, accept=["signature"])


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"version": 1, "facts": []}'])
def test_check_file_of_another_kind_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "signature.json").write_text(content)
    with pytest.raises(InputError, match=r"signature\.json is no signature"):
        ModelSignature(**FACTS).check(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), object(), {1: object()}, b"x"])
def test_fact_that_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="plain JSON"):
        ModelSignature(fact=value)


def test_check_order_of_values_that_python_takes_for_equal_is_told(tmp_path: Path) -> None:
    ModelSignature(flags=[1, True]).save(tmp_path)
    with pytest.raises(FailException, match=r"flags\[0\] was 1, and is true now"):
        ModelSignature(flags=[True, 1]).check(tmp_path)


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    ModelSignature(features=[f"f{number}" for number in range(500)]).save(tmp_path)
    with pytest.raises(FailException) as raised:
        ModelSignature(features=["f0"]).check(tmp_path)
    assert len(str(raised.value)) < 600


def test_save_is_readable_json_and_the_same_for_the_same_facts(saved: Path, tmp_path: Path) -> None:
    text = (saved / "signature.json").read_bytes()
    assert json.loads(text) == {"version": 1, "facts": FACTS}
    ModelSignature(**dict(reversed(FACTS.items()))).save(tmp_path)
    assert (tmp_path / "signature.json").read_bytes() == text
