"""What `>>` and `<<` join: operators, XComArgs and task groups, and lists of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from trainflow.errors import InputError

if TYPE_CHECKING:
    from trainflow.authoring.dag import DAG
    from trainflow.authoring.operator import BaseOperator
    from trainflow.authoring.task_group import TaskGroup

_T = TypeVar("_T")


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
