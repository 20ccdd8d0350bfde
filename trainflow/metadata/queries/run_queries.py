"""Runs: found, started, ended, cleared. `move` is the only statement that changes a run's state."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Update, bindparam, func, select, update
from sqlalchemy import delete as sql_delete

from trainflow.errors import DagRunNotFound, IllegalTransition, LostTransition
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.bound_parameters import bound_columns, bound_values
from trainflow.metadata.models import DagRunTable
from trainflow.metadata.queries import dag_queries, outbox_queries, task_queries
from trainflow.settings.outbox_channels import Channels, told_of_end, told_of_start
from trainflow.states import RUN_FINISHED, RUN_MOVES, DagRunState

RUN = DagRunTable.table
TASK = task_queries.TASK
#: what deciding about a run needs: everything but what its author gave it, which can be large
BRIEF = [column for column in RUN.c if column.name != "conf"]


def move(
    connection: Connection, dag_run_id: int, *, leaving: Collection[DagRunState], to: DagRunState, **values: Any
) -> None:
    """Move a run to `to` if it is in one of `leaving`. Raises LostTransition when not, and has changed nothing then."""
    begin_move(connection, dag_run_id, leaving=leaving, to=to, **values).check()


def begin_move(
    connection: Connection, dag_run_id: int, *, leaving: Collection[DagRunState], to: DagRunState, **values: Any
) -> task_queries.Move:
    """Like `move`; whether it moved the run is to be checked."""
    statement = _move_statement(frozenset(leaving), to, tuple(values))
    return task_queries.Move(
        connection.execute(statement, {"k_id": dag_run_id, **bound_values(values)}),
        f"run {dag_run_id} is not {' or '.join(sorted(leaving))} any more: not moved to {to}",
    )


@lru_cache(maxsize=64)
def _move_statement(leaving: frozenset[DagRunState], to: DagRunState, columns: tuple[str, ...]) -> Update:
    for source in leaving:
        if to not in RUN_MOVES[source]:
            raise IllegalTransition(f"a run never goes from {source} to {to}")
    held = (RUN.c.id == bindparam("k_id"), RUN.c.state.in_(sorted(leaving)))
    return update(RUN).where(*held).values(state=to, **bound_columns(RUN, columns))


def find(connection: Connection, dag_id: str, run_id: str) -> Row[Any] | None:
    """The row of a run, or None."""
    return ask_find(connection, dag_id, run_id)()


def ask_find(connection: Connection, dag_id: str, run_id: str) -> Callable[[], Row[Any] | None]:
    """Like `find`: call what is returned for the answer."""
    asked = connection.execute(_FIND, {"dag": dag_id, "run": run_id})
    return asked.one_or_none


_FIND = select(RUN).where(RUN.c.dag_id == bindparam("dag"), RUN.c.run_id == bindparam("run"))


def get(connection: Connection, dag_id: str, run_id: str) -> Row[Any]:
    """The row of a run. Raises DagRunNotFound."""
    row = find(connection, dag_id, run_id)
    if row is None:
        dag_queries.get(connection, dag_id)
        raise DagRunNotFound(_unknown_run(connection, dag_id, run_id))
    return row


def _unknown_run(connection: Connection, dag_id: str, run_id: str) -> str:
    import difflib

    known = [row.run_id for row in listing(connection, [dag_id], limit=500)]
    close = difflib.get_close_matches(run_id, known, n=1)
    see = f"; did you mean '{close[0]}'?" if close else f": see 'trainflow runs list {dag_id}'"
    return f"DAG '{dag_id}' has no run '{run_id}'" + (see if known else ", and no other run either")


def named(connection: Connection, dag_id: str, name: str) -> Row[Any]:
    """The run that a person means: its id, its number, `latest`, or how its id (and no other's) begins.

    Raises DagNotFound, DagRunNotFound.
    """
    exact = find(connection, dag_id, name)
    if exact is not None:
        return exact
    statement = select(RUN).where(RUN.c.dag_id == dag_id).order_by(RUN.c.number.desc())
    if name == "latest":
        statement = statement.limit(1)
    elif name.isascii() and name.isdigit():
        statement = statement.where(RUN.c.number == int(name))
    else:
        statement = statement.where(RUN.c.run_id.startswith(name, autoescape=True)).limit(2)
    found = connection.execute(statement).all()
    if len(found) > 1:
        raise DagRunNotFound(f"more than one run of '{dag_id}' begins with '{name}': {found[0].run_id}, …")
    return found[0] if found else get(connection, dag_id, name)


def by_id(connection: Connection, dag_run_id: int) -> Row[Any]:
    """The row of a run by its key."""
    return connection.execute(_BY_ID, {"run": dag_run_id}).one()


_BY_ID = select(RUN).where(RUN.c.id == bindparam("run"))


def ask_of_attempt(connection: Connection, key: AttemptKey) -> Callable[[], Row[Any] | None]:
    """The run of the task instance that an attempt holds or held: call what is returned for it."""
    asked = connection.execute(_OF_ATTEMPT, task_queries.parameters_of(key))
    return asked.one_or_none


_OF_ATTEMPT = select(RUN).join(TASK, TASK.c.dag_run_id == RUN.c.id).where(*task_queries.OF_ATTEMPT)


def ask_running_of_attempt(connection: Connection, key: AttemptKey) -> Callable[[], Row[Any] | None]:
    """The running run of the task instance that an attempt holds or held, without its conf: call what is returned."""
    asked = connection.execute(_RUNNING_OF_ATTEMPT, task_queries.parameters_of(key))
    return asked.one_or_none


_RUNNING_OF_ATTEMPT = select(*BRIEF).where(RUN.c.id == task_queries.RUN_OF_ATTEMPT, RUN.c.state == DagRunState.RUNNING)


def brief(connection: Connection, dag_run_id: int) -> Row[Any]:
    """The row of a run by its key, without its conf."""
    return connection.execute(_BRIEF_BY_ID, {"run": dag_run_id}).one()


_BRIEF_BY_ID = select(*BRIEF).where(RUN.c.id == bindparam("run"))


def start(
    connection: Connection, row: Row[Any], versions: dag_queries.Versions, now: datetime, *, channels: Channels
) -> None:
    """Move `queued` → `running`, with a row for each task of its version. `channels`: those that are switched on.
    Raises LostTransition."""
    has_tasks = bool(task_queries.of_run(connection, row.id))
    begin_start(connection, row, versions, now, has_tasks=has_tasks, channels=channels).check()


def begin_start(
    connection: Connection,
    row: Row[Any],
    versions: dag_queries.Versions,
    now: datetime,
    *,
    has_tasks: bool,
    channels: Channels,
) -> task_queries.Move:
    """Like `start`; whether it moved the run is to be checked. `has_tasks`: it was running before."""
    moved = begin_move(connection, row.id, leaving={DagRunState.QUEUED}, to=DagRunState.RUNNING, started_at=now)
    document, _ = versions.get(connection, row.version_id)
    if not has_tasks:
        task_queries.create_for_run(connection, row.id, document)
    told = told_of_start(channels, trains=document.chain is not None)
    outbox_queries.add(connection, told, "run_started", row, now)
    return moved


def release(connection: Connection, dag_run_id: int, now: datetime) -> bool:
    """The next run need not wait for a running one any more; False when that was so already."""
    released = connection.execute(_RELEASE, {"run": dag_run_id, "now": now})
    return released.rowcount == 1


_RELEASE = (
    update(RUN)
    .where(RUN.c.id == bindparam("run"), RUN.c.state == DagRunState.RUNNING, RUN.c.released_at.is_(None))
    .values(released_at=bindparam("now"))
)


def put_back(connection: Connection, row: Row[Any]) -> None:
    """Move `running` → `queued`: it gives its place to a run that it waits for. What it has done stays done."""
    move(connection, row.id, leaving={DagRunState.RUNNING}, to=DagRunState.QUEUED, started_at=None)


def add_note(connection: Connection, dag_run_id: int, sentence: str) -> None:
    """Say something more of a run, for people; the newest first."""
    note = "; ".join(filter(None, (sentence, by_id(connection, dag_run_id).note)))
    connection.execute(_SET_NOTE, {"run": dag_run_id, "b_note": note})


def set_note(connection: Connection, dag_run_id: int, note: str | None) -> None:
    """What people see beside a run."""
    connection.execute(_SET_NOTE, {"run": dag_run_id, "b_note": note})


def delete(connection: Connection, dag_run_id: int) -> None:
    """Forget a run; what belongs to it goes with it."""
    connection.execute(sql_delete(RUN).where(RUN.c.id == dag_run_id))


_SET_NOTE = update(RUN).where(RUN.c.id == bindparam("run")).values(note=bindparam("b_note"))


def finish(
    connection: Connection,
    row: Row[Any],
    *,
    to: DagRunState,
    now: datetime,
    note: str | None,
    channels: Channels,
    kind: str = "run_finished",
) -> list[int]:
    """Move `running` → `success` or `failed`; tells these channels in the same transaction. Returns the runs of its DAG
    that run on. Raises LostTransition."""
    values = {"note": note} if note is not None else {}
    moved = begin_move(connection, row.id, leaving={DagRunState.RUNNING}, to=to, ended_at=now, **values)
    others = connection.execute(_RUNNING_IDS, {"dag": row.dag_id})
    moved.check()
    outbox_queries.add(connection, channels, kind, row, now)
    return list(others.scalars())


_RUNNING_IDS = (
    select(RUN.c.id).where(RUN.c.dag_id == bindparam("dag"), RUN.c.state == DagRunState.RUNNING).order_by(RUN.c.number)
)


def cancel(
    connection: Connection,
    row: Row[Any],
    versions: dag_queries.Versions,
    now: datetime,
    *,
    note: str,
    channels: Channels,
) -> None:
    """Move `queued` or `running` → `failed`. What runs is not waited for: its executor ends it, its report is stale.

    `channels`: those that are switched on. Raises LostTransition for a run that has ended.
    """
    check_unfinished(row)
    if channels and row.state == DagRunState.RUNNING:
        document, _ = versions.get(connection, row.version_id)
        channels = told_of_end(channels, trains=document.chain is not None)
    set_aside(connection, row, now, note=note, channels=channels, kind="run_cancelled")


def check_unfinished(row: Row[Any]) -> None:
    """Raise LostTransition for a run that has ended."""
    if row.state in RUN_FINISHED:
        raise LostTransition(f"run '{row.run_id}' of '{row.dag_id}' has ended ({row.state}): nothing was changed")


def set_aside(
    connection: Connection, row: Row[Any], now: datetime, *, note: str, channels: Channels, kind: str = "run_finished"
) -> None:
    """Move `queued` or `running` → `failed`, whatever its DAG is; read no document. `channels`: those that are told, if
    it was running."""
    task_queries.cancel(connection, row.id, now, note)
    if row.state == DagRunState.QUEUED:
        move(connection, row.id, leaving={DagRunState.QUEUED}, to=DagRunState.FAILED, ended_at=now, note=note)
        return
    finish(connection, row, to=DagRunState.FAILED, now=now, note=note, channels=channels, kind=kind)


def clear(connection: Connection, dag_run_id: int, now: datetime, task_ids: Collection[str] | None = None) -> int:
    """Let a run run again, whole or these tasks of it, at its old place in the order. Returns how many were cleared."""
    row = by_id(connection, dag_run_id)
    tasks = task_queries.of_run(connection, dag_run_id)
    ids = [task.id for task in tasks if task_ids is None or task.task_id in task_ids]
    cleared = task_queries.clear(connection, ids, now)
    if row.state != DagRunState.QUEUED:
        move(
            connection,
            dag_run_id,
            leaving={DagRunState(row.state)},
            to=DagRunState.QUEUED,
            queued_at=now,
            started_at=None,
            ended_at=None,
            note=None,
            clear_number=row.clear_number + 1,
            released_at=None,
        )
    return cleared


def add_conf(connection: Connection, dag_run_id: int, entries: dict[str, Any]) -> None:
    """Tell a run that has not ended something more. Tasks that begin from now on see it. Raises LostTransition."""
    conf = {**by_id(connection, dag_run_id).conf, **entries}
    open_states = [DagRunState.QUEUED, DagRunState.RUNNING]
    statement = update(RUN).where(RUN.c.id == dag_run_id, RUN.c.state.in_(open_states)).values(conf=conf)
    if connection.execute(statement).rowcount != 1:
        raise LostTransition(f"run {dag_run_id} has ended: nothing was changed")


def running(connection: Connection) -> list[int]:
    """The key of every running run, oldest first."""
    return list(connection.execute(_RUNNING).scalars())


_RUNNING = select(RUN.c.id).where(RUN.c.state == DagRunState.RUNNING).order_by(RUN.c.id)


def rows_of(connection: Connection, ids: Collection[int]) -> list[Row[Any]]:
    """Rows of those of `ids` that are running, without their conf."""
    return list(connection.execute(_ROWS_OF, {"ids": list(ids)}))


_ROWS_OF = (
    select(*BRIEF)
    .where(RUN.c.id.in_(bindparam("ids", expanding=True)), RUN.c.state == DagRunState.RUNNING)
    .order_by(RUN.c.id)
)


def previous(connection: Connection, dag_id: str, number: int) -> Row[Any] | None:
    """The run of this DAG before number `number`, without its conf."""
    return connection.execute(_PREVIOUS, {"dag": dag_id, "number": number}).one_or_none()


_PREVIOUS = (
    select(*BRIEF)
    .where(RUN.c.dag_id == bindparam("dag"), RUN.c.number < bindparam("number"))
    .order_by(RUN.c.number.desc())
    .limit(1)
)


def unfinished_of(connection: Connection, dag_id: str) -> list[Row[Any]]:
    """Queued and running runs of a DAG, in order."""
    return sorted(connection.execute(_UNFINISHED_OF, {"dag": dag_id}), key=lambda row: row.number)


_UNFINISHED = (RUN.c.dag_id == bindparam("dag"), RUN.c.state.in_([DagRunState.QUEUED, DagRunState.RUNNING]))
# asked for in an order SQLite reads all runs of the DAG, which lie in it, and not the few of these states
_UNFINISHED_OF = select(RUN).where(*_UNFINISHED)


def count_unfinished(connection: Connection, dag_id: str) -> int:
    """How many runs of a DAG are queued or running."""
    return connection.execute(select(func.count()).where(*_UNFINISHED), {"dag": dag_id}).scalar_one()


def running_ids(connection: Connection, dag_id: str) -> list[int]:
    """The keys of the running runs of a DAG, in order."""
    return list(connection.execute(_RUNNING_IDS, {"dag": dag_id}).scalars())


def newest(connection: Connection) -> int:
    """The number in the database of the run that was made last; 0 without any."""
    return connection.execute(select(func.max(RUN.c.id))).scalar() or 0


def unfinished_names(connection: Connection) -> list[tuple[str, str]]:
    """(dag id, run id) of every run that has not ended."""
    statement = select(RUN.c.dag_id, RUN.c.run_id).where(RUN.c.state.in_([DagRunState.QUEUED, DagRunState.RUNNING]))
    return [(row.dag_id, row.run_id) for row in connection.execute(statement)]


def listing(
    connection: Connection,
    dag_ids: Collection[str] | None = None,
    limit: int = 100,
    state: DagRunState | None = None,
) -> list[Row[Any]]:
    """The newest runs, newest first; of these DAGs, or of all."""
    statement = select(RUN).limit(limit)
    if state is not None:
        statement = statement.where(RUN.c.state == state)
    if dag_ids is None:
        return list(connection.execute(statement.order_by(RUN.c.id.desc())))
    # of each the newest, from the end of an index: of several at once a database sorts all the runs they ever had
    newest = (statement.where(RUN.c.dag_id == dag_id).order_by(RUN.c.number.desc()) for dag_id in set(dag_ids))
    found = [row for each in newest for row in connection.execute(each)]
    return sorted(found, key=lambda row: row.id, reverse=True)[:limit]


def children(connection: Connection, dag_run_id: int) -> list[Row[Any]]:
    """The runs that tasks of this one triggered, in order."""
    return list(connection.execute(select(RUN).where(RUN.c.parent_id == dag_run_id).order_by(RUN.c.id)))


def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """DAG → state → how many runs."""
    result: dict[str, dict[str, int]] = {}
    rows = connection.execute(select(RUN.c.dag_id, RUN.c.state, func.count()).group_by(RUN.c.dag_id, RUN.c.state))
    for dag_id, state, count in rows:
        result.setdefault(dag_id, {})[state] = count
    return result


def remember_mlflow(connection: Connection, dag_run_id: int, uri: str, mlflow_run_id: str) -> None:
    """Where the mirror shows this run."""
    connection.execute(update(RUN).where(RUN.c.id == dag_run_id).values(mlflow_uri=uri, mlflow_run_id=mlflow_run_id))
