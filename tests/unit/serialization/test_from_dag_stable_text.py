"""Values as people may see them in a document."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from trainflow.authoring.operator import BaseOperator
from trainflow.identifiers import canonical_json
from trainflow.samples.spec import Ready
from trainflow.serialization.from_dag import stable
from trainflow.states import TriggerRule


@dataclass
class Data:
    n: int
    password: str = "hidden"


def function():
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (float("inf"), "inf"),
        ((1, [2]), [1, [2]]),
        ({3, 1, 2}, [1, 2, 3]),
        ({"b", "a", 1}, ["a", "b", 1]),
        ({1: "x"}, {"1": "x"}),
        (TriggerRule.ALWAYS, "always"),
        (datetime(2013, 1, 1, tzinfo=UTC), "2013-01-01T00:00:00+00:00"),
        (date(2013, 1, 1), "2013-01-01"),
        (timedelta(minutes=1), 60.0),
        (Path("a/b"), "a/b"),
        (Ready(marker="_OK"), {"marker": "_OK", "unfinished_seconds": 600.0}),
        (Data(1), {"n": 1, "password": "***"}),
        (json.dumps, "json:dumps"),
        (functools.partial(json.dumps, indent=2), {"function": "json:dumps", "args": [], "kwargs": {"indent": 2}}),
        (timedelta, "datetime:timedelta"),
        (object(), "<builtins:object>"),
        ("postgres://me:pw@host/db and https://h/a:b@c", "postgres://me:***@host/db and https://h/a:b@c"),
        ({"storage_options": {"key": "AKIA", "secret": "s"}}, {"storage_options": {"key": "***", "secret": "***"}}),
        ({"DB_PASSWORD": "x", "api_key": None, "tokens": 5}, {"DB_PASSWORD": "***", "api_key": None, "tokens": 5}),
    ],
)
def test_stable_value_is_shown(value, expected):
    result = stable(value)
    assert result == expected
    canonical_json(result)


def test_very_long_text_is_told_apart_by_its_digest():
    one, other = stable("x" * 100_000), stable("x" * 100_000 + "y")
    assert len(one) < 10_000
    assert one != other


def test_stable_object_of_dag_file_has_no_module():
    assert stable(function, __file__) == "function"
    assert stable(function).endswith(":function")
    assert stable(lambda: 1, __file__).endswith("<lambda>")


def test_output_is_written_as_expression_it_stands_for():
    task = BaseOperator(task_id="t")
    assert stable([task.output["k"]]) == ["{{ ti.xcom_pull(task_ids='t', key='k') }}"]
