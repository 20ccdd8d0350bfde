"""Edges as they are written with `>>` and `<<`, and the graph of task ids they come to: order, cycles, priority."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from trainflow.errors import DagDefinitionError, InputError
from trainflow.states import WeightRule

if TYPE_CHECKING:
    from trainflow.authoring.dag import DAG
    from trainflow.authoring.operator import BaseOperator
    from trainflow.authoring.task_group import TaskGroup

_T = TypeVar("_T")
_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1


class Graph:
    """Tasks and the edges between them. `upstream` and `downstream` hold the direct neighbours, sorted."""

    def __init__(self, upstream: Mapping[str, Iterable[str]]) -> None:
        """`upstream` has one key a task; every id in a value is a key as well."""
        self.upstream = {task_id: tuple(sorted(set(before))) for task_id, before in upstream.items()}
        downstream: dict[str, list[str]] = {task_id: [] for task_id in self.upstream}
        for task_id in sorted(self.upstream):
            for before in self.upstream[task_id]:
                downstream[before].append(task_id)
        self.downstream = {task_id: tuple(after) for task_id, after in downstream.items()}

    @property
    def roots(self) -> list[str]:
        """Tasks that wait for no other, sorted."""
        return sorted(task_id for task_id, before in self.upstream.items() if not before)

    def order(self) -> list[str]:
        """Every task after what it waits for; where the edges leave a choice, by id. Raises DagDefinitionError."""
        waiting = {task_id: len(before) for task_id, before in self.upstream.items()}
        ready = self.roots
        result: list[str] = []
        while ready:
            task_id = heapq.heappop(ready)
            result.append(task_id)
            for after in self.downstream[task_id]:
                waiting[after] -= 1
                if not waiting[after]:
                    heapq.heappush(ready, after)
        if len(result) < len(waiting):
            cycle = self._cycle_among({task_id for task_id, count in waiting.items() if count})
            raise DagDefinitionError(
                f"the tasks wait for each other: {' -> '.join([*cycle, cycle[0]])}", task_ids=tuple(cycle)
            )
        return result

    def _cycle_among(self, unordered: set[str]) -> list[str]:
        # every task that could not be ordered has such a task before it: walk up until one repeats
        trail: dict[str, int] = {}
        task_id = min(unordered)
        while task_id not in trail:
            trail[task_id] = len(trail)
            task_id = next(before for before in self.upstream[task_id] if before in unordered)
        cycle = list(trail)[trail[task_id] :][::-1]
        first = cycle.index(min(cycle))
        return cycle[first:] + cycle[:first]


def effective_weights(graph: Graph, weights: Mapping[str, tuple[int, WeightRule]]) -> dict[str, int]:
    """Task → its own weight plus those its rule adds, kept within 32 bits (databases and brokers hold no more)."""
    order = graph.order()
    bits = {task_id: 1 << position for position, task_id in enumerate(order)}
    rules = {rule for _, rule in weights.values()}
    others = {
        WeightRule.DOWNSTREAM: _reachable(reversed(order), graph.downstream, bits, rules >= {WeightRule.DOWNSTREAM}),
        WeightRule.UPSTREAM: _reachable(order, graph.upstream, bits, rules >= {WeightRule.UPSTREAM}),
        WeightRule.ABSOLUTE: {},
    }
    # few distinct weights are usual, so the sum is one population count for each of them
    holders: dict[int, int] = {}
    for task_id, (own, _) in weights.items():
        holders[own] = holders.get(own, 0) | bits[task_id]
    result = {}
    for task_id, (own, rule) in weights.items():
        reached = others[rule].get(task_id, 0)
        total = own + sum(weight * (reached & holding).bit_count() for weight, holding in holders.items())
        result[task_id] = max(_INT32_MIN, min(_INT32_MAX, total))
    return result


def _reachable(
    order: Iterable[str], neighbours: Mapping[str, tuple[str, ...]], bits: Mapping[str, int], wanted: bool
) -> dict[str, int]:
    """Task → the set of tasks reached from it, as bits: sets of ids would take memory in the square of the tasks."""
    result: dict[str, int] = {}
    for task_id in order if wanted else ():
        reached = 0
        for other in neighbours[task_id]:
            reached |= bits[other] | result[other]
        result[task_id] = reached
    return result


class Linkable:
    """Base of what an edge can start or end at."""

    @property
    def node(self) -> BaseOperator | TaskGroup:
        """The operator or task group that the edge is remembered with."""
        raise NotImplementedError

    @property
    def dag(self) -> DAG:
        """The DAG it belongs to. Raises InputError when it belongs to none."""
        raise NotImplementedError

    def set_downstream(self, other: Any) -> None:
        """Let `other` (one, or a list) wait for this."""
        for each in linkables(other):
            self.dag.add_edge(self.node, each.node)

    def set_upstream(self, other: Any) -> None:
        """Let this wait for `other` (one, or a list)."""
        for each in linkables(other):
            self.dag.add_edge(each.node, self.node)

    def __rshift__(self, other: _T) -> _T:
        self.set_downstream(other)
        return other

    def __lshift__(self, other: _T) -> _T:
        self.set_upstream(other)
        return other

    def __rrshift__(self, other: Sequence[Any]) -> Linkable:
        self.set_upstream(other)
        return self

    def __rlshift__(self, other: Sequence[Any]) -> Linkable:
        self.set_downstream(other)
        return self


def linkables(value: Any) -> list[Linkable]:
    """One or a list of them, as a list. Raises InputError for what is neither."""
    if isinstance(value, Linkable):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return [each for item in value for each in linkables(item)]
    hint = " Call the decorated function first." if callable(value) else ""
    raise InputError(f"{value!r} is no task, task output or task group, so nothing can wait for it.{hint}")


def chain(*tasks: Any) -> None:
    """Let each wait for the one before it. Two neighbouring lists are joined pairwise and must be equally long."""
    for before, after in pairwise(tasks):
        if isinstance(before, Linkable) or isinstance(after, Linkable):
            for each in linkables(before):
                each.set_downstream(after)
            continue
        left, right = linkables(before), linkables(after)
        if len(left) != len(right):
            raise InputError(
                f"chain joins neighbouring lists pairwise, and these have {len(left)} and {len(right)} members; "
                "use cross_downstream to join each with each"
            )
        for one, other in zip(left, right, strict=True):
            one.set_downstream(other)


def cross_downstream(from_tasks: Any, to_tasks: Any) -> None:
    """Let each of `to_tasks` wait for each of `from_tasks`."""
    for before in linkables(from_tasks):
        before.set_downstream(to_tasks)
