"""What is being written right now: the innermost open `with DAG(...)` or `with TaskGroup(...)`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainflow.authoring.task_group import TaskGroup

_open: ContextVar[tuple[TaskGroup, ...]] = ContextVar("trainflow_open_groups", default=())


def enter(group: TaskGroup) -> None:
    """`group` is the innermost from now on."""
    _open.set((*_open.get(), group))


def leave(group: TaskGroup) -> None:
    """The inverse of `enter`."""
    groups = _open.get()
    assert groups, f"{group!r} was left but never entered"
    assert groups[-1] is group, f"{group!r} is not the innermost"
    _open.set(groups[:-1])


def current_group() -> TaskGroup | None:
    """The innermost open task group; None outside of every DAG."""
    groups = _open.get()
    return groups[-1] if groups else None
