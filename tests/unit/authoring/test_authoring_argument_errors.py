"""Wrong arguments of what a pipeline file constructs: refused in our words, never by an error of Python's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import trainflow.operators
from trainflow import DAG, Param, TaskGroup
from trainflow.authoring.decorators import dag, task
from trainflow.authoring.operator import BaseOperator
from trainflow.errors import InputError, UnexpectedArgument
from trainflow.operators import BashOperator, CheckpointOperator, DataCheckerOperator, EmptyOperator, Samples

OPERATORS = [
    each
    for each in (getattr(trainflow.operators, name) for name in trainflow.operators.__all__)
    if isinstance(each, type) and issubclass(each, BaseOperator)
]
WRONG = (3, -1.5, True, None, "x", "", [1], {"a": 1}, {1: 2}, object(), b"x")


def valid(head: Any) -> dict[str, dict[str, Any]]:
    """What each operator needs."""
    samples = Samples(path="d/{start:%Y-%m-%d}/", length_seconds=86400, start=datetime(2024, 1, 1, tzinfo=UTC))
    trains: dict[str, Any] = {"function": "operators.a:f", "checkpoint": head, "split": head}
    return {
        "AfterCommitOperator": {"function": "operators.a:f", "checkpoint": head, "committed": head},
        "BashOperator": {"bash_command": "true"},
        "CommitCheckpointOperator": {"checkpoint": head, "split": head, "trained": head},
        "DataCheckerOperator": {"samples": samples, "checkpoint": head},
        "EvaluateOperator": trains,
        "PythonOperator": {"python_callable": lambda *args, **kwargs: None},
        "TrainOperator": trains,
        "TriggerDagRunOperator": {"trigger_dag_id": "other"},
    }


def fails_in_our_words(make: Callable[[], Any]) -> None:
    """It may be accepted; what is not is an InputError."""
    with contextlib.suppress(InputError):
        make()


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda each: each.__name__)
def test_operator_any_wrong_argument_is_accepted_or_input_error(operator: Any) -> None:
    for name in sorted(operator.accepted_arguments()):
        for value in WRONG:
            with DAG("d"):
                given = {"task_id": "t", **valid(CheckpointOperator(task_id="c").output).get(operator.__name__, {})}
                fails_in_our_words(lambda given=given, name=name, value=value: operator(**{**given, name: value}))


@pytest.mark.parametrize("operator", [BaseOperator, *OPERATORS], ids=lambda each: each.__name__)
def test_operator_called_wrongly_names_what_it_takes(operator: Any) -> None:
    with DAG("d"):
        with pytest.raises(UnexpectedArgument, match=r"'q' is given without a name\. Did you mean task_id='q'\?"):
            operator("q")
        with pytest.raises(InputError, match="no dynamic task mapping"):
            operator.partial()
        with pytest.raises(InputError, match="no dynamic task mapping"):
            operator.expand(x=[1])


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (DAG, ("dag_id", "description", "schedule", "default_args", "params", "max_active_runs", "max_active_tasks",
               "dagrun_timeout", "fail_fast", "tags", "doc_md", "is_paused_upon_creation", "user_defined_macros",
               "user_defined_filters", "render_template_as_native_obj")),
        (TaskGroup, ("group_id", "prefix_group_id", "default_args", "parent_group", "dag")),
        (Param, ("default", "description", "type", "enum", "minimum", "pattern")),
    ],
)  # fmt: skip
def test_container_any_wrong_argument_is_accepted_or_input_error(make: Any, names: tuple[str, ...]) -> None:
    needed = {DAG: {"dag_id": "d"}, TaskGroup: {"group_id": "g"}}.get(make, {})
    for name in names:
        for value in WRONG:
            with DAG("around"):
                fails_in_our_words(lambda name=name, value=value: make(**{**needed, name: value}))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"retries": "3"}, "retries: '3' is no whole number"),
        ({"retry_delay": "5"}, "retry_delay: '5' is no duration; give a timedelta or a number of seconds"),
        ({"pool": 3}, "pool: 3 is no string"),
        ({"trigger_rule": "all_sucess"}, "trigger_rule: 'all_sucess' is unknown. Did you mean 'all_success'?"),
        ({"priority_weight": "1"}, "priority_weight: '1' is no whole number"),
        ({"execution_timeout": "1h"}, "execution_timeout: '1h' is no duration"),
        ({"depends_on_past": "no"}, "depends_on_past: 'no' is neither True nor False"),
        ({"params": [1]}, "params: [1] is no dict; give {name: value}"),
        ({"default_args": "a"}, "default_args: 'a' is no dict"),
        ({"dag": "d"}, "dag='d' is no DAG"),
        ({"task_group": "g"}, "'g' is no TaskGroup"),
        ({"task_id": 3}, "3 cannot name a task"),
        ({"retrys": 3}, "has no argument 'retrys'. Did you mean 'retries'?"),
    ],
)
def test_well_known_argument_says_what_is_accepted(given: dict[str, Any], says: str) -> None:
    with DAG("d"), pytest.raises(InputError) as caught:
        EmptyOperator(**{"task_id": "t", **given})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: DAG(), "DAG needs dag_id. Accepted: dag_id, description"),
        (lambda: DAG("a", "b"), "DAG: 'b' is given without a name"),
        (lambda: DAG("a", max_active_runs="3"), "max_active_runs: '3' is no whole number"),
        (lambda: DAG("a", tags="x"), "tags='x' is no list; give a list of strings"),
        (lambda: TaskGroup(), "TaskGroup needs group_id"),
        (lambda: Param(1, "text", 3), "Param: 3 is given without a name"),
        (lambda: BashOperator(task_id="t"), "BashOperator needs bash_command"),
        (lambda: BashOperator(task_id="t", bash_command="x", env=[1]), "env: [1] is not a dict or None"),
        (
            lambda: DataCheckerOperator(samples={"path": "a/"}),
            "samples: {'path': 'a/'} is not a Samples(…) of trainflow.operators",
        ),
        (lambda: task(lambda: 0).expand(x=[1]), "no dynamic task mapping"),
        (lambda: dag("d")(lambda: None)(1), "1 is given without a name"),
        (lambda: dag(3), "@dag(3): give the DAG's id"),
    ],
)  # fmt: skip
def test_call_that_cannot_be_says_what_to_write(call: Callable[[], Any], says: str) -> None:
    with DAG("around"), pytest.raises(InputError) as caught:
        call()
    assert says in str(caught.value)


def test_error_of_users_own_constructor_stays_what_it_is() -> None:
    class Own(BaseOperator):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            len(3)  # type: ignore[arg-type]

    with DAG("d"), pytest.raises(TypeError, match="has no len"):
        Own(task_id="t")
