"""Task instances: made, read and moved. `move` is the only statement that changes a state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    Update,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from trainflow.errors import IllegalTransition, LostTransition
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.models import Attempt, Dag, DagRun, TaskInstance, XCom
from trainflow.serialization.document import DagDocument
from trainflow.states import HELD, TASK_MOVES, UNFINISHED, TaskInstanceState

TASK = TaskInstance.table
ATTEMPT = Attempt.table
RUN = DagRun.table
XCOM = XCom.table
DAG = Dag.table

State = TaskInstanceState | None


class TaskState(NamedTuple):
    """What deciding about a run needs to know of one task instance."""

    id: int
    task_id: str
    map_index: int
    state: State
    retry_at: datetime | None


def move(
    connection: Connection,
    task_instance_id: int,
    *,
    leaving: Collection[State],
    to: State,
    key: AttemptKey | None = None,
    **values: Any,
) -> None:
    """Move one task instance to `to` if it is in one of `leaving` (and, with `key`, held by that attempt).

    Raises LostTransition when it is not there any more, and then has changed nothing.
    """
    statement = _move_statement(frozenset(leaving), to, key is not None, tuple(values))
    bound = {f"b_{name}": value for name, value in values.items()}
    held_by_key = {"k_attempt": key.attempt_id, "k_deferral": key.deferral_number} if key is not None else {}
    if connection.execute(statement, {"k_id": task_instance_id, **held_by_key, **bound}).rowcount != 1:
        held = f" held by attempt {key.attempt_id}.{key.deferral_number}" if key else ""
        raise LostTransition(
            f"task instance {task_instance_id} is not {_names(leaving)}{held} any more: not moved to {to or 'none'}"
        )


@lru_cache(maxsize=512)
def _move_statement(leaving: frozenset[State], to: State, with_key: bool, columns: tuple[str, ...]) -> Update:
    """The statement of a move. There are a few dozen of them; making one takes longer than executing it."""
    _check_legal(leaving, to)
    statement = update(TASK).where(TASK.c.id == bindparam("k_id"), _in_states(leaving))
    if with_key:
        statement = statement.where(
            TASK.c.attempt_id == bindparam("k_attempt"), TASK.c.deferral_number == bindparam("k_deferral")
        )
    return statement.values(state=to, **{name: bindparam(f"b_{name}", type_=TASK.c[name].type) for name in columns})


def move_all(
    connection: Connection, ids: Sequence[int], *, leaving: Collection[State], to: State, **values: Any
) -> int:
    """Move every one of `ids` that is in one of `leaving`; returns how many were."""
    statement = _move_all_statement(frozenset(leaving), to, tuple(values))
    bound = {f"b_{name}": value for name, value in values.items()}
    return sum(
        connection.execute(statement, {"k_ids": list(ids[start : start + 500]), **bound}).rowcount
        for start in range(0, len(ids), 500)
    )


@lru_cache(maxsize=512)
def _move_all_statement(leaving: frozenset[State], to: State, columns: tuple[str, ...]) -> Update:
    _check_legal(leaving, to)
    statement = update(TASK).where(TASK.c.id.in_(bindparam("k_ids", expanding=True)), _in_states(leaving))
    return statement.values(state=to, **{name: bindparam(f"b_{name}", type_=TASK.c[name].type) for name in columns})


def _check_legal(leaving: Collection[State], to: State) -> None:
    for source in leaving:
        if to not in TASK_MOVES[source]:
            raise IllegalTransition(f"a task instance never goes from {source or 'none'} to {to or 'none'}")


def _in_states(states: Collection[State]) -> Any:
    """States are written out: a list of parameters would be expanded again at each execution."""
    named = sorted(state for state in states if state is not None)
    conditions = [TASK.c.state == literal_column(f"'{state.value}'") for state in named]
    if None in states:
        conditions.append(TASK.c.state.is_(None))
    return or_(*conditions)


def _names(states: Collection[State]) -> str:
    return " or ".join(sorted(state or "none" for state in states))


def create_for_run(connection: Connection, dag_run_id: int, document: DagDocument) -> None:
    """One row for each task of the run's version, with no state yet."""
    rows = [
        {
            "dag_run_id": dag_run_id,
            "task_id": task.task_id,
            "map_index": -1,
            "max_tries": task.retry.retries,
            "pool": task.pool,
            "pool_slots": task.pool_slots,
            "priority_weight": task.priority_weight,
            "queue": task.queue,
        }
        for task in document.tasks
    ]
    if rows:
        connection.execute(insert(TASK), rows)


