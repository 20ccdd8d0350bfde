"""Task groups: ids, defaults, and what an edge to a group means."""

from __future__ import annotations

import pytest

from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.task_group import TaskGroup
from trainflow.errors import DagDefinitionError, InputError


class Step(BaseOperator):
    pass


def edges(dag):
    return {(before, task) for task, all_before in dag.graph().upstream.items() for before in all_before}


def test_ids_are_prefixed_and_defaults_handed_down():
    with DAG("d", default_args={"retries": 1, "pool": "outer"}) as dag:
        with TaskGroup("g", default_args={"pool": "group"}):
            a = Step(task_id="a")
            with TaskGroup("h", prefix_group_id=False):
                b = Step(task_id="b", retries=4)
            with TaskGroup("i"):
                c = Step(task_id="c")
        e = Step(task_id="a")
    assert [task.task_id for task in (a, b, c, e)] == ["g.a", "g.b", "g.i.c", "a"]
    assert (a.retries, a.pool, b.retries, b.pool, e.pool) == (1, "group", 4, "group", "outer")
    assert list(dag.task_group_dict) == ["g", "g.h", "g.i"]


def test_group_means_what_it_holds_in_end():
    with DAG("d") as dag:
        start, end = Step(task_id="start"), Step(task_id="end")
        with TaskGroup("g") as group:
            a = Step(task_id="a")
            start >> group >> end  # before the group is complete
            b, c = Step(task_id="b"), Step(task_id="c")
            a >> [b, c]
    assert edges(dag) == {("start", "g.a"), ("g.a", "g.b"), ("g.a", "g.c"), ("g.b", "end"), ("g.c", "end")}


def test_groups_of_groups():
    with DAG("d") as dag:
        with TaskGroup("one") as one:
            with TaskGroup("left") as left:
                Step(task_id="a") >> Step(task_id="b")
            with TaskGroup("right") as right:
                Step(task_id="c")
            left >> right
        with TaskGroup("two") as two:
            Step(task_id="d")
            Step(task_id="e")
        one >> two
    assert edges(dag) == {
        ("one.left.a", "one.left.b"),
        ("one.left.b", "one.right.c"),
        ("one.right.c", "two.d"),
        ("one.right.c", "two.e"),
    }


def test_teardown_in_group_holds_up_nothing_outside():
    with DAG("d") as dag:
        after = Step(task_id="after")
        with TaskGroup("g") as group:
            make, work, drop = (Step(task_id=name) for name in ("make", "work", "drop"))
            make >> work >> drop.as_teardown(setups=make)
        group >> after
    assert {before for before, task in edges(dag) if task == "after"} == {"g.work"}


def test_group_cannot_wait_for_its_own_member():
    with DAG("d") as dag, TaskGroup("g") as group:
        a = Step(task_id="a")
        a >> group
    with pytest.raises(DagDefinitionError, match="one is inside the other"):
        dag.graph()


def test_empty_group_would_lose_order_silently():
    with DAG("d") as dag:
        a, b = Step(task_id="a"), Step(task_id="b")
        with TaskGroup("g") as group:
            pass
        a >> group >> b
    with pytest.raises(DagDefinitionError, match="'g' is empty"):
        dag.graph()


def test_group_needs_dag_and_name_of_its_own():
    with pytest.raises(InputError, match="outside of a DAG"):
        TaskGroup("g")
    with DAG("d") as dag:
        Step(task_id="x")
        with pytest.raises(DagDefinitionError, match="'x' cannot name"):
            TaskGroup("x")
    assert [child.task_id for child in dag.root_group.children] == ["x"]
