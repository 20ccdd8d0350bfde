"""Where the tasks of a DAG are drawn: a column for each step from the beginning. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: the seven tasks of a chain stand beside each other on a page
_WIDTH, _HEIGHT = 132.0, 44.0
_GAP_X, _GAP_Y = 28.0, 16.0
#: characters of a name that fit in
_SHORT = 16
_MARGIN = 8.0


class Node(NamedTuple):
    """A task. `x` and `y`: its upper left corner."""

    task_id: str
    x: float
    y: float
    state: str
    operator: str

    @property
    def short(self) -> str:
        """Name of the task, as much as there is room for."""
        return self.task_id if len(self.task_id) <= _SHORT else f"{self.task_id[: _SHORT - 1]}…"


class GraphDrawing(NamedTuple):
    """All tasks, and `edges` as SVG paths."""

    nodes: list[Node]
    edges: list[str]
    width: float
    height: float
    node_width: float = _WIDTH
    node_height: float = _HEIGHT


def graph(
    upstream: Mapping[str, Sequence[str]], states: Mapping[str, str | None], operators: Mapping[str, str | None]
) -> GraphDrawing:
    """Lay out tasks, given in topological order with what they wait for. Costs tasks and edges."""
    column: dict[str, int] = {}
    for task, before in upstream.items():
        column[task] = max((column[each] + 1 for each in before if each in column), default=0)
    rows: dict[int, int] = {}
    nodes: dict[str, Node] = {}
    for task, place in column.items():
        row = rows.get(place, 0)
        rows[place] = row + 1
        x, y = _MARGIN + place * (_WIDTH + _GAP_X), _MARGIN + row * (_HEIGHT + _GAP_Y)
        operator = (operators.get(task) or "").rpartition(".")[2]
        nodes[task] = Node(task, x, y, states.get(task) or "none", operator)
    edges = [_edge(nodes[each], node) for node in nodes.values() for each in upstream[node.task_id] if each in nodes]
    columns, tallest = max(column.values(), default=0) + 1, max(rows.values(), default=1)
    return GraphDrawing(
        list(nodes.values()),
        edges,
        2 * _MARGIN + columns * _WIDTH + (columns - 1) * _GAP_X,
        2 * _MARGIN + tallest * _HEIGHT + (tallest - 1) * _GAP_Y,
    )


def _edge(source: Node, target: Node) -> str:
    x1, y1 = source.x + _WIDTH, source.y + _HEIGHT / 2
    x2, y2 = target.x, target.y + _HEIGHT / 2
    middle = (x1 + x2) / 2
    return f"M{x1:g} {y1:g}C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"