def of_run(connection: Connection, dag_run_id: int) -> list[TaskState]:
    """Every task instance of a run."""
    return [
        TaskState(number, task_id, map_index, _STATES[state], retry_at)
        for number, task_id, map_index, state, retry_at in connection.execute(_OF_RUN, {"run": dag_run_id})
    ]


_STATES: dict[str | None, State] = {None: None, **{state.value: state for state in TaskInstanceState}}
_OF_RUN = select(TASK.c.id, TASK.c.task_id, TASK.c.map_index, TASK.c.state, TASK.c.retry_at).where(
    TASK.c.dag_run_id == bindparam("run")
)


def states_in_run(connection: Connection, dag_run_id: int) -> dict[str, State]:
    """Task id → state, for looking at the past of a run."""
    return {task.task_id: task.state for task in of_run(connection, dag_run_id)}


class Held(NamedTuple):
    """A task instance in the hands of an executor."""

    id: int
    dag_run_id: int
    task_id: str
    pool: str
    pool_slots: int
    service_id: int | None
    state: TaskInstanceState


def held(connection: Connection) -> list[Held]:
    """Everything in the hands of executors: what the limits are counted from."""
    return [Held._make(row) for row in connection.execute(_HELD)]


_HELD = select(
    TASK.c.id,
    TASK.c.dag_run_id,
    TASK.c.task_id,
    TASK.c.pool,
    TASK.c.pool_slots,
    TASK.c.service_id,
    TASK.c.state,
).where(_in_states(HELD))


def deferred_pool_slots(connection: Connection, pools: Collection[str]) -> dict[str, int]:
    """Pool → slots of deferred task instances, for pools that count those."""
    rows = connection.execute(
        select(TASK.c.pool, TASK.c.pool_slots).where(
            TASK.c.state == TaskInstanceState.DEFERRED, TASK.c.pool.in_(list(pools))
        )
    )
    slots: dict[str, int] = {}
    for pool, count in rows:
        slots[pool] = slots.get(pool, 0) + count
    return slots


class Candidate(NamedTuple):
    """A scheduled task instance that may be queued."""

    id: int
    dag_run_id: int
    task_id: str
    map_index: int
    pool: str
    pool_slots: int
    priority_weight: int
    queue: str
    attempt_id: str | None
    deferral_number: int
    failures: int
    next_method: str | None
    dag_id: str
    run_id: str
    version_id: int


def lock_scheduled(
    connection: Connection,
    *,
    limit: int,
    without_pools: Iterable[str] = (),
    without_runs: Iterable[int] = (),
    without_ids: Iterable[int] = (),
) -> list[Candidate]:
    """The next `limit` scheduled task instances in queueing order, outside of pools and runs that are full.

    Those that resume after a wait go first: they have waited already, and hold what they waited for. Rows that another
    scheduler is looking at are passed over.
    """
    statement = _SCHEDULED
    if pools := list(without_pools):
        statement = statement.where(TASK.c.pool.not_in(pools))
    if runs := list(without_runs):
        statement = statement.where(TASK.c.dag_run_id.not_in(runs))
    if ids := list(without_ids):
        statement = statement.where(TASK.c.id.not_in(ids))
    return [Candidate._make(row) for row in connection.execute(statement, {"most": limit})]


