"""Attempts: the history of task instances, for people. What decides stands with the task instance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Update, bindparam, exists, func, insert, select, update

from trainflow.messages.execution_api import MOST_EARLIER, EarlierAttempt, Outcome
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.bound_parameters import bound_columns, bound_values, in_parts
from trainflow.metadata.models import AttemptTable, DagRunTable, TaskInstanceTable
from trainflow.observability.store_requests import StoreUse, summed
from trainflow.states import EXECUTION_STATES, UNFINISHED, DagRunState, TaskInstanceState

ATTEMPT = AttemptTable.table
TASK = TaskInstanceTable.table
RUN = DagRunTable.table


def record(
    connection: Connection,
    *,
    attempt_id: str,
    task_instance_id: int,
    try_number: int,
    now: datetime,
    log_name: str,
    service_id: int,
) -> None:
    """Remember that an attempt was handed out."""
    connection.execute(
        _RECORD,
        {
            "attempt_id": attempt_id,
            "task_instance_id": task_instance_id,
            "try_number": try_number,
            "queued_at": now,
            "log_name": log_name,
            "service_id": service_id,
        },
    )


_RECORD = insert(ATTEMPT)


def note(connection: Connection, attempt_id: str, **values: Any) -> None:
    """Write down how an attempt goes."""
    connection.execute(_update_statement(tuple(values)), {"k_attempt": attempt_id, **bound_values(values)})


@lru_cache(maxsize=64)
def _update_statement(columns: tuple[str, ...]) -> Update:
    return update(ATTEMPT).where(ATTEMPT.c.attempt_id == bindparam("k_attempt")).values(bound_columns(ATTEMPT, columns))


def explain(connection: Connection, attempt_id: str, cause: str) -> None:
    """Add the cause to what an attempt says of its bad end, and its task instance as long as it says the same."""
    row = connection.execute(
        select(ATTEMPT.c.problem, ATTEMPT.c.task_instance_id).where(
            ATTEMPT.c.attempt_id == attempt_id, ATTEMPT.c.ended_at.is_not(None)
        )
    ).one_or_none()
    if row is None or not row.problem or cause in row.problem:
        return
    problem = f"{row.problem}; {cause}"
    note(connection, attempt_id, problem=problem)
    same = (TASK.c.id == row.task_instance_id, TASK.c.problem == row.problem)
    connection.execute(update(TASK).where(*same).values(problem=problem))


def log_name(connection: Connection, attempt_id: str) -> str | None:
    """What the log of the attempt is called: relative to the logs of a home."""
    return connection.execute(select(ATTEMPT.c.log_name).where(ATTEMPT.c.attempt_id == attempt_id)).scalar()


def note_start(connection: Connection, key: AttemptKey, now: datetime, hostname: str) -> None:
    """Write down when and where an attempt began, if it holds its task instance, runs, and has not begun before."""
    connection.execute(
        _NOTE_START,
        {"attempt": key.attempt_id, "deferral": key.deferral_number, "b_now": now, "b_hostname": hostname},
    )


_NOTE_START = (
    update(ATTEMPT)
    .where(
        ATTEMPT.c.attempt_id == bindparam("attempt"),
        ATTEMPT.c.started_at.is_(None),
        exists().where(
            TASK.c.attempt_id == bindparam("attempt"),
            TASK.c.deferral_number == bindparam("deferral"),
            TASK.c.state == TaskInstanceState.RUNNING,
        ),
    )
    .values(started_at=bindparam("b_now", type_=ATTEMPT.c.started_at.type), hostname=bindparam("b_hostname"))
)


def started_at(connection: Connection, attempt_id: str) -> datetime | None:
    """When the attempt began, before whatever it has waited for since."""
    return connection.execute(_STARTED_AT, {"attempt": attempt_id}).scalar()


_STARTED_AT = select(ATTEMPT.c.started_at).where(ATTEMPT.c.attempt_id == bindparam("attempt"))


def begun_before(connection: Connection, task_instance_id: int, attempt_id: str) -> list[EarlierAttempt]:
    """Attempts that began at a task instance beside this one, oldest first; the newest of them, where they are many."""
    rows = connection.execute(_BEGUN_BEFORE, {"task": task_instance_id, "attempt": attempt_id})
    return [EarlierAttempt(*row) for row in rows][::-1]


_BEGUN_BEFORE = (
    select(ATTEMPT.c.attempt_id, ATTEMPT.c.outcome, ATTEMPT.c.hostname)
    .where(
        ATTEMPT.c.task_instance_id == bindparam("task"),
        ATTEMPT.c.attempt_id != bindparam("attempt"),
        ATTEMPT.c.started_at.is_not(None),
    )
    .order_by(ATTEMPT.c.queued_at.desc(), ATTEMPT.c.attempt_id.desc())
    .limit(MOST_EARLIER)
)


#: how attempts end that others give up
GIVEN_UP = ("lost", "cleared", "cancelled")


def note_refused(connection: Connection, attempt_ids: Collection[str], now: datetime) -> None:
    """Write down that attempts are heard, and told to stop, which had been given up: of each the first time."""
    for part in in_parts(sorted(attempt_ids)):
        connection.execute(_NOTE_REFUSED, {"attempts": part, "b_now": now})


_NOTE_REFUSED = (
    update(ATTEMPT)
    .where(
        ATTEMPT.c.attempt_id.in_(bindparam("attempts", expanding=True)),
        ATTEMPT.c.refused_at.is_(None),
        ATTEMPT.c.outcome.in_(GIVEN_UP),
    )
    .values(refused_at=bindparam("b_now", type_=ATTEMPT.c.refused_at.type))
)


def waits_until(connection: Connection, attempt_id: str, now: datetime) -> list[list[str]]:
    """When an attempt waited in the triggerer, the wait that ends now included."""
    row = connection.execute(_WAITS, {"attempt": attempt_id}).one_or_none()
    if row is None:
        return []
    return [*(row.waits or []), *([] if row.ended_at is None else [[row.ended_at.isoformat(), now.isoformat()]])]


_WAITS = select(ATTEMPT.c.waits, ATTEMPT.c.ended_at).where(ATTEMPT.c.attempt_id == bindparam("attempt"))


def outcome(connection: Connection, attempt_id: str) -> str | None:
    """How an attempt ended, as far as it is known."""
    return connection.execute(_OUTCOME, {"attempt": attempt_id}).scalar()


_OUTCOME = select(ATTEMPT.c.outcome).where(ATTEMPT.c.attempt_id == bindparam("attempt"))


def that_ended(connection: Connection, attempt_ids: Collection[str], how: Collection[str]) -> set[str]:
    """Attempts of these that ended in one of these ways."""
    found: set[str] = set()
    for part in in_parts(sorted(attempt_ids)):
        asked = connection.execute(_THAT_ENDED, {"attempts": part, "outcomes": sorted(how)})
        found.update(row.attempt_id for row in asked)
    return found


_THAT_ENDED = select(ATTEMPT.c.attempt_id).where(
    ATTEMPT.c.attempt_id.in_(bindparam("attempts", expanding=True)),
    ATTEMPT.c.outcome.in_(bindparam("outcomes", expanding=True)),
)


def noted_of(connection: Connection, outcome: Outcome) -> dict[str, Any]:
    """What is to be noted of an outcome beside what is always noted: the requests of its process, on top of those
    that the attempt made before it waited; the fields that it has rendered. Costs nothing where there are none."""
    rendered = {"rendered_fields": outcome.rendered_fields} if outcome.rendered_fields else {}
    return rendered | _store_use_of(connection, outcome)


def _store_use_of(connection: Connection, outcome: Outcome) -> dict[str, Any]:
    if not outcome.store_use:
        return {}
    uses = list(outcome.store_use)
    if outcome.key.deferral_number:
        known = connection.execute(_STORE_USE, {"attempt": outcome.key.attempt_id}).scalar()
        uses = summed([*store_uses(known), *uses])
    return {"store_use": msgspec.to_builtins(uses)}


_STORE_USE = select(ATTEMPT.c.store_use).where(ATTEMPT.c.attempt_id == bindparam("attempt"))


def store_uses(stored: Any) -> list[StoreUse]:
    """What is in the column."""
    return msgspec.convert(stored or [], list[StoreUse], strict=False)


def store_use_by_run(connection: Connection, runs: Sequence[int]) -> dict[int, list[StoreUse]]:
    """What the attempts of runs asked of stores, one value for each store and kind of request; by the id of the run."""
    found: dict[int, list[StoreUse]] = {run: [] for run in runs}
    for part in in_parts(list(runs)):
        for run, stored in connection.execute(_STORE_USE_OF_RUNS, {"runs": list(part)}):
            found[run] += store_uses(stored)
    return {run: summed(uses) for run, uses in found.items()}


_STORE_USE_OF_RUNS = (
    select(TASK.c.dag_run_id, ATTEMPT.c.store_use)
    .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
    .where(TASK.c.dag_run_id.in_(bindparam("runs", expanding=True)), ATTEMPT.c.store_use.is_not(None))
)


def counted(
    connection: Connection, *, ids: Sequence[str] | None = None, after: str = "", most: int = 1_000
) -> list[Row[Any]]:
    """(attempt_id, dag_id, task_id, outcome, queued_at, started_at, ended_at, store_use) of these attempts; or of those
    handed out after one, in their order (their ids sort by time), at most so many."""
    if ids is not None:
        rows: list[Row[Any]] = []
        for part in in_parts(ids):
            rows += connection.execute(_COUNTED_BY_ID, {"ids": part})
        return rows
    return list(connection.execute(_COUNTED_AFTER, {"after": after, "most": most}))


_COUNTED = (
    select(
        ATTEMPT.c.attempt_id, RUN.c.dag_id, TASK.c.task_id, ATTEMPT.c.outcome,
        ATTEMPT.c.queued_at, ATTEMPT.c.started_at, ATTEMPT.c.ended_at, ATTEMPT.c.store_use,
    )
    .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
)  # fmt: skip
_COUNTED_BY_ID = _COUNTED.where(ATTEMPT.c.attempt_id.in_(bindparam("ids", expanding=True)))
_COUNTED_AFTER = (
    _COUNTED.where(ATTEMPT.c.attempt_id > bindparam("after")).order_by(ATTEMPT.c.attempt_id).limit(bindparam("most"))
)


def count_in_run(connection: Connection, dag_run_id: int, outcome: str) -> int:
    """How many attempts of a run have ended like this since it was started, or a person let all of it run again."""
    return connection.execute(_COUNT_IN_RUN, {"run": dag_run_id, "outcome": outcome}).scalar_one()


_COUNT_IN_RUN = (
    select(func.count())
    .select_from(ATTEMPT)
    .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .where(
        RUN.c.id == bindparam("run"),
        ATTEMPT.c.outcome == bindparam("outcome"),
        ATTEMPT.c.queued_at >= RUN.c.started_at,
    )
)


def end_of_tasks(connection: Connection, ids: Sequence[int], *, outcome: str, now: datetime) -> None:
    """Attempts of these task instances that are under way are not waited for any more."""
    under_way = [*EXECUTION_STATES, TaskInstanceState.DEFERRED]
    for part in in_parts(ids):
        held = (TASK.c.id.in_(part), TASK.c.state.in_(under_way), TASK.c.attempt_id.is_not(None))
        attempts = list(connection.execute(select(TASK.c.attempt_id).where(*held)).scalars())
        if attempts:
            # by their names: with a subquery MariaDB reads every attempt there ever was
            ending = update(ATTEMPT).where(ATTEMPT.c.attempt_id.in_(attempts))
            connection.execute(ending.values(outcome=outcome, ended_at=now))


def of_unfinished_runs(connection: Connection, *, ended: bool = False) -> set[str]:
    """The attempts that runs which have not ended stand on: what they made may still be committed. `ended`: those that
    they took the place of; what one of these has trained the next one may put into the store under the name of that."""
    return set(connection.execute(_ENDED if ended else _OF_UNFINISHED_RUNS).scalars())


_OF_UNFINISHED_RUNS = (
    select(TASK.c.attempt_id)
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .where(RUN.c.state.in_([DagRunState.QUEUED, DagRunState.RUNNING]), TASK.c.attempt_id.is_not(None))
)
_ENDED = (
    select(ATTEMPT.c.attempt_id)
    .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .where(RUN.c.state.in_([DagRunState.QUEUED, DagRunState.RUNNING]), ATTEMPT.c.attempt_id != TASK.c.attempt_id)
)


def of_task(connection: Connection, task_instance_id: int) -> list[Row[Any]]:
    """The attempts of a task instance, oldest first (their ids sort by time)."""
    return list(
        connection.execute(
            select(ATTEMPT)
            .where(ATTEMPT.c.task_instance_id == task_instance_id)
            .order_by(ATTEMPT.c.queued_at, ATTEMPT.c.attempt_id)
        )
    )


def of_tasks(connection: Connection, ids: Sequence[int]) -> list[Row[Any]]:
    """The attempts of task instances, oldest first, without what is large of them."""
    found: list[Row[Any]] = []
    for part in in_parts(ids):
        found += connection.execute(select(*_SMALL).where(ATTEMPT.c.task_instance_id.in_(part)))
    return sorted(found, key=lambda row: (row.queued_at, row.attempt_id))


_SMALL = [column for column in ATTEMPT.c if column.name not in ("store_use", "rendered_fields")]


def rendered_fields_of(connection: Connection, task_instance_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Task instance → its template fields as its newest attempt that has rendered them did."""
    rows: list[Row[Any]] = []
    for part in in_parts(task_instance_ids):
        rows += connection.execute(_RENDERED, {"ids": list(part)})
    return {row.task_instance_id: row.rendered_fields for row in sorted(rows, key=lambda row: row.attempt_id)}


