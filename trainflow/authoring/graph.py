"""A directed graph of task ids: order, cycles, who comes before and after, effective priority. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from trainflow.errors import DagDefinitionError
from trainflow.states import WeightRule

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
