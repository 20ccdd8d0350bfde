"""Task instances: made, read, moved, and taken away from their attempts (`cancel`, `clear`), whose reports are stale
then.

`move` is the only statement that changes a state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    Update,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from trainflow.deadlines import TOLERANCE
from trainflow.errors import IllegalTransition, LostTransition
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.bound_parameters import bound_columns, bound_values, in_parts
from trainflow.metadata.models import DagRunTable, TaskInstanceTable
from trainflow.metadata.queries import attempt_queries, xcom_queries
from trainflow.metadata.retry_policy import cleared_at
from trainflow.serialization.document import DagDocument
from trainflow.states import EXECUTION_STATES, TASK_MOVES, UNFINISHED, TaskInstanceState

TASK = TaskInstanceTable.table
RUN = DagRunTable.table

State = TaskInstanceState | None


class TaskStateRow(NamedTuple):
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
    begin_move(connection, task_instance_id, leaving=leaving, to=to, key=key, **values).check()


class Move(NamedTuple):
    """A move of which it is not known yet whether it has moved anything."""

    moved: Any
    lost: str

    def check(self) -> None:
        """Raise LostTransition when the task instance was not there any more; nothing has changed then."""
        if self.moved.rowcount != 1:
            raise LostTransition(self.lost)


def begin_move(
    connection: Connection,
    task_instance_id: int | None,
    *,
    leaving: Collection[State],
    to: State,
    key: AttemptKey | None = None,
    first_started_at: datetime | None = None,
    fresh: bool = False,
    **values: Any,
) -> Move:
    """Like `move`; whether it moved anything is to be checked before the transaction is committed. What is asked in
    between goes along to the server. Without an id: the one that the attempt holds. `first_started_at` is kept where
    it has started before. `fresh`: only one that has had no attempt before."""
    once = first_started_at is not None
    statement = _move_statement(
        frozenset(leaving), to, task_instance_id is not None, key is not None, once, fresh, tuple(values)
    )
    named = {} if task_instance_id is None else {"k_id": task_instance_id}
    held_by_key = parameters_of(key) if key is not None else {}
    first = {"b_first": first_started_at} if once else {}
    held = f" held by attempt {key.attempt_id}.{key.deferral_number}" if key else ""
    which = "the task instance" if task_instance_id is None else f"task instance {task_instance_id}"
    return Move(
        connection.execute(statement, {**named, **held_by_key, **first, **bound_values(values)}),
        f"{which} is not {_names(leaving)}{held} any more: not moved to {to or 'none'}",
    )


@lru_cache(maxsize=512)
def _move_statement(
    leaving: frozenset[State], to: State, by_id: bool, by_key: bool, once: bool, fresh: bool, columns: tuple[str, ...]
) -> Update:
    """The statement of a move. There are a few dozen of them; making one takes longer than executing it."""
    _check_legal(leaving, to)
    assert by_id or by_key
    statement = update(TASK).where(in_states(leaving))
    if by_id:
        statement = statement.where(TASK.c.id == bindparam("k_id"))
    if by_key:
        statement = statement.where(*OF_ATTEMPT)
    if fresh:
        statement = statement.where(TASK.c.started_at.is_(None), TASK.c.problem.is_(None), TASK.c.cleared_at.is_(None))
    values = bound_columns(TASK, columns)
    if once:
        first = bindparam("b_first", type_=TASK.c.started_at.type)
        values["started_at"] = func.coalesce(TASK.c.started_at, first)
    return statement.values(state=to, **values)


def move_all(
    connection: Connection, ids: Sequence[int], *, leaving: Collection[State], to: State, **values: Any
) -> int:
    """Move every one of `ids` that is in one of `leaving`; returns how many were."""
    return begin_move_all(connection, ids, leaving=leaving, to=to, **values)()


def begin_move_all(
    connection: Connection, ids: Sequence[int], *, leaving: Collection[State], to: State, **values: Any
) -> Callable[[], int]:
    """Like `move_all`: call what is returned to know how many were moved, if that matters."""
    statement = _move_all_statement(frozenset(leaving), to, tuple(values))
    bound = bound_values(values)
    moved = [connection.execute(statement, {"k_ids": part, **bound}) for part in in_parts(ids)]
    return lambda: sum(each.rowcount for each in moved)


@lru_cache(maxsize=512)
def _move_all_statement(leaving: frozenset[State], to: State, columns: tuple[str, ...]) -> Update:
    _check_legal(leaving, to)
    statement = update(TASK).where(TASK.c.id.in_(bindparam("k_ids", expanding=True)), in_states(leaving))
    return statement.values(state=to, **bound_columns(TASK, columns))


def _check_legal(leaving: Collection[State], to: State) -> None:
    for source in leaving:
        if to not in TASK_MOVES[source]:
            raise IllegalTransition(f"a task instance never goes from {source or 'none'} to {to or 'none'}")


def parameters_of(key: AttemptKey) -> dict[str, Any]:
    """The parameters of `OF_ATTEMPT`."""
    return {"attempt": key.attempt_id, "deferral": key.deferral_number}


#: what is held by one attempt, and not given to another since
OF_ATTEMPT = (TASK.c.attempt_id == bindparam("attempt"), TASK.c.deferral_number == bindparam("deferral"))


def in_states(states: Collection[State]) -> Any:
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
            "executor": task.executor,
        }
        for task in document.tasks
    ]
    if rows:
        connection.execute(_INSERT, rows)


_INSERT = insert(TASK)


def of_run(connection: Connection, dag_run_id: int) -> list[TaskStateRow]:
    """Every task instance of a run."""
    return [
        TaskStateRow(number, task_id, map_index, _STATES[state], retry_at)
        for number, task_id, map_index, state, retry_at in connection.execute(_OF_RUN, {"run": dag_run_id})
    ]


_STATES: dict[str | None, State] = {None: None, **{state.value: state for state in TaskInstanceState}}
_OF_RUN = select(TASK.c.id, TASK.c.task_id, TASK.c.map_index, TASK.c.state, TASK.c.retry_at).where(
    TASK.c.dag_run_id == bindparam("run")
)


class TasksOfRuns:
    """The task instances of some runs, read when they are looked at first."""

    def __init__(self, asked: Any) -> None:
        self._asked = asked
        self._found: dict[int, list[Any]] | None = None

    def of(self, dag_run_id: int) -> list[TaskStateRow]:
        """The tasks of one of the runs."""
        if self._found is None:
            self._found = {}
            for run, *row in self._asked:
                self._found.setdefault(run, []).append(row)
        return [
            TaskStateRow(number, task_id, map_index, _STATES[state], retry_at)
            for number, task_id, map_index, state, retry_at in self._found.get(dag_run_id, [])
        ]

    def is_any_active(self, dag_run_id: int) -> bool:
        """Whether one of the run's tasks was on its way to its end when they were read."""
        return any(task.state in UNFINISHED for task in self.of(dag_run_id))