_RENDERED = select(ATTEMPT.c.task_instance_id, ATTEMPT.c.attempt_id, ATTEMPT.c.rendered_fields).where(
    ATTEMPT.c.task_instance_id.in_(bindparam("ids", expanding=True)), ATTEMPT.c.rendered_fields.is_not(None)
)


def counts_of(connection: Connection, task_instance_ids: Sequence[int]) -> dict[int, int]:
    """Task instance → how many attempts it has had, for those that had any."""
    counted = select(ATTEMPT.c.task_instance_id, func.count()).group_by(ATTEMPT.c.task_instance_id)
    found: dict[int, int] = {}
    for part in in_parts(task_instance_ids):
        rows = connection.execute(counted.where(ATTEMPT.c.task_instance_id.in_(part)))
        found |= {row[0]: row[1] for row in rows}
    return found


def done_in_one_go(connection: Connection, runs: Sequence[int]) -> list[Row[Any]]:
    """(dag_run_id, task_instance_id, started_at, ended_at) of the attempts in these runs that came to their own end and
    never waited in the triggerer."""
    return list(connection.execute(_DONE_IN_ONE_GO, {"runs": list(runs)}))


_DONE_IN_ONE_GO = (
    select(TASK.c.dag_run_id, ATTEMPT.c.task_instance_id, ATTEMPT.c.started_at, ATTEMPT.c.ended_at)
    .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
    .where(
        TASK.c.dag_run_id.in_(bindparam("runs", expanding=True)),
        TASK.c.deferral_number == 0,
        ATTEMPT.c.outcome.in_([TaskInstanceState.SUCCESS, TaskInstanceState.FAILED]),
        ATTEMPT.c.started_at.is_not(None),
        ATTEMPT.c.ended_at.is_not(None),
    )
)


