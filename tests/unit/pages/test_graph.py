"""Where tasks are drawn."""

from __future__ import annotations

from trainflow.pages.graph import graph


def test_task_is_drawn_behind_all_that_it_waits_for() -> None:
    upstream: dict[str, list[str]] = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c", "gone"], "e": []}
    drawn = graph(upstream, {"a": "success"}, {"a": "trainflow.operators.BashOperator"})
    place = {node.task_id: (node.x, node.y) for node in drawn.nodes}
    assert place["a"][0] < place["b"][0] == place["c"][0] < place["d"][0]
    assert place["b"][1] != place["c"][1]
    assert len(drawn.edges) == 4
    assert drawn.nodes[0].operator == "BashOperator"
    assert all(node.x + drawn.node_width <= drawn.width for node in drawn.nodes)
    assert all(node.y + drawn.node_height <= drawn.height for node in drawn.nodes)


def test_graph_without_tasks_has_a_size() -> None:
    assert graph({}, {}, {}).height > 0


def test_tasks_of_a_chain_stand_beside_each_other_on_a_page() -> None:
    names = ["prepare", "checkpoint", "samples", "evaluate", "train", "commit", "next"]
    line = {name: names[place - 1 : place] if place else [] for place, name in enumerate(names)}
    assert graph(line, {}, {}).width <= 1128