def of_runs(connection: Connection, dag_run_ids: Collection[int]) -> TasksOfRuns:
    """Every task instance of these runs, asked for in one statement."""
    return TasksOfRuns(connection.execute(_OF_RUNS, {"runs": list(dag_run_ids)}))


_OF_RUNS = select(TASK.c.dag_run_id, TASK.c.id, TASK.c.task_id, TASK.c.map_index, TASK.c.state, TASK.c.retry_at).where(
    TASK.c.dag_run_id.in_(bindparam("runs", expanding=True))
)


def of_run_of_attempt(connection: Connection, key: AttemptKey) -> TasksOfRuns:
    """Every task instance of the run of the one that an attempt holds or held."""
    return TasksOfRuns(connection.execute(_OF_RUN_OF_ATTEMPT, parameters_of(key)))


_HELD = TASK.alias("held")
#: the run of the task instance that an attempt holds or held
RUN_OF_ATTEMPT = (
    select(_HELD.c.dag_run_id)
    .where(_HELD.c.attempt_id == bindparam("attempt"), _HELD.c.deferral_number == bindparam("deferral"))
    .scalar_subquery()
)
_OF_RUN_OF_ATTEMPT = select(*_OF_RUNS.selected_columns).where(TASK.c.dag_run_id == RUN_OF_ATTEMPT)


def states_in_run(connection: Connection, dag_run_id: int) -> dict[str, State]:
    """Task id → state, for looking at the past of a run."""
    return {task.task_id: task.state for task in of_run(connection, dag_run_id)}


def past_states(connection: Connection, dag_run_id: int, document: DagDocument) -> dict[str, State]:
    """States of a run's tasks, for a run that depends on it; of one that has never started, nothing is done."""
    return states_in_run(connection, dag_run_id) or {task.task_id: None for task in document.tasks}


def due(connection: Connection, now: datetime) -> list[Row[Any]]:
    """(id, dag_run_id) of those whose retry or reschedule time has come."""
    return list(connection.execute(_DUE, {"now": now, "latest": now + TOLERANCE}))


