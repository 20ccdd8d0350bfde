"""Whatever graph is drawn: its order, its weights, its document."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.authoring.dag import DAG
from trainflow.authoring.graph import Graph, effective_weights
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.task_group import TaskGroup
from trainflow.errors import DagDefinitionError
from trainflow.serialization.document import decode, encode
from trainflow.serialization.from_dag import to_document
from trainflow.states import WeightRule


class Step(BaseOperator):
    template_fields = ("held",)
    held: list[object] = []  # noqa: RUF012


@st.composite
def acyclic(draw, most=8):
    count = draw(st.integers(1, most))
    names = draw(st.permutations([f"t{number}" for number in range(count)]))
    pairs = [(names[i], names[j]) for j in range(count) for i in range(j)]
    return names, (draw(st.sets(st.sampled_from(pairs))) if pairs else set())


def reachable(start, edges):
    found, todo = set(), [start]
    while todo:
        here = todo.pop()
        for before, after in edges:
            if before == here and after not in found:
                found.add(after)
                todo.append(after)
    return found


def graph_of(names, edges):
    return Graph({name: [before for before, after in edges if after == name] for name in names})


@given(acyclic())
def test_graph_order_puts_task_after_its_upstream(drawn):
    names, edges = drawn
    graph = graph_of(names, edges)
    order = graph.order()
    assert sorted(order) == sorted(names)
    assert all(order.index(before) < order.index(after) for before, after in edges)


@given(acyclic(), st.data())
def test_edge_back_is_cycle_that_is_named(drawn, data):
    names, edges = drawn
    start = data.draw(st.sampled_from(names))
    target = data.draw(st.sampled_from(sorted(reachable(start, edges) | {start})))
    with pytest.raises(DagDefinitionError) as caught:
        graph_of(names, edges | {(target, start)}).order()
    cycle = caught.value.task_ids
    steps = list(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    assert set(steps) <= edges | {(target, start)}
    assert len(set(cycle)) == len(cycle)


@given(acyclic(), st.data())
def test_weights_sum_over_whom_rule_names(drawn, data):
    names, edges = drawn
    rules = st.sampled_from(list(WeightRule))
    weights = {name: (data.draw(st.integers(-(2**33), 2**33)), data.draw(rules)) for name in names}
    result = effective_weights(graph_of(names, edges), weights)
    for name, (own, rule) in weights.items():
        others = {
            WeightRule.DOWNSTREAM: reachable(name, edges),
            WeightRule.UPSTREAM: {other for other in names if name in reachable(other, edges)},
            WeightRule.ABSOLUTE: set(),
        }[rule]
        total = own + sum(weights[other][0] for other in others)
        assert result[name] == max(-(2**31), min(2**31 - 1, total))


def build(names, edges, held, seed):
    """The same DAG, written down in an order that depends on `seed`."""
    shuffle = random.Random(seed).shuffle
    names, edges = sorted(names), sorted(edges)
    shuffle(names)
    shuffle(edges)
    with DAG("d") as dag:
        tasks = {name: Step(task_id=name) for name in names}
        for before, after in edges:
            if (before, after) in held:
                # the value of a field is part of the document, so its order is not the seed's
                tasks[after].held = sorted([*tasks[after].held, tasks[before].output], key=str)
            else:
                tasks[before] >> tasks[after]
    return dag


@given(acyclic(), st.data(), st.integers())
def test_document_depends_on_graph_not_on_writing_order(drawn, data, seed):
    names, edges = drawn
    held = data.draw(st.sets(st.sampled_from(sorted(edges)))) if edges else set()
    one = encode(to_document(build(names, edges, held, 0)))
    other = encode(to_document(build(names, edges, held, seed)))
    assert one == other
    document = decode(one)
    assert encode(document) == one
    assert {(before, task.task_id) for task in document.tasks for before in task.upstream} == edges


@given(acyclic(most=5), acyclic(most=5))
def test_edge_between_groups_orders_all_tasks(first, second):
    with DAG("d") as dag:
        groups = []
        for name, (names, edges) in [("one", first), ("two", second)]:
            with TaskGroup(name) as group:
                tasks = {task_id: Step(task_id=task_id) for task_id in names}
            groups.append(group)
            if name == "two":
                groups[0] >> group
            for before, after in edges:
                tasks[before] >> tasks[after]
    graph = dag.graph()
    edges = {(before, task_id) for task_id, all_before in graph.upstream.items() for before in all_before}
    after = {task.task_id for task in groups[1].members()}
    for task in groups[0].members():
        assert after <= reachable(task.task_id, edges)
