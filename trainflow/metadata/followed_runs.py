"""The runs that a terminal follows: found by who started them, at a cost of what is new and of what is open."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from trainflow.metadata.run_queries import RUN
from trainflow.metadata.task_queries import TASK
from trainflow.states import RUN_FINISHED, DagRunState

_OPEN = sorted(set(DagRunState) - RUN_FINISHED)


class FollowedRuns:
    """The runs of a DAG among those that came of `roots`; and what `root_id` triggered in DAGs not `followed`."""

    def __init__(
        self, dag_id: str, root_id: int | None, *, roots: Collection[int], followed: Collection[str] = ()
    ) -> None:
        self._dag_id = dag_id
        self._root_id = root_id
        self._roots = sorted(roots)
        self._followed = sorted(followed)

    @cached_property
    def _told(self) -> ColumnElement[bool]:
        return RUN.c.root_id.in_(self._roots) & self._mine_or_untold

    @cached_property
    def _told_open(self) -> ColumnElement[bool]:
        return self._of_roots & self._mine_or_untold

    @cached_property
    def _of_roots(self) -> ColumnElement[bool]:
        # of all runs of a chain few are open: they are found by their state, and not by an index of the roots
        return (RUN.c.root_id + 0).in_(self._roots)

    @property
    def _mine_or_untold(self) -> ColumnElement[bool]:
        mine = RUN.c.dag_id == self._dag_id
        if self._root_id is None:
            return mine
        return mine | ((RUN.c.root_id == self._root_id) & RUN.c.dag_id.not_in(self._followed))

    def open(self, connection: Connection) -> list[Row[Any]]:
        """Runs that have not ended, in order."""
        return _open(connection, self._told_open)

    def any_open(self, connection: Connection) -> bool:
        """Whether any run that came of the roots, told or not, has not ended."""
        return bool(_open(connection, self._of_roots))

    def ended(self, connection: Connection, after: int) -> list[Row[Any]]:
        """Runs that have ended and whose key is greater than `after`, in order."""
        ended = (RUN.c.id > after, RUN.c.state.in_(sorted(RUN_FINISHED)))
        return list(connection.execute(select(RUN).where(self._told, *ended).order_by(RUN.c.id)))


def _open(connection: Connection, which: ColumnElement[bool]) -> list[Row[Any]]:
    return list(connection.execute(select(RUN).where(which, RUN.c.state.in_(_OPEN)).order_by(RUN.c.id)))


def tasks(connection: Connection, dag_run_id: int) -> list[Row[Any]]:
    """What is shown of the tasks of a run, in order."""
    shown = ("task_id", "state", "started_at", "ended_at", "progress", "note", "problem", "retry_at", "attempt_id")
    columns = [TASK.c[name] for name in shown]
    return list(connection.execute(select(*columns).where(TASK.c.dag_run_id == dag_run_id).order_by(TASK.c.id)))
