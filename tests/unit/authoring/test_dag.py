"""DAG and operator construction: registration, default_args, refusals, edges."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from trainflow.authoring.dag import DAG, collecting_dags
from trainflow.authoring.graph import chain, cross_downstream
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.task_group import TaskGroup
from trainflow.authoring.xcom_arg import XComArg
from trainflow.errors import DagDefinitionError, InputError, TrainflowError, UnexpectedArgument
from trainflow.operators.python import EmptyOperator
from trainflow.states import TriggerRule


class Step(BaseOperator):
    template_fields = ("value",)

    def __init__(self, value=None, *, interval=1, **kwargs):
        super().__init__(**kwargs)
        self.value = value
        self.interval = interval


def edges(dag):
    return {(before, task) for task, all_before in dag.graph().upstream.items() for before in all_before}


def test_operators_belong_to_innermost_open_dag():
    with DAG("outer") as outer:
        first = Step(task_id="a")
        with DAG("inner") as inner:
            second = Step(task_id="a")
        third = Step(task_id="b")
    outside = Step(task_id="c")
    given = Step(task_id="d", dag=inner)
    assert outer.tasks == [first, third]
    assert inner.tasks == [second, given]
    assert not outside.has_dag()
    with pytest.raises(InputError, match="'c' belongs to no DAG"):
        outside >> first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "@daily"}, "TriggerDagRunOperator"),
        ({"max_active_runs": 0}, "max_active_runs: 0 is less than 1"),
        ({"max_active_tasks": True}, "max_active_tasks: True is no whole number"),
        ({"dagrun_timeout": -1}, "dagrun_timeout"),
        ({"tags": "one"}, "give a list"),
        ({"params": {"x": object()}}, "param 'x'"),
        ({"catchup": False}, "'catchup'.*no schedule"),
        ({"max_active_run": 1}, "Did you mean 'max_active_runs'"),
    ],
)
def test_dag_with_bad_argument_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        DAG("d", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "retries: -1"),
        ({"retries": "2"}, "no whole number"),
        ({"retry_delay": "5m"}, "no duration"),
        ({"retry_exponential_backoff": 0.5}, "0.5 is neither"),
        ({"pool_slots": 0}, "pool_slots"),
        ({"trigger_rule": "all_sucess"}, "Did you mean 'all_success'.*none_failed"),
        ({"weight_rule": "sideways"}, "Allowed: downstream, upstream, absolute"),
        ({"execution_timeout": 0}, "more than zero"),
        ({"max_active_tis_per_dag": 0}, "max_active_tis_per_dag"),
        ({"retrys": 1}, r"task 't' \(Step\) has no argument 'retrys'. Did you mean 'retries'"),
        ({"email": "me"}, "no e-mail"),
    ],
)
def test_operator_refuses_and_leaves_nothing_behind(options, message):
    with DAG("d") as dag:
        with pytest.raises(InputError, match=message):
            Step(task_id="t", **options)
        assert dag.tasks == []


def test_unknown_keyword_is_also_type_error():
    with pytest.raises(TypeError) as caught:
        Step(task_id="t", intervall=3)
    assert isinstance(caught.value, UnexpectedArgument)
    assert isinstance(caught.value, TrainflowError)
    assert caught.value.argument == "intervall"
    assert "'interval'" in str(caught.value)


def test_durations_are_timedeltas_or_seconds():
    task = Step(task_id="t", retry_delay=90, execution_timeout=timedelta(minutes=2), retry_exponential_backoff=True)
    assert (task.retry_delay, task.execution_timeout) == (timedelta(seconds=90), timedelta(seconds=120))
    assert task.retry_exponential_backoff == 2.0


def test_default_args_reach_every_constructor_and_nearest_wins():
    with DAG("d", default_args={"retries": 3, "interval": 7, "value": "v", "pool": "p"}) as dag:
        plain = Step(task_id="plain")
        positional = Step("mine", task_id="positional", interval=9)
        own = Step(task_id="own", default_args={"retries": 5}, pool="q")
    assert (plain.retries, plain.interval, plain.value, plain.pool) == (3, 7, "v", "p")
    assert (positional.value, positional.interval) == ("mine", 9)
    assert (own.retries, own.pool) == (5, "q")
    dag.validate()


def test_default_arg_that_no_task_takes_is_refused():
    with DAG("d", default_args={"intervall": 7}) as dag:
        Step(task_id="t")
    with pytest.raises(UnexpectedArgument, match=r"default_args.*'intervall'.*Did you mean 'interval'"):
        dag.validate()


def test_constructor_that_forgets_super_is_told():
    class Forgetful(BaseOperator):
        def __init__(self, **kwargs):
            pass

    with pytest.raises(InputError, match=r"Forgetful.__init__ must call super"):
        Forgetful(task_id="t")


def test_task_id_names_one_task():
    with DAG("d"):
        Step(task_id="same")
        with pytest.raises(DagDefinitionError, match="'same' cannot name a second one") as caught:
            Step(task_id="same")
    assert caught.value.task_ids == ("same",)


@pytest.mark.parametrize("task_id", ["", "with space", "a/b", "x" * 251, "ü"])
def test_task_id_is_name(task_id):
    with pytest.raises(InputError, match="cannot name a task"):
        Step(task_id=task_id)


def test_get_task_suggests():
    with DAG("d") as dag:
        Step(task_id="train")
    assert dag.get_task("train").task_id == "train"
    with pytest.raises(DagDefinitionError, match=r"no task 'trian'. Did you mean 'train'"):
        dag.get_task("trian")


def test_edges_from_operators_lists_and_functions():
    with DAG("d") as dag:
        a, b, c, d, e, f = (Step(task_id=name) for name in "abcdef")
        a >> [b, c] >> d << e
        chain([a, e], [b, f])
        cross_downstream([a], [d, f])
        f << [c]
    assert edges(dag) == {
        ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("e", "d"), ("e", "f"), ("a", "d"), ("a", "f"), ("c", "f"),
    }  # fmt: skip
    assert b.upstream_task_ids == {"a"}
    assert a.downstream_task_ids == {"b", "c", "d", "f"}


def test_chain_joins_lists_pairwise_only_when_equally_long():
    with DAG("d"):
        a, b, c = (Step(task_id=name) for name in "abc")
        with pytest.raises(InputError, match="2 and 1 members"):
            chain([a, b], [c])


@pytest.mark.parametrize("other", ["a", 3, None, {"a": 1}, len])
def test_edge_needs_task(other):
    with DAG("d"):
        a = Step(task_id="a")
        with pytest.raises(InputError, match="nothing can wait for it"):
            a >> other


def test_edge_to_another_dag_is_refused():
    with DAG("one"):
        a = Step(task_id="a")
    with DAG("two") as two:
        b = Step(task_id="b")
        with pytest.raises(DagDefinitionError, match="different DAGs"):
            a >> b
        b.value = [a.output]
    with pytest.raises(DagDefinitionError, match=r"value holds the output of 'a', which is in DAG 'one'"):
        two.validate()


@pytest.mark.parametrize("wire", ["written", "held"])
def test_cycle_names_its_tasks(wire):
    with DAG("d") as dag:
        a, b, c, _ = (Step(task_id=name) for name in "abcx")
        a >> b >> c
        if wire == "written":
            c >> a
        else:
            a.value = {"deep": [c.output]}
    with pytest.raises(DagDefinitionError, match="a -> b -> c -> a") as caught:
        dag.validate()
    assert caught.value.task_ids == ("a", "b", "c")


def test_task_cannot_wait_for_itself():
    with DAG("d") as dag:
        a = Step(task_id="a")
        a.value = a.output
    with pytest.raises(DagDefinitionError, match="a -> a"):
        dag.validate()


def test_dag_without_tasks_is_refused():
    with pytest.raises(DagDefinitionError, match="has no tasks"):
        DAG("d").validate()


class TestOutputs:
    def test_output_anywhere_in_template_field_is_edge(self):
        with DAG("d") as dag:
            source = [Step(task_id=f"s{i}") for i in range(5)]
            sink = Step(
                [source[0].output, {"k": (source[1].output["key"],)}, f"n={source[2].output} m={source[3].output}"],
                task_id="sink",
            )
        assert sink.upstream_task_ids == {"s0", "s1", "s2", "s3"}
        sink.value = source[4].output
        assert sink.upstream_task_ids == {"s4"}
        dag.validate()

    def test_output_outside_template_fields_is_refused(self):
        with DAG("d") as dag:
            a = Step(task_id="a")
            Step(task_id="b", interval=[a.output])
        with pytest.raises(DagDefinitionError, match=r"'b': interval holds.*add 'interval' to template_fields of Step"):
            dag.validate()

    def test_template_field_must_exist(self):
        class Odd(BaseOperator):
            template_fields = ("nothing",)

        with DAG("d") as dag:
            Odd(task_id="t")
        with pytest.raises(DagDefinitionError, match="template_fields of Odd names 'nothing'"):
            dag.validate()

    def test_output_used_as_value_is_refused(self):
        output = Step(task_id="a").output
        with pytest.raises(TypeError, match="cannot be iterated"):
            list(output)
        with pytest.raises(InputError, match="a key is a string"):
            output[0]
        assert isinstance(output["k"], XComArg)
        assert output["k"].key == "k"

    def test_edges_can_be_written_with_outputs(self):
        with DAG("d") as dag:
            a, b, c = (Step(task_id=name) for name in "abc")
            a.output >> [b.output, c]
        assert edges(dag) == {("a", "b"), ("a", "c")}

    def test_reference_written_by_hand_must_be_there(self):
        with DAG("d") as dag:
            Step("{{ ti.xcom_pull(task_ids='gone', key='return_value') }}", task_id="a")
        with pytest.raises(DagDefinitionError, match="'gone', which is not in DAG"):
            dag.validate()


class TestTeardown:
    def test_teardown_waits_for_all_and_follows_its_setups(self):
        with DAG("d") as dag:
            make, work, drop = (Step(task_id=name) for name in ("make", "work", "drop"))
            make >> work >> drop.as_teardown(setups=make)
        assert (make.is_setup, drop.is_teardown, drop.trigger_rule) == (True, True, TriggerRule.ALL_DONE_SETUP_SUCCESS)
        assert edges(dag) == {("make", "work"), ("work", "drop"), ("make", "drop")}

    def test_teardown_with_own_trigger_rule_is_refused(self):
        task = Step(task_id="t", trigger_rule="all_done")
        with pytest.raises(InputError, match="not all_done"):
            task.as_teardown()


def test_loader_sees_every_dag_however_it_is_written():
    with collecting_dags() as made:
        with DAG("one"):
            pass
        two = DAG("two")
    DAG("later")
    assert [dag.dag_id for dag in made] == ["one", "two"]
    assert two.fileloc == __file__


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TaskGroup("g", tooltip="x"), "task group 'g' has no argument 'tooltip' (there are no colours"),
        (lambda: TaskGroup("g", ui_color="x"), "task group 'g' has no argument 'ui_color' (there are no colours"),
        (lambda: TaskGroup("g", group_display_name="x"), "task group 'g' has no argument 'group_display_name' (the"),
        (lambda: TaskGroup("g", prefix_groupid=False), "task group 'g' has no argument 'prefix_groupid'. Did you mean"),
        (lambda: EmptyOperator(task_id="t", sla=1), "has no argument 'sla' (give the task an execution_timeout"),
        (
            lambda: EmptyOperator(task_id="t").as_teardown(on_failure_fail_dagrun=True),
            "as_teardown of task 't' has no argument 'on_failure_fail_dagrun' (teardowns do not decide",
        ),
    ],
)
def test_airflow_keyword_not_supported_is_refused_with_reason(make: Callable[[], Any], says: str) -> None:
    with DAG("d"), pytest.raises(UnexpectedArgument) as caught:
        make()
    assert says in str(caught.value)
