"""What is kept of rendered template fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from trainflow.authoring.operator import BaseOperator
from trainflow.execution.task_instance import rendered_fields
from trainflow.observability.redacted_output import hide_values


class _Step(BaseOperator):
    template_fields: ClassVar[Sequence[str]] = ("first", "second")

    def __init__(self, *, first: Any, second: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.first = first
        self.second = second

    def execute(self, context: Any) -> None:
        """Never asked."""


class _Odd:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def _kept(value: Any) -> Any:
    return rendered_fields(_Step(task_id="t", first=value))["first"]


@pytest.mark.parametrize("value", ["text", 3, 0.5, True, ["a", 1], {"rows": [1, 2]}])
def test_small_value_is_kept_as_it_is(value: Any) -> None:
    assert _kept(value) == value


def test_field_without_value_is_left_out() -> None:
    assert rendered_fields(_Step(task_id="t", first="x")) == {"first": "x"}


@pytest.mark.parametrize(("value", "most"), [("x" * 100_000, 4_100), (["x" * 100] * 1_000, 1_100)])
def test_long_value_is_cut_and_says_so(value: Any, most: int) -> None:
    kept = _kept(value)
    assert "characters left out" in kept
    assert len(kept) < most


def test_secrets_are_masked_by_name_and_by_value() -> None:
    hide_values(["s3cr3t-of-this-task"])
    assert _kept({"password": "abc", "rows": 3}) == {"password": "***", "rows": 3}
    assert "s3cr3t" not in str(_kept("curl -H s3cr3t-of-this-task"))
    assert "s3cr3t" not in str(_kept(["s3cr3t-of-this-task"]))
    assert "hidden" not in _kept("psql postgresql://ada:hidden@host/db")


def test_object_that_has_no_words_is_told_by_its_type() -> None:
    assert _kept([_Odd()]) == "list cannot be written as JSON: RuntimeError"


def test_text_that_no_database_holds_is_escaped() -> None:
    assert _kept("a\x00b\udcff") == "a\\x00b\\udcff"