_WAITS_FOR_ITS_TIME = in_states({TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE})
#: due, or the clock was set back behind the moment at which that was written: what waited for it to come again would
#: wait for longer than was asked for
_DUE = select(TASK.c.id, TASK.c.dag_run_id).where(
    _WAITS_FOR_ITS_TIME, or_(TASK.c.retry_at <= bindparam("now"), TASK.c.waits_since > bindparam("latest"))
)


def seconds_until_due(connection: Connection, now: datetime) -> float:
    """Seconds until the next retry or reschedule is due, infinite when there is none."""
    first, since = connection.execute(_NEXT_DUE).one()
    if first is None:
        return math.inf
    return 0.0 if since is not None and since > now + TOLERANCE else max((first - now).total_seconds(), 0.0)


_NEXT_DUE = select(func.min(TASK.c.retry_at), func.max(TASK.c.waits_since)).where(_WAITS_FOR_ITS_TIME)


def unfinished(connection: Connection, dag_run_id: int) -> list[Row[Any]]:
    """(id, task_id, state) of those that have not ended; no other process moves them in this transaction."""
    statement = select(TASK.c.id, TASK.c.task_id, TASK.c.state).where(
        TASK.c.dag_run_id == dag_run_id,
        or_(TASK.c.state.is_(None), TASK.c.state.in_(sorted(UNFINISHED))),
    )
    return list(connection.execute(statement.with_for_update()))


def lock(connection: Connection, ids: Sequence[int]) -> list[Row[Any]]:
    """Have no other process move these before this transaction ends; (attempt_id, cleared_at) of each. To be done
    before something is said of their attempts, as by who claims or ends one: so neither waits for the other."""
    rows: list[Row[Any]] = []
    for part in in_parts(ids):
        rows += connection.execute(_LOCK, {"ids": part})
    return rows


_LOCK = (
    select(TASK.c.attempt_id, TASK.c.cleared_at)
    .where(TASK.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(TASK.c.id)
    .with_for_update()
)


def rows_of_run(connection: Connection, dag_run_id: int) -> list[Row[Any]]:
    """All columns of every task instance of a run, for people."""
    return list(connection.execute(select(TASK).where(TASK.c.dag_run_id == dag_run_id).order_by(TASK.c.id)))


def row(connection: Connection, task_instance_id: int) -> Row[Any] | None:
    """All columns of one task instance, for people; None when it is gone."""
    return connection.execute(select(TASK).where(TASK.c.id == task_instance_id)).one_or_none()


def count_in_pool(connection: Connection, pool: str) -> int:
    """How many unfinished task instances name this pool."""
    return connection.execute(
        select(func.count())
        .select_from(TASK)
        .where(TASK.c.pool == pool, or_(TASK.c.state.is_(None), TASK.c.state.in_(sorted(UNFINISHED))))
    ).scalar_one()


def cancel(connection: Connection, dag_run_id: int, now: datetime, problem: str) -> None:
    """End what has not ended: what an executor holds fails (its report will be stale), the rest is skipped."""
    rows = unfinished(connection, dag_run_id)
    ids = [row.id for row in rows]
    attempt_queries.end_of_tasks(connection, ids, outcome="cancelled", now=now)
    waiting: set[State] = {None, *(UNFINISHED - EXECUTION_STATES)}
    move_all(connection, ids, leaving=waiting, to=TaskInstanceState.SKIPPED, ended_at=now, retry_at=None)
    move_all(connection, ids, leaving=EXECUTION_STATES, to=TaskInstanceState.FAILED, ended_at=now, problem=problem)


def clear(connection: Connection, ids: Sequence[int], now: datetime) -> int:
    """Forget that these task instances ran: no state, no failures, no XComs, as if new. Returns how many.

    What an executor still holds is cleared as well: its report will be stale.
    """
    if not ids:
        return 0
    before = lock(connection, ids)
    attempt_queries.end_of_tasks(connection, ids, outcome="cleared", now=now)
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
        "cleared_at": cleared_at([row.attempt_id for row in before], [row.cleared_at for row in before], now),
        "saved_rows": None,
        "credited_rows": None,
    }
    # a running one goes through scheduled: the same road as one that infrastructure lost
    move_all(connection, ids, leaving=running, to=TaskInstanceState.SCHEDULED)
    moved = move_all(connection, ids, leaving=leaving, to=None, **blank)
    rows = connection.execute(select(TASK.c.dag_run_id, TASK.c.task_id, TASK.c.map_index).where(TASK.c.id.in_(ids)))
    for row in rows.all():
        xcom_queries.forget(connection, row.dag_run_id, row.task_id, row.map_index)
    return moved
