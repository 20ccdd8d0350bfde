"""What is out of bounds is refused where it is read, by its name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.bounds import LARGEST_INTEGER, LONGEST_DURATION, MOST_NESTING, check_nesting, check_text
from trainflow.errors import InputError, PipelineFileError
from trainflow.operators.python import EmptyOperator
from trainflow.param_schema import check_json
from trainflow.pipeline_spec.yaml_reader import read_document


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("key", ["loss", "a" * 250, "größe", "val/loss", "😀", "a b"])
def test_check_text_what_every_database_holds_is_taken(key: str) -> None:
    assert check_text(key, "key") == key


@pytest.mark.parametrize("key", ["", "a" * 251, "loss ", " loss", "a\x00b", "a\nb", "\ud800", "\t", 7, None, b"x"])
def test_check_text_not_storable_is_refused_by_name(key: Any) -> None:
    with pytest.raises(InputError, match=r"^key: "):
        check_text(key, "key")


@pytest.mark.parametrize("depth", [MOST_NESTING, 300, 5_000, 200_000])
def test_check_nesting_too_deep_is_refused_without_stack(depth: int) -> None:
    value = nested(depth)
    try:
        with pytest.raises(InputError, match="nested more than"):
            check_nesting(value, "conf")
    finally:
        while value:  # freeing it takes a stack as well
            value = value.pop()


def test_check_nesting_deep_enough_for_anybody_is_taken() -> None:
    check_nesting(nested(MOST_NESTING - 1), "conf")
    check_json({"a": nested(MOST_NESTING - 2)}, "conf")


@pytest.mark.parametrize(
    "arguments",
    [
        {"dagrun_timeout": timedelta(days=9_999_999)},
        {"dagrun_timeout": LONGEST_DURATION + timedelta(seconds=1)},
        {"dagrun_timeout": 1e13},
        {"max_active_runs": 2**63},
        {"max_active_tasks": LARGEST_INTEGER + 1},
    ],
)
def test_dag_out_of_bounds_is_refused_by_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"DAG 'd': {next(iter(arguments))}"):
        DAG("d", **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"retries": 2**31},
        {"retry_delay": timedelta.max},
        {"max_retry_delay": timedelta.max},
        {"execution_timeout": timedelta.max},
        {"pool_slots": 2**200},
        {"pool": "p" * 300},
        {"pool": ""},
        {"pool": 7},
        {"queue": "a\x00b"},
        {"max_active_tis_per_dag": 2**40},
    ],
)
def test_task_out_of_bounds_is_refused_by_name(arguments: dict[str, Any]) -> None:
    with DAG("d"), pytest.raises(InputError, match=f"task 't': {next(iter(arguments))}"):
        EmptyOperator(task_id="t", **arguments)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 300 + "]" * 300,
        "a: " + "[" * 100_000 + "]" * 100_000,
        "a: " + "{b: " * 300 + "1" + "}" * 300,
        "\n".join(" " * depth + "a:" for depth in range(300)) + " 1",
        "- " * 300 + "a",
        "a0: &a0 [1]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(300)),
    ],
)
def test_yaml_nested_too_deeply_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(
        PipelineFileError, match=r"p\.yaml:\d+:\d+: .*(nested more than 100 times|maximum nesting depth)"
    ):
        read_document(text, "p.yaml")
