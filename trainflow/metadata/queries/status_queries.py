"""What people ask and are told: what runs, what waits, what failed. Read only, and nothing is locked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, func, select

from trainflow.messages.notice import XCOM_STOPPED
from trainflow.metadata.queries.attempt_queries import ATTEMPT
from trainflow.metadata.queries.dag_queries import DAG, VERSION
from trainflow.metadata.queries.outbox_queries import OUTBOX
from trainflow.metadata.queries.run_queries import RUN
from trainflow.metadata.queries.scheduled_queries import OF_RUN, QUEUEING_ORDER, Candidate
from trainflow.metadata.queries.task_queries import TASK
from trainflow.metadata.queries.xcom_queries import XCOM
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.states import RUN_FINISHED, DagRunState, TaskInstanceState

_OPEN = sorted(set(DagRunState) - RUN_FINISHED)
_NOT_WELL = sorted(set(TaskInstanceState) - {TaskInstanceState.SUCCESS, TaskInstanceState.SKIPPED})
_FAILED = ["failed", "lost", "part_lost"]
_SHOWN = (
    *("id", "task_id", "state", "started_at", "ended_at", "retry_at"),
    *("failures", "max_tries", "progress", "note", "problem", "attempt_id"),
    *("executor", "queue", "queued_at"),
)


def dags(connection: Connection, *, path: str | None = None, dag_id: str | None = None) -> list[Row[Any]]:
    """DAGs with their current document, of one file or one id or all that some file defines."""
    statement = (
        select(DAG, VERSION.c.document)
        .join(VERSION, VERSION.c.id == DAG.c.version_id)
        .order_by(DAG.c.path, DAG.c.dag_id)
    )
    if dag_id is not None:
        return list(connection.execute(statement.where(DAG.c.dag_id == dag_id)))
    if path is not None:
        statement = statement.where(DAG.c.path == path)
    return list(connection.execute(statement.where(DAG.c.missing_since.is_(None))))


def shown_runs(connection: Connection, dag_ids: Sequence[str]) -> list[Row[Any]]:
    """The runs of each DAG that have not ended, and the one that ended last, in order."""
    if not dag_ids:
        return []
    newest = connection.execute(select(_LAST_FINISHED).where(DAG.c.dag_id.in_(dag_ids))).scalars()
    ended = RUN.c.id.in_([key for key in newest if key is not None])
    chosen = (RUN.c.state.in_(_OPEN) & RUN.c.dag_id.in_(dag_ids)) | ended
    return list(connection.execute(select(RUN).where(chosen).order_by(RUN.c.number)))


_ENDED = RUN.alias()
#: the key of the run of a DAG that ended last: read from the end of an index, whatever its history
_LAST_FINISHED = (
    select(_ENDED.c.id)
    .where(_ENDED.c.dag_id == DAG.c.dag_id, _ENDED.c.ended_at.is_not(None), _ENDED.c.state.in_(sorted(RUN_FINISHED)))
    .order_by(_ENDED.c.ended_at.desc(), _ENDED.c.number.desc())
    .limit(1)
    .correlate(DAG)
    .scalar_subquery()
)


def tasks_of(connection: Connection, dag_run_ids: Sequence[int]) -> dict[int, list[Row[Any]]]:
    """Run → every task instance of it, as far as people want to know."""
    found: dict[int, list[Row[Any]]] = {each: [] for each in dag_run_ids}
    asked = select(TASK.c.dag_run_id, *(TASK.c[name] for name in _SHOWN)).where(TASK.c.dag_run_id.in_(dag_run_ids))
    for row in connection.execute(asked.order_by(TASK.c.id)) if found else ():
        found[row.dag_run_id].append(row)
    return found


def last_failures(connection: Connection) -> dict[str, Row[Any]]:
    """DAG → (run_id, task_id, ended_at, problem) of the attempt that failed or was lost last, where no later attempt of
    its task has ended well. Costs the tasks that have not ended well, and not the history."""
    newest = func.row_number().over(partition_by=RUN.c.dag_id, order_by=ATTEMPT.c.ended_at.desc())
    ranked = (
        select(RUN.c.dag_id, RUN.c.run_id, TASK.c.task_id, ATTEMPT.c.attempt_id, newest.label("place"))
        .select_from(TASK)
        .join(ATTEMPT, ATTEMPT.c.task_instance_id == TASK.c.id)
        .join(RUN, RUN.c.id == TASK.c.dag_run_id)
        .where(TASK.c.state.in_(_NOT_WELL) | TASK.c.state.is_(None), ATTEMPT.c.outcome.in_(_FAILED))
        .subquery()
    )
    rows: list[Any] = list(
        connection.execute(
            select(ranked.c.dag_id, ranked.c.run_id, ranked.c.task_id, ATTEMPT.c.ended_at, ATTEMPT.c.problem)
            .select_from(ranked)
            .join(ATTEMPT, ATTEMPT.c.attempt_id == ranked.c.attempt_id)
            .where(ranked.c.place == 1)
        )
    )
    return {row.dag_id: row for row in rows}


def undelivered_by_dag(connection: Connection) -> dict[str, int]:
    """DAG → deliveries to MLflow that are still to be made."""
    rows = connection.execute(
        select(RUN.c.dag_id, func.count())
        .select_from(OUTBOX)
        .join(RUN, RUN.c.id == OUTBOX.c.dag_run_id)
        .where(OUTBOX.c.channel == OutboxChannel.MLFLOW.value, OUTBOX.c.delivered_at.is_(None))
        .group_by(RUN.c.dag_id)
    )
    return {row[0]: row[1] for row in rows}


def scheduled(connection: Connection) -> list[Candidate]:
    """What could be queued, in queueing order."""
    columns = [(RUN if name in OF_RUN else TASK).c[name] for name in Candidate._fields]
    rows = connection.execute(
        select(*columns)
        .join(RUN, RUN.c.id == TASK.c.dag_run_id)
        .join(DAG, DAG.c.dag_id == RUN.c.dag_id)
        .where(TASK.c.state == TaskInstanceState.SCHEDULED, DAG.c.is_paused.is_(False))
        .order_by(*QUEUEING_ORDER)
    )
    return [Candidate._make(row) for row in rows]


def handed_over(connection: Connection) -> list[Row[Any]]:
    """(id, executor, queue) of tasks that were handed to an executor and that no process has claimed."""
    asked = select(TASK.c.id, TASK.c.executor, TASK.c.queue).where(TASK.c.state == TaskInstanceState.QUEUED)
    return list(connection.execute(asked))


class FollowedRuns:
    """The runs that a terminal follows, found at a cost of what is new and of what is open: those of a DAG among all
    that came of `roots`; and what `root_id` triggered in DAGs not `followed`."""

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


class FirstFailure(NamedTuple):
    """The task of a run that failed first, for the notice that says so. `told`: what it pushed about it, if it did."""

    task_id: str
    problem: str
    told: dict[str, Any] | None


def first_failure(connection: Connection, dag_run_id: int) -> FirstFailure | None:
    """The first task of a run that failed; None when none did (the run timed out, say)."""
    row = connection.execute(
        select(TASK.c.task_id, TASK.c.problem)
        .where(TASK.c.dag_run_id == dag_run_id, TASK.c.state == TaskInstanceState.FAILED)
        .order_by(TASK.c.ended_at, TASK.c.id)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    pushed = connection.execute(
        select(XCOM.c.value).where(
            XCOM.c.dag_run_id == dag_run_id, XCOM.c.task_id == row.task_id, XCOM.c.key == XCOM_STOPPED
        )
    ).scalar()
    told = None if pushed is None else msgspec.json.decode(pushed)
    return FirstFailure(row.task_id, row.problem or "", told if isinstance(told, dict) else None)


def last_success(connection: Connection, dag_id: str, before: int) -> int:
    """The number of the newest run of a DAG, before number `before`, that succeeded; 0: none did."""
    return int(
        connection.execute(
            select(func.coalesce(func.max(RUN.c.number), 0)).where(
                RUN.c.dag_id == dag_id, RUN.c.number < before, RUN.c.state == DagRunState.SUCCESS
            )
        ).scalar_one()
    )