_SCHEDULED = (
    select(
        TASK.c.id,
        TASK.c.dag_run_id,
        TASK.c.task_id,
        TASK.c.map_index,
        TASK.c.pool,
        TASK.c.pool_slots,
        TASK.c.priority_weight,
        TASK.c.queue,
        TASK.c.attempt_id,
        TASK.c.deferral_number,
        TASK.c.failures,
        TASK.c.next_method,
        RUN.c.dag_id,
        RUN.c.run_id,
        RUN.c.version_id,
    )
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .join(DAG, DAG.c.dag_id == RUN.c.dag_id)
    .where(_in_states({TaskInstanceState.SCHEDULED}), DAG.c.is_paused.is_(False))
    .order_by(TASK.c.resumed.desc(), TASK.c.priority_weight.desc(), TASK.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, of=TASK)
)


def due(connection: Connection, now: datetime) -> list[Row[Any]]:
    """(id, dag_run_id) of those whose retry or reschedule time has come."""
    waiting = [TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE]
    return list(
        connection.execute(
            select(TASK.c.id, TASK.c.dag_run_id).where(TASK.c.state.in_(waiting), TASK.c.retry_at <= now)
        )
    )


def next_due_at(connection: Connection) -> datetime | None:
    """When the next retry or reschedule is due."""
    return connection.execute(_NEXT_DUE).scalar()


_NEXT_DUE = (
    select(TASK.c.retry_at)
    .where(_in_states({TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE}))
    .order_by(TASK.c.retry_at)
    .limit(1)
)


def by_key(connection: Connection, key: AttemptKey) -> Any | None:
    """The task instance that this attempt holds or held, with its run; None when the attempt is stale."""
    named = {"attempt": key.attempt_id, "deferral": key.deferral_number}
    return connection.execute(_BY_KEY, named).one_or_none()


_BY_KEY = (
    select(
        TASK.c.id,
        TASK.c.dag_run_id,
        TASK.c.task_id,
        TASK.c.map_index,
        TASK.c.state,
        TASK.c.failures,
        TASK.c.max_tries,
        TASK.c.lost,
        TASK.c.reschedules,
        TASK.c.scheduled_at,
        TASK.c.started_at,
        TASK.c.pid,
        TASK.c.process_started,
        TASK.c.next_method,
        TASK.c.next_kwargs,
        TASK.c.cleared_at,
        TASK.c.saved_rows,
        TASK.c.credited_rows,
        # an earlier attempt did not end well: it may have left XComs
        TASK.c.problem.is_not(None).label("had_problem"),
        RUN.c.dag_id,
        RUN.c.run_id,
        RUN.c.version_id,
    )
    .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    .where(TASK.c.attempt_id == bindparam("attempt"), TASK.c.deferral_number == bindparam("deferral"))
)


def held_by(connection: Connection, service_ids: Collection[int]) -> list[Row[Any]]:
    """What the executors of these services hold, with pid and attempt."""
    return list(connection.execute(_held_by(service_ids)))


def take_over(connection: Connection, service_ids: Collection[int], service_id: int) -> list[Row[Any]]:
    """Make what the executors of `service_ids` hold the business of `service_id`; returns those rows.

    What another scheduler is just taking over is left to it.
    """
    rows = list(connection.execute(_held_by(service_ids).with_for_update(skip_locked=True)))
    ids = [row.id for row in rows]
    for start in range(0, len(ids), 500):
        connection.execute(
            update(TASK).where(TASK.c.id.in_(ids[start : start + 500])).values(service_id=service_id)
        )
    return rows


def _held_by(service_ids: Collection[int]) -> Any:
    return select(
        TASK.c.id,
        TASK.c.dag_run_id,
        TASK.c.task_id,
        TASK.c.state,
        TASK.c.attempt_id,
        TASK.c.deferral_number,
        TASK.c.pid,
        TASK.c.process_started,
        TASK.c.hostname,
        TASK.c.service_id,
    ).where(TASK.c.state.in_(sorted(HELD)), TASK.c.service_id.in_(list(service_ids)))


def record_attempt(
    connection: Connection, *, attempt_id: str, task_instance_id: int, try_number: int, now: datetime, log_path: str
) -> None:
    """Remember that an attempt was handed out."""
    connection.execute(
        _RECORD_ATTEMPT,
        {
            "attempt_id": attempt_id,
            "task_instance_id": task_instance_id,
            "try_number": try_number,
            "queued_at": now,
            "log_path": log_path,
        },
    )


