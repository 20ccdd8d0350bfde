"""Runs that ended long ago: which of them nothing needs any more, and deleting them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, case, delete, exists, func, or_, select

from trainflow.metadata.models import AttemptTable, DagRunTable, DagTable, OutboxTable, TaskInstanceTable
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.states import RUN_FINISHED, DagRunState

RUN = DagRunTable.table
DAG = DagTable.table
TASK = TaskInstanceTable.table
ATTEMPT = AttemptTable.table
OUTBOX = OutboxTable.table

#: of each DAG so many runs stay, the newest, however long ago they ended
KEPT_RUNS = 10


def ended_before(connection: Connection, before: datetime) -> list[Row[Any]]:
    """Runs that ended before a moment and are needed for nothing (`id`, `dag_id`, `ended_at`), but that a system
    outside may have to be told of them still (`is_awaited`); oldest first.

    Needed are the newest of each DAG, for the numbers of later ones and for `depends_on_past`; its last success, which
    the notice of a stopped chain names; and what a run has triggered that was cleared lately, or stays itself: cleared
    once more, that would trigger it a second time.
    """
    return list(connection.execute(_ENDED_BEFORE, {"before": before}))


_NEWEST = (
    select(
        RUN.c.dag_id,
        func.max(RUN.c.number).label("number"),
        func.max(case((RUN.c.state == DagRunState.SUCCESS, RUN.c.number))).label("success"),
    )
    .group_by(RUN.c.dag_id)
    .subquery("newest")
)
_HAS_ENDED = (RUN.c.state.in_(sorted(RUN_FINISHED)), RUN.c.ended_at < bindparam("before"))
#: the index of the outbox begins with the channel
_CHANNELS = [channel.value for channel in OutboxChannel]
_UNDELIVERED = (OUTBOX.c.channel.in_(_CHANNELS), OUTBOX.c.delivered_at.is_(None))
_IS_AWAITED = exists().where(OUTBOX.c.dag_run_id == RUN.c.id, *_UNDELIVERED).label("is_awaited")


def _is_of_one_that_stays(up_to: ColumnElement[Any], success: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the run that triggered a run has not ended before the moment, or is needed by its own DAG, the same."""
    is_recent = or_(_PARENT.c.state.not_in(sorted(RUN_FINISHED)), _PARENT.c.ended_at >= bindparam("before"))
    is_needed = and_(_PARENT.c.dag_id == RUN.c.dag_id, or_(_PARENT.c.number > up_to, _PARENT.c.number == success))
    return exists().where(_PARENT.c.id == RUN.c.parent_id, or_(is_recent, is_needed))


_PARENT = RUN.alias("parent")
_ENDED_BEFORE = (
    select(RUN.c.id, RUN.c.dag_id, RUN.c.ended_at, _IS_AWAITED)
    .join(_NEWEST, _NEWEST.c.dag_id == RUN.c.dag_id)
    .where(
        *_HAS_ENDED,
        RUN.c.number <= _NEWEST.c.number - KEPT_RUNS,
        RUN.c.number != func.coalesce(_NEWEST.c.success, -1),
        ~_is_of_one_that_stays(_NEWEST.c.number - KEPT_RUNS, func.coalesce(_NEWEST.c.success, -1)),
    )
    .order_by(RUN.c.id)
)


def dag_ids(connection: Connection) -> list[str]:
    """The DAGs that may have runs."""
    return list(connection.execute(select(DAG.c.dag_id).order_by(DAG.c.dag_id)).scalars())


class NeededRuns(NamedTuple):
    """The runs of a DAG that stay, however long ago they ended: those numbered after `up_to`, and `success`."""

    dag_id: str
    up_to: int
    success: int


def needed_of(connection: Connection, dag_id: str) -> NeededRuns | None:
    """See `ended_before`; None: it has had no run."""
    newest, success = connection.execute(_NEEDED_OF, {"dag": dag_id}).one()
    return None if newest is None else NeededRuns(dag_id, newest - KEPT_RUNS, -1 if success is None else success)


_NEEDED_OF = select(func.max(RUN.c.number), func.max(case((RUN.c.state == DagRunState.SUCCESS, RUN.c.number)))).where(
    RUN.c.dag_id == bindparam("dag")
)


def ended_of(
    connection: Connection, needed: NeededRuns, before: datetime, after: Row[Any] | None, most: int
) -> list[Row[Any]]:
    """Like `ended_before` of one DAG, in the order of their ends: at most so many, behind the one of the last call."""
    position = (None, 0) if after is None else (after.ended_at, after.number)
    kept = {"dag_id": needed.dag_id, "up_to": needed.up_to, "success": needed.success}
    values = {**kept, "before": before, "most": most, "at": position[0], "number": position[1]}
    return list(connection.execute(_ENDED_OF if after is None else _ENDED_OF_BEHIND, values))


_ENDED_OF = (
    select(RUN.c.id, RUN.c.ended_at, RUN.c.number, _IS_AWAITED)
    .where(
        RUN.c.dag_id == bindparam("dag_id"),
        *_HAS_ENDED,
        RUN.c.number <= bindparam("up_to"),
        RUN.c.number != bindparam("success"),
        ~_is_of_one_that_stays(bindparam("up_to"), bindparam("success")),
    )
    .order_by(RUN.c.ended_at, RUN.c.number)
    .limit(bindparam("most"))
)
_AT = bindparam("at", type_=RUN.c.ended_at.type)
_ENDED_OF_BEHIND = _ENDED_OF.where(RUN.c.ended_at >= _AT, or_(RUN.c.ended_at > _AT, RUN.c.number > bindparam("number")))


def delete_ended(connection: Connection, ids: Sequence[int], before: datetime) -> list[int]:
    """Delete those of these runs that still have ended before a moment (none that a person has cleared meanwhile), with
    their tasks, attempts and XComs. Returns which."""
    still = connection.execute(_STILL_ENDED, {"ids": list(ids), "before": before})
    found = list(still.scalars())
    if found:
        connection.execute(_DELETE, {"ids": found})
    return found


_AMONG = RUN.c.id.in_(bindparam("ids", expanding=True))
_STILL_ENDED = select(RUN.c.id).where(_AMONG, *_HAS_ENDED).order_by(RUN.c.id).with_for_update()
_DELETE = delete(RUN).where(_AMONG)


def runs_of_attempts(connection: Connection, attempt_ids: Collection[str]) -> dict[str, int]:
    """Attempt id → key of its run, of those that are known."""
    found = connection.execute(_RUNS_OF_ATTEMPTS, {"ids": list(attempt_ids)})
    return {row.attempt_id: row.dag_run_id for row in found}


_RUNS_OF_ATTEMPTS = (
    select(ATTEMPT.c.attempt_id, TASK.c.dag_run_id)
    .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
    .where(ATTEMPT.c.attempt_id.in_(bindparam("ids", expanding=True)))
)
