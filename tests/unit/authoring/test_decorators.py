"""@dag, @task, @task_group, @setup, @teardown."""

from __future__ import annotations

from typing import Any

import pytest

from trainflow.authoring.context import Context
from trainflow.authoring.dag import DAG
from trainflow.authoring.decorators import dag, setup, task, task_group, teardown
from trainflow.errors import InputError, UnexpectedArgument
from trainflow.states import TriggerRule


@task
def load(day: str = "today") -> str:
    return day


@task(retries=2, pool="big")
def train(rows, *, seed=0, ti=None, params=None, **others):
    return rows, seed, ti, params, sorted(others)


def test_calling_makes_task_and_passing_output_edge():
    with DAG("d") as made:
        first = load()
        second = train(first, seed=load.override(task_id="other", retries=7)("x"))
    assert second.operator.upstream_task_ids == {"load", "other"}
    assert (second.operator.retries, second.operator.pool) == (2, "big")
    assert made.get_task("other").retries == 7
    assert made.get_task("load").retries == 0


def test_second_call_gets_another_id():
    with DAG("d") as made:
        load()
        load()
        load.override(task_id="mine")()
        load.override(task_id="mine")()
    assert made.task_ids == ["load", "load__1", "mine", "mine__1"]


def test_task_called_wrongly_is_told_when_dag_is_written():
    with DAG("d"):
        with pytest.raises(InputError, match=r"task 'load': load\(day.*unexpected keyword argument 'dey'"):
            load(dey=1)
        with pytest.raises(InputError, match="missing argument 'rows'"):
            train()
        with pytest.raises(UnexpectedArgument, match="'retrys'"):
            load.override(retrys=1)()


def test_async_functions_are_refused():
    @task
    async def wait():
        pass

    with DAG("d"), pytest.raises(InputError, match="async"):
        wait()


def test_task_outside_dag_only_plain_function_works():
    with pytest.raises(InputError, match="outside of a DAG"):
        load()
    assert load.function("x") == "x"
    assert load.__name__ == "load"


def test_context_arrives_by_name():
    context: Any = {"ti": "TI", "params": {"p": 1}, "ds": "2013-01-01", "run_id": "r"}
    with DAG("d"):
        operator = train(5).operator
        chosen = train(5, ti="mine").operator
    assert operator.execute(context) == (5, 0, "TI", {"p": 1}, ["ds", "run_id"])
    assert chosen.execute(context)[2] == "mine"


def test_task_required_parameter_may_be_context_key():
    @task
    def dated(ds, logical_date="none"):
        return ds, logical_date

    with DAG("d"):
        operator = dated().operator
    assert operator.execute({"ds": "2013-01-01"}) == ("2013-01-01", "none")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [(dict, True), (dict[str, int], True), ("dict[str, int]", True), ("typing.Mapping[str, int]", True),
     (list, False), ("list[dict]", False), (None, False), ("str", False)],
)  # fmt: skip
def test_dict_annotation_means_multiple_outputs(annotation, expected):
    def function():
        return {}

    function.__annotations__["return"] = annotation
    with DAG("d"):
        assert task(function)().operator.multiple_outputs is expected
        assert task(multiple_outputs=False)(function)().operator.multiple_outputs is False


def test_dag_makes_dag_from_function():
    @dag(tags=["t"], max_active_runs=1)
    def pipeline(day="monday"):
        """What it is for."""
        load(day)

    @dag
    def plain():
        load()

    @dag("named")
    def other():
        load()

    made = pipeline("friday")
    assert (made.dag_id, made.tags, made.max_active_runs, made.doc_md) == ("pipeline", ["t"], 1, "What it is for.")
    assert made.get_task("load").op_args == ("friday",)
    assert made.fileloc == __file__
    assert (plain().dag_id, other().dag_id) == ("plain", "named")


def test_task_group_from_function():
    @task_group
    def both(value):
        load(value)
        return load(value)

    @task_group(group_id="named", default_args={"retries": 9})
    def nothing():
        load()

    with DAG("d") as made:
        result = both("x")
        group = nothing()
        both("y")
        result >> group
    assert made.task_ids == ["both.load", "both.load__1", "named.load", "both__1.load", "both__1.load__1"]
    assert made.get_task("named.load").upstream_task_ids == {"both.load__1"}
    assert made.get_task("named.load").retries == 9


def test_setup_and_teardown():
    @setup
    def make():
        pass

    @teardown
    @task(retries=3)
    def drop():
        pass

    with DAG("d"):
        made = make()
        dropped = drop().as_teardown(setups=made)
        made >> load() >> dropped
    assert made.operator.is_setup
    assert dropped.operator.is_teardown
    assert dropped.operator.retries == 3
    assert dropped.operator.trigger_rule is TriggerRule.ALL_DONE_SETUP_SUCCESS
    assert dropped.operator.upstream_task_ids == {"make", "load"}


def test_options_are_keywords():
    with pytest.raises(InputError, match="options are keywords"):
        task("name")


def test_context_names_are_those_of_agreement():
    assert {"dag", "dag_run", "run_id", "ti", "task_instance", "task", "params", "logical_date", "ds", "ts"} <= set(
        Context.__annotations__
    )