_RECORD_ATTEMPT = insert(ATTEMPT)


def update_attempt(connection: Connection, attempt_id: str, **values: Any) -> None:
    """Write down how an attempt goes."""
    bound = {f"b_{name}": value for name, value in values.items()}
    connection.execute(_update_attempt_statement(tuple(values)), {"k_attempt": attempt_id, **bound})


@lru_cache(maxsize=64)
def _update_attempt_statement(columns: tuple[str, ...]) -> Update:
    bound = {name: bindparam(f"b_{name}", type_=ATTEMPT.c[name].type) for name in columns}
    return update(ATTEMPT).where(ATTEMPT.c.attempt_id == bindparam("k_attempt")).values(**bound)


def attempt_log(connection: Connection, attempt_id: str) -> str | None:
    """Where the attempt writes its log."""
    return connection.execute(select(ATTEMPT.c.log_path).where(ATTEMPT.c.attempt_id == attempt_id)).scalar()


def attempt_outcome(connection: Connection, attempt_id: str) -> str | None:
    """How an attempt ended, as far as it is known."""
    return connection.execute(select(ATTEMPT.c.outcome).where(ATTEMPT.c.attempt_id == attempt_id)).scalar()


def update_progress(connection: Connection, key: AttemptKey, *, progress: dict[str, Any], now: datetime) -> None:
    """Show how far a running attempt is; a stale one changes nothing."""
    connection.execute(
        update(TASK)
        .where(
            TASK.c.attempt_id == key.attempt_id,
            TASK.c.deferral_number == key.deferral_number,
            TASK.c.state == TaskInstanceState.RUNNING,
        )
        .values(progress=progress, heartbeat_at=now)
    )


def update_saved_rows(connection: Connection, key: AttemptKey, rows: int) -> None:
    """Remember how much of its split a running attempt has saved, where that is more than before."""
    connection.execute(
        _UPDATE_SAVED_ROWS, {"attempt": key.attempt_id, "deferral": key.deferral_number, "b_rows": rows}
    )


_UPDATE_SAVED_ROWS = (
    update(TASK)
    .where(
        TASK.c.attempt_id == bindparam("attempt"),
        TASK.c.deferral_number == bindparam("deferral"),
        _in_states({TaskInstanceState.RUNNING}),
        or_(TASK.c.saved_rows.is_(None), TASK.c.saved_rows < bindparam("b_rows")),
    )
    .values(saved_rows=bindparam("b_rows"))
)


def heartbeat(connection: Connection, service_id: int, now: datetime) -> None:
    """Say for everything an executor holds that it is looked after. One statement, no locks held."""
    connection.execute(
        update(TASK).where(TASK.c.service_id == service_id, TASK.c.state.in_(sorted(HELD))).values(heartbeat_at=now)
    )


def cancel(connection: Connection, dag_run_id: int, now: datetime, problem: str) -> None:
    """End what has not ended: what an executor holds fails (its report will be stale), the rest is skipped."""
    rows = unfinished(connection, dag_run_id, lock=True)
    ids = [row.id for row in rows]
    _end_attempts(connection, ids, outcome="cancelled", now=now)
    waiting: set[State] = {None, *(UNFINISHED - HELD)}
    move_all(connection, ids, leaving=waiting, to=TaskInstanceState.SKIPPED, ended_at=now, retry_at=None)
    move_all(connection, ids, leaving=HELD, to=TaskInstanceState.FAILED, ended_at=now, problem=problem)


def _end_attempts(connection: Connection, ids: Sequence[int], *, outcome: str, now: datetime) -> None:
    """Attempts that are under way are not waited for any more."""
    under_way = [*HELD, TaskInstanceState.DEFERRED]
    for start in range(0, len(ids), 500):
        attempts = select(TASK.c.attempt_id).where(
            TASK.c.id.in_(ids[start : start + 500]), TASK.c.state.in_(under_way), TASK.c.attempt_id.is_not(None)
        )
        connection.execute(
            update(ATTEMPT).where(ATTEMPT.c.attempt_id.in_(attempts)).values(outcome=outcome, ended_at=now)
        )