def logs_under_way(connection: Connection) -> list[str]:
    """The name of the log of every attempt that has a process or is about to have one."""
    held = select(TASK.c.attempt_id).where(TASK.c.state.in_(sorted(EXECUTION_STATES)))
    return list(connection.execute(select(ATTEMPT.c.log_name).where(ATTEMPT.c.attempt_id.in_(held))).scalars())


def logs_since(connection: Connection, attempt_id: str, limit: int | None = None) -> list[tuple[str, str]]:
    """(attempt_id, log_name) of the attempts that were handed out after this one, in their order, `limit` at most."""
    return [(row[0], row[1]) for row in connection.execute(_LOGS_SINCE.limit(limit), {"attempt": attempt_id})]


_LOGS_SINCE = (
    select(ATTEMPT.c.attempt_id, ATTEMPT.c.log_name)
    .where(ATTEMPT.c.attempt_id > bindparam("attempt"))
    .order_by(ATTEMPT.c.attempt_id)
)


def logs_that_wait(connection: Connection) -> set[tuple[str, int]]:
    """(log_name, deferral_number) of the attempts that wait in the triggerer."""
    return {(row[0], row[1]) for row in connection.execute(_LOGS_THAT_WAIT)}


_LOGS_THAT_WAIT = (
    select(ATTEMPT.c.log_name, TASK.c.deferral_number)
    .join(TASK, TASK.c.attempt_id == ATTEMPT.c.attempt_id)
    .where(TASK.c.state == TaskInstanceState.DEFERRED)
)


def under_way(connection: Connection) -> set[str]:
    """Every attempt that has not ended, as far as task instances know."""
    held = (TASK.c.state.in_(sorted(UNFINISHED)), TASK.c.attempt_id.is_not(None))
    return set(connection.execute(select(TASK.c.attempt_id).where(*held)).scalars())
