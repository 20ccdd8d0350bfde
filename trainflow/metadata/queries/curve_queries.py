"""Curves of attempts: what their metrics were while they ran, for people and for MLflow.

However long a chain is, they take no more than so much room: of a task of a run the newest attempts have them, of a DAG
the newest runs; more runs as long as MLflow is still to be told of them, but not any number of those either. What is
too old is deleted when another attempt gets its curves.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, delete, insert, literal_column, or_, select, update

from trainflow.messages.execution_api import MetricCurves
from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.models import AttemptCurvesTable, AttemptTable, DagRunTable, OutboxTable, TaskInstanceTable
from trainflow.settings.outbox_channels import OutboxChannel

CURVES = AttemptCurvesTable.table
ATTEMPT = AttemptTable.table
TASK = TaskInstanceTable.table
RUN = DagRunTable.table
OUTBOX = OutboxTable.table

#: attempts of a task of a run that have curves
KEPT_ATTEMPTS = 20
#: runs of a DAG that have curves; and those that MLflow is still to be told of, included
KEPT_RUNS, MOST_RUNS = 100, 1_000


def put(connection: Connection, attempt_id: str, curves: MetricCurves) -> None:
    """Keep the curves of an attempt, instead of those that it had; of an attempt that is gone nothing."""
    given = {"attempt": attempt_id, "b_curves": curves}
    if not connection.execute(_REPLACE, given).rowcount and connection.execute(_INSERT, given).rowcount:
        _delete_old(connection, attempt_id)


_VALUE = bindparam("b_curves", type_=CURVES.c.curves.type)
_REPLACE = update(CURVES).where(CURVES.c.attempt_id == bindparam("attempt")).values(curves=_VALUE)
_OWNER = ATTEMPT.join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id).join(RUN, RUN.c.id == TASK.c.dag_run_id)
_INSERT = insert(CURVES).from_select(
    ["attempt_id", "dag_id", "run_number", "dag_run_id", "curves"],
    select(ATTEMPT.c.attempt_id, RUN.c.dag_id, RUN.c.number, RUN.c.id, _VALUE)
    .select_from(_OWNER)
    .where(ATTEMPT.c.attempt_id == bindparam("attempt")),
)


def _delete_old(connection: Connection, attempt_id: str) -> None:
    found = connection.execute(_PLACE, {"attempt": attempt_id}).one()
    oldest = connection.execute(_OLDEST_KEPT, {"task": found.task_instance_id}).scalar()
    old: list[str] = []
    if oldest is not None:
        old += connection.execute(_OLDER, {"task": found.task_instance_id, "attempt": oldest}).scalars()
    last, longest = found.run_number - KEPT_RUNS, found.run_number - MOST_RUNS
    if last > 0:
        # found first, and deleted by their key: a deletion that looks around itself locks what it looks at
        old += connection.execute(_OF_OLD_RUNS, {"dag": found.dag_id, "last": last, "longest": longest}).scalars()
    for part in in_parts(old):
        connection.execute(_DELETE, {"attempts": part})


_PLACE = (
    select(ATTEMPT.c.task_instance_id, CURVES.c.dag_id, CURVES.c.run_number)
    .join(ATTEMPT, ATTEMPT.c.attempt_id == CURVES.c.attempt_id)
    .where(CURVES.c.attempt_id == bindparam("attempt"))
)
_OF_TASK = (
    select(CURVES.c.attempt_id)
    .join(ATTEMPT, ATTEMPT.c.attempt_id == CURVES.c.attempt_id)
    .where(ATTEMPT.c.task_instance_id == bindparam("task"))
)
# attempt ids sort by time
_OLDEST_KEPT = _OF_TASK.order_by(CURVES.c.attempt_id.desc()).limit(1).offset(literal_column(str(KEPT_ATTEMPTS)))
_OLDER = _OF_TASK.where(CURVES.c.attempt_id <= bindparam("attempt"))
_DELETE = delete(CURVES).where(CURVES.c.attempt_id.in_(bindparam("attempts", expanding=True)))
_AWAITED = select(OUTBOX.c.dag_run_id).where(
    OUTBOX.c.channel == OutboxChannel.MLFLOW.value, OUTBOX.c.delivered_at.is_(None), OUTBOX.c.dag_run_id.is_not(None)
)
_OF_OLD_RUNS = select(CURVES.c.attempt_id).where(
    CURVES.c.dag_id == bindparam("dag"),
    CURVES.c.run_number <= bindparam("last"),
    or_(CURVES.c.run_number <= bindparam("longest"), CURVES.c.dag_run_id.not_in(_AWAITED)),
)


def of_attempts(connection: Connection, attempt_ids: Collection[str]) -> dict[str, MetricCurves]:
    """Attempt → its curves, of those that have any."""
    found: dict[str, MetricCurves] = {}
    for part in in_parts(sorted(attempt_ids)):
        found |= {row.attempt_id: row.curves for row in connection.execute(_OF_ATTEMPTS, {"attempts": part})}
    return found


_OF_ATTEMPTS = select(CURVES.c.attempt_id, CURVES.c.curves).where(
    CURVES.c.attempt_id.in_(bindparam("attempts", expanding=True))
)