def clear(connection: Connection, ids: Sequence[int], now: datetime) -> int:
    """Forget that these task instances ran: no state, no failures, no XComs, as if new. Returns how many.

    What an executor still holds is cleared as well: its report will be stale.
    """
    if not ids:
        return 0
    _end_attempts(connection, ids, outcome="cleared", now=now)
    leaving: list[State] = [state for state, targets in TASK_MOVES.items() if None in targets]
    running = [TaskInstanceState.RUNNING]
    blank = {
        "failures": 0,
        "lost": 0,
        "attempt_id": None,
        "deferral_number": 0,
        "reschedules": 0,
        "scheduled_at": None,
        "queued_at": None,
        "started_at": None,
        "ended_at": None,
        "retry_at": None,
        "pid": None,
        "resumed": False,
        "next_method": None,
        "next_kwargs": None,
        "progress": None,
        "problem": None,
        "note": None,
        "service_id": None,
        "cleared_at": now,
        "saved_rows": None,
        "credited_rows": None,
    }
    # a running one goes through scheduled: the same road as one that infrastructure lost
    move_all(connection, ids, leaving=running, to=TaskInstanceState.SCHEDULED)
    moved = move_all(connection, ids, leaving=leaving, to=None, **blank)
    rows = connection.execute(select(TASK.c.dag_run_id, TASK.c.task_id, TASK.c.map_index).where(TASK.c.id.in_(ids)))
    for row in rows.all():
        delete_xcoms(connection, row.dag_run_id, row.task_id, row.map_index)
    return moved


def delete_xcoms(connection: Connection, dag_run_id: int, task_id: str, map_index: int) -> None:
    """Forget what a task handed over."""
    connection.execute(_DELETE_XCOMS, {"run": dag_run_id, "task": task_id, "index": map_index})


_DELETE_XCOMS = delete(XCOM).where(
    XCOM.c.dag_run_id == bindparam("run"),
    XCOM.c.task_id == bindparam("task"),
    XCOM.c.map_index == bindparam("index"),
)


def unfinished(connection: Connection, dag_run_id: int, *, lock: bool = False) -> list[Row[Any]]:
    """(id, task_id, state) of those that have not ended; with `lock`, nobody else moves them in this transaction."""
    statement = select(TASK.c.id, TASK.c.task_id, TASK.c.state).where(
        TASK.c.dag_run_id == dag_run_id,
        or_(TASK.c.state.is_(None), TASK.c.state.in_(sorted(UNFINISHED))),
    )
    return list(connection.execute(statement.with_for_update() if lock else statement))


def rows_of_run(connection: Connection, dag_run_id: int) -> list[Row[Any]]:
    """Everything about every task instance of a run, for people."""
    return list(connection.execute(select(TASK).where(TASK.c.dag_run_id == dag_run_id).order_by(TASK.c.id)))


def row(connection: Connection, task_instance_id: int) -> Row[Any] | None:
    """Everything about one task instance, for people; None when it is gone."""
    return connection.execute(select(TASK).where(TASK.c.id == task_instance_id)).one_or_none()


def attempts_of(connection: Connection, task_instance_id: int) -> list[Row[Any]]:
    """The attempts of a task instance, oldest first (their ids sort by time)."""
    return list(
        connection.execute(
            select(ATTEMPT)
            .where(ATTEMPT.c.task_instance_id == task_instance_id)
            .order_by(ATTEMPT.c.queued_at, ATTEMPT.c.attempt_id)
        )
    )


def count_in_pool(connection: Connection, pool: str) -> int:
    """How many unfinished task instances name this pool."""
    return connection.execute(
        select(func.count())
        .select_from(TASK)
        .where(TASK.c.pool == pool, or_(TASK.c.state.is_(None), TASK.c.state.in_(sorted(UNFINISHED))))
    ).scalar_one()
