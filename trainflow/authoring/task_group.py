"""A named group of tasks: prefixes their ids, hands down default_args, and can stand where a task stands in an edge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Never, Self

from trainflow.authoring import arguments
from trainflow.authoring.checked_call import CheckedCall
from trainflow.authoring.graph import Linkable
from trainflow.authoring.operator_type import enter, group_of, leave
from trainflow.errors import DagDefinitionError, InputError
from trainflow.identifiers import check_name

if TYPE_CHECKING:
    from trainflow.authoring.dag import DAG
    from trainflow.authoring.operator import BaseOperator


_ARGUMENTS = ("group_id", "prefix_group_id", "default_args", "parent_group", "dag")


class TaskGroup(Linkable, metaclass=CheckedCall):
    """`with TaskGroup("load"):`: tasks made inside are called `load.<task_id>` (unless `prefix_group_id=False`).

    `group >> task` lets the task wait for those of the group that no task in it waits for; `task >> group` lets
    those of the group wait that wait for no task in it.
    """

    def __init__(
        self,
        group_id: str,
        *,
        prefix_group_id: bool = True,
        default_args: Mapping[str, Any] | None = None,
        parent_group: TaskGroup | None = None,
        dag: DAG | None = None,
        **unexpected: Never,
    ) -> None:
        """Raises InputError outside of a DAG, DagDefinitionError when the id is taken, UnexpectedArgument for a keyword
        that does not exist."""
        arguments.refuse_unexpected(f"task group {group_id!r}", unexpected, _ARGUMENTS)
        parent = group_of({"dag": dag, "task_group": parent_group})
        if parent is None:
            raise InputError(f"task group {group_id!r} is outside of a DAG: create it inside `with DAG(...)`")
        self._attach(parent.dag, parent, check_name(parent.child_id(group_id), "task group"))
        owner = f"task group {self.group_id!r}"
        self.prefix_group_id = arguments.yes_or_no(prefix_group_id, f"{owner}: prefix_group_id")
        self.default_args = arguments.mapping(default_args, f"{owner}: default_args")
        parent.dag.add_group(self)
        parent.children.append(self)

    @classmethod
    def root(cls, dag: DAG, default_args: Mapping[str, Any] | None) -> TaskGroup:
        """The nameless group every task of `dag` is in."""
        group = cls.__new__(cls)
        group._attach(dag, None, "")
        group.prefix_group_id = False
        group.default_args = dict(default_args or {})
        return group

    def _attach(self, dag: DAG, parent: TaskGroup | None, group_id: str) -> None:
        self._dag = dag
        self.parent_group = parent
        self.group_id = group_id
        self.children: list[BaseOperator | TaskGroup] = []

    def __repr__(self) -> str:
        return f"<TaskGroup {self.group_id or 'of ' + self._dag.dag_id}>"

    def __enter__(self) -> Self:
        enter(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        leave(self)

    @property
    def node(self) -> TaskGroup:
        return self

    @property
    def dag(self) -> DAG:
        return self._dag

    def child_id(self, name: str) -> str:
        """The full id of a member that its author calls `name`."""
        if self.prefix_group_id:
            return f"{self.group_id}.{name}"
        return self.parent_group.child_id(name) if self.parent_group is not None else name

    def all_default_args(self) -> dict[str, Any]:
        """default_args of the DAG and of the groups around, the innermost winning."""
        inherited = self.parent_group.all_default_args() if self.parent_group is not None else {}
        return {**inherited, **self.default_args}

    def members(self) -> list[BaseOperator]:
        """Every task in it, in inner groups too."""
        return [task for child in self.children for task in child.members()]

    def groups(self) -> list[TaskGroup]:
        """The group and every group in it, inner ones first."""
        inner = [group for child in self.children if isinstance(child, TaskGroup) for group in child.groups()]
        return [*inner, self]


def task_edges(
    root: TaskGroup, edges: Iterable[tuple[BaseOperator | TaskGroup, BaseOperator | TaskGroup]]
) -> set[tuple[str, str]]:
    """Edges between tasks that `edges` (of tasks and groups, as written) mean.

    What a group starts and ends with depends on the edges inside it, so inner groups come first; an edge is placed in
    the smallest group that holds both of its ends.
    """
    placed: dict[TaskGroup, list[tuple[BaseOperator | TaskGroup, BaseOperator | TaskGroup]]] = {}
    for before, after in edges:
        placed.setdefault(_smallest_around(before, after), []).append((before, after))
    ends: dict[TaskGroup, tuple[list[str], list[str]]] = {}
    result: set[tuple[str, str]] = set()
    for group in root.groups():
        for before, after in placed.get(group, ()):
            for one in _last(before, ends):
                result.update((one, other) for other in _first(after, ends))
        if group is not root:
            ends[group] = _ends(group.members(), result)
    return result


def _around(node: BaseOperator | TaskGroup) -> list[TaskGroup]:
    group = node.parent_group if isinstance(node, TaskGroup) else node.task_group
    result = []
    while group is not None:
        result.append(group)
        group = group.parent_group
    return result


def _smallest_around(before: BaseOperator | TaskGroup, after: BaseOperator | TaskGroup) -> TaskGroup:
    outer = _around(after)
    if before in outer or after in _around(before) or (before is after and isinstance(before, TaskGroup)):
        raise DagDefinitionError(f"{before!r} and {after!r} cannot wait for each other: one is inside the other")
    return next(group for group in _around(before) if group in outer)


def _ends(members: list[BaseOperator], edges: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
    ids = {task.task_id for task in members}
    teardowns = {task.task_id for task in members if task.is_teardown}
    inside = [(before, after) for before, after in edges if before in ids and after in ids]
    waiting = {after for _, after in inside}
    # who comes after a group does not wait for its teardowns, unless there is nothing else to wait for
    awaited = {before for before, after in inside if after not in teardowns}
    first = sorted(ids - waiting)
    last = sorted(ids - awaited - teardowns) or sorted(ids - {before for before, _ in inside})
    return first, last


def _first(node: BaseOperator | TaskGroup, ends: Mapping[TaskGroup, tuple[list[str], list[str]]]) -> list[str]:
    return _of_group(node, ends)[0] if isinstance(node, TaskGroup) else [node.task_id]


def _last(node: BaseOperator | TaskGroup, ends: Mapping[TaskGroup, tuple[list[str], list[str]]]) -> list[str]:
    return _of_group(node, ends)[1] if isinstance(node, TaskGroup) else [node.task_id]


def _of_group(group: TaskGroup, ends: Mapping[TaskGroup, tuple[list[str], list[str]]]) -> tuple[list[str], list[str]]:
    if not ends[group][0] and not group.members():
        raise DagDefinitionError(f"task group {group.group_id!r} is empty, so nothing can wait for it or be awaited")
    return ends[group]
