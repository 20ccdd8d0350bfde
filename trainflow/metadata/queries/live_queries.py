"""What is under way, in as few rows as tell whether something has changed. Read only, and nothing is locked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, func, select

from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.models import (
    DagRunTable,
    DagTable,
    ImportProblemTable,
    PoolTable,
    TaskInstanceTable,
)
from trainflow.metadata.sql_text import ReadingConnection, SqlText
from trainflow.states import RUN_FINISHED, UNFINISHED, DagRunState

RUN = DagRunTable.table
TASK = TaskInstanceTable.table
DAG = DagTable.table
PROBLEM = ImportProblemTable.table
POOL = PoolTable.table

_OPEN = sorted(set(DagRunState) - RUN_FINISHED)
#: runs that are queued behind others are many at times: so many are told apart
_MOST_RUNS = 500

_RUNS = (
    select(RUN.c.id, RUN.c.dag_id, RUN.c.run_id, RUN.c.state, RUN.c.released_at, RUN.c.clear_number, RUN.c.note)
    .where(RUN.c.state.in_([DagRunState.QUEUED, DagRunState.RUNNING]))
    .order_by(RUN.c.state.desc(), RUN.c.id)
    .limit(_MOST_RUNS)
)


def unfinished_runs(connection: Connection) -> list[Row[Any]]:
    """Runs that have not ended, those that run first."""
    return list(connection.execute(_RUNS))


def unfinished_tasks(connection: Connection, runs: Sequence[int]) -> list[Row[Any]]:
    """What can change of the tasks of these runs."""
    columns = (
        *(TASK.c.dag_run_id, TASK.c.task_id, TASK.c.map_index, TASK.c.state, TASK.c.attempt_id),
        *(TASK.c.deferral_number, TASK.c.failures, TASK.c.note, TASK.c.retry_at),
        TASK.c.progress,
    )
    rows: list[Row[Any]] = []
    for part in in_parts(runs):
        rows += connection.execute(select(*columns).where(TASK.c.dag_run_id.in_(part)).order_by(TASK.c.id))
    return rows


def count_unfinished_runs(connection: Connection) -> list[Row[Any]]:
    """(dag_id, state, runs) of the runs that have not ended."""
    return list(connection.execute(_COUNT_RUNS))


_COUNT_RUNS = (
    select(RUN.c.dag_id, RUN.c.state, func.count().label("runs"))
    .where(RUN.c.state.in_([DagRunState.QUEUED, DagRunState.RUNNING]))
    .group_by(RUN.c.dag_id, RUN.c.state)
    .order_by(RUN.c.dag_id, RUN.c.state)
)


class IdleRun(NamedTuple):
    """A run that runs while none of its tasks does, waits or is to be tried again. `ended`: how many have ended."""

    id: int
    ended: int


def idle_runs(connection: ReadingConnection) -> list[IdleRun]:
    """Running runs with nothing under way: what follows is to be decided, unless it waits for another run."""
    unfinished = [state.value for state in sorted(UNFINISHED)]
    return _IDLE.rows(connection, running=DagRunState.RUNNING.value, unfinished=unfinished)


_IDLE = SqlText(
    """
    SELECT dag_run.id,
        (SELECT COUNT(*) FROM task_instance WHERE dag_run_id = dag_run.id AND ended_at IS NOT NULL) AS ended
    FROM dag_run WHERE dag_run.state = :running AND NOT EXISTS
        (SELECT 1 FROM task_instance WHERE dag_run_id = dag_run.id AND task_instance.state IN :unfinished)
    ORDER BY dag_run.id
    """,
    IdleRun,
)


def newest_run(connection: Connection) -> int:
    """Id of the newest run; 0: there is none."""
    return connection.execute(select(func.max(RUN.c.id))).scalar() or 0


def dags(connection: Connection) -> list[Row[Any]]:
    """Every DAG, as far as it can change."""
    return list(
        connection.execute(
            select(DAG.c.dag_id, DAG.c.version_id, DAG.c.is_paused, DAG.c.missing_since).order_by(DAG.c.dag_id)
        )
    )


def problems(connection: Connection) -> list[tuple[Any, ...]]:
    """Files that give no DAG."""
    return [tuple(row) for row in connection.execute(select(PROBLEM.c.path, PROBLEM.c.at).order_by(PROBLEM.c.path))]


def pools(connection: Connection) -> list[Row[Any]]:
    """Every pool, as far as it can change."""
    return list(connection.execute(select(POOL.c.name, POOL.c.slots, POOL.c.include_deferred).order_by(POOL.c.name)))


class FollowedRuns:
    """The runs that a terminal follows, found at a cost of what is new and of what is open: those of a DAG among all
    that came of `roots`; and what its `own` roots triggered in DAGs not `followed`."""

    def __init__(
        self, dag_id: str, own: Collection[int], *, roots: Collection[int], followed: Collection[str] = ()
    ) -> None:
        self._dag_id = dag_id
        self._own = sorted(own)
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
        if not self._own:
            return mine
        return mine | (RUN.c.root_id.in_(self._own) & RUN.c.dag_id.not_in(self._followed))

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
