"""Runs: created, started in order, ended. `move` is the only statement that changes a run's state."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Update, bindparam, func, insert, select, update

from trainflow.errors import (
    DagRunAlreadyExists,
    DagRunNotFound,
    FailException,
    IllegalTransition,
    LostTransition,
    ParamValidationError,
    SkipException,
)
from trainflow.identifiers import check_name
from trainflow.messages.outcome import TriggeredRun
from trainflow.metadata import clearing, dag_queries, outbox_queries, task_queries
from trainflow.metadata.models import DagRun
from trainflow.param_schema import resolve
from trainflow.states import RUN_FINISHED, RUN_MOVES, DagRunState, DagRunType, TriggeredBy

RUN = DagRun.table


class Parent(NamedTuple):
    """The task instance that triggers a run."""

    dag_run_id: int
    root_id: int
    task_id: str
    map_index: int


def move(
    connection: Connection, dag_run_id: int, *, leaving: Collection[DagRunState], to: DagRunState, **values: Any
) -> None:
    """Move a run to `to` if it is in one of `leaving`. Raises LostTransition when not, and has changed nothing then."""
    statement = _move_statement(frozenset(leaving), to, tuple(values))
    bound = {f"b_{name}": value for name, value in values.items()}
    if connection.execute(statement, {"k_id": dag_run_id, **bound}).rowcount != 1:
        raise LostTransition(f"run {dag_run_id} is not {' or '.join(sorted(leaving))} any more: not moved to {to}")


@lru_cache(maxsize=64)
def _move_statement(leaving: frozenset[DagRunState], to: DagRunState, columns: tuple[str, ...]) -> Update:
    for source in leaving:
        if to not in RUN_MOVES[source]:
            raise IllegalTransition(f"a run never goes from {source} to {to}")
    bound = {name: bindparam(f"b_{name}", type_=RUN.c[name].type) for name in columns}
    return update(RUN).where(RUN.c.id == bindparam("k_id"), RUN.c.state.in_(sorted(leaving))).values(state=to, **bound)


def create(
    connection: Connection,
    *,
    dag_id: str,
    run_id: str,
    run_type: DagRunType,
    triggered_by: TriggeredBy,
    conf: dict[str, Any],
    now: datetime,
    run_after: datetime | None = None,
    logical_date: datetime | None = None,
    parent: Parent | None = None,
    note: str | None = None,
) -> int:
    """Queue a run of the DAG's current version. Returns its key.

    `conf` is kept as given; together with the defaults of the DAG's params it must satisfy their schemas.

    Raises DagNotFound; ParamValidationError; DagRunAlreadyExists when the run id is taken.
    """
    check_name(run_id.replace(":", "_").replace("+", "_"), "run")
    dag = dag_queries.lock(connection, dag_id)
    check_conf(connection, dag, conf)
    if find(connection, dag_id, run_id) is not None:
        raise DagRunAlreadyExists(f"DAG '{dag_id}' has a run '{run_id}' already", dag_id=dag_id, run_id=run_id)
    number = connection.execute(_NEXT_NUMBER, {"dag": dag_id}).scalar_one()
    result = connection.execute(
        _INSERT,
        {
            "dag_id": dag_id,
            "run_id": run_id,
            "number": number,
            "version_id": dag.version_id,
            "state": DagRunState.QUEUED,
            "run_type": run_type,
            "triggered_by": triggered_by,
            "conf": conf,
            "logical_date": logical_date,
            "run_after": run_after or now,
            "queued_at": now,
            "parent_id": parent.dag_run_id if parent else None,
            "parent_task_id": parent.task_id if parent else None,
            "parent_map_index": parent.map_index if parent else None,
            "root_id": parent.root_id if parent else None,
            "note": note,
        },
    )
    created = int(result.inserted_primary_key[0])  # type: ignore[index]
    if parent is None:
        connection.execute(update(RUN).where(RUN.c.id == created).values(root_id=created))
    return created


_NEXT_NUMBER = select(func.coalesce(func.max(RUN.c.number), 0) + 1).where(RUN.c.dag_id == bindparam("dag"))
_INSERT = insert(RUN)


def check_conf(connection: Connection, dag: Row[Any], conf: dict[str, Any]) -> None:
    """Raise ParamValidationError, naming the DAG, when its params cannot be what `conf` makes them."""
    try:
        resolve(dag_queries.params_of(connection, dag.version_id), conf)
    except ParamValidationError as error:
        raise ParamValidationError(f"DAG '{dag.dag_id}': {error}") from None


def trigger(connection: Connection, run: TriggeredRun, parent: Parent, now: datetime) -> int:
    """Create the run that a task asks for, or find it again: asked twice by the same task instance, it is one run.

    Raises DagNotFound; ParamValidationError; DagRunAlreadyExists when the run id belongs to somebody else;
    SkipException and FailException as the request's policies say.
    """
    dag = dag_queries.lock(connection, run.dag_id)
    if run.fail_when_dag_is_paused and dag.is_paused:
        raise FailException(f"DAG '{run.dag_id}' is paused: unpause it with 'trainflow dags unpause {run.dag_id}'")
    found = find(connection, run.dag_id, run.run_id)
    if found is None:
        _check_only_successor(connection, run, parent)
        return create(
            connection,
            dag_id=run.dag_id,
            run_id=run.run_id,
            run_type=DagRunType.OPERATOR_TRIGGERED,
            triggered_by=TriggeredBy.OPERATOR,
            conf=run.conf,
            now=now,
            run_after=run.run_after,
            logical_date=run.logical_date,
            parent=parent,
            note=run.note,
        )
    mine = (found.parent_id, found.parent_task_id, found.parent_map_index) == (
        parent.dag_run_id,
        parent.task_id,
        parent.map_index,
    )
    if run.reset_dag_run and (not mine or found.state in RUN_FINISHED):
        clear(connection, found.id, now)
    elif run.skip_when_already_exists and not mine:
        raise SkipException(f"DAG '{run.dag_id}' has a run '{run.run_id}' already")
    elif not mine:
        raise DagRunAlreadyExists(
            f"DAG '{run.dag_id}' has a run '{run.run_id}' already, and it was not triggered by this task: "
            "give it another trigger_run_id, or set reset_dag_run or skip_when_already_exists",
            dag_id=run.dag_id,
            run_id=run.run_id,
        )
    return int(found.id)


def _check_only_successor(connection: Connection, run: TriggeredRun, parent: Parent) -> None:
    """The unique index forbids a second one as well; this says so in words."""
    named = {"run": parent.dag_run_id, "task": parent.task_id, "index": parent.map_index}
    other = connection.execute(_TRIGGERED_BY, named).one_or_none()
    if other is not None:
        raise DagRunAlreadyExists(
            f"task '{parent.task_id}' has triggered run '{other.run_id}' of '{other.dag_id}' already: a task triggers "
            f"one run, '{run.run_id}' of '{run.dag_id}' would be a second one",
            dag_id=other.dag_id,
            run_id=other.run_id,
        )


_TRIGGERED_BY = select(RUN.c.dag_id, RUN.c.run_id).where(
    RUN.c.parent_id == bindparam("run"),
    RUN.c.parent_task_id == bindparam("task"),
    RUN.c.parent_map_index == bindparam("index"),
)


def find(connection: Connection, dag_id: str, run_id: str) -> Row[Any] | None:
    """The row of a run, or None."""
    return connection.execute(_FIND, {"dag": dag_id, "run": run_id}).one_or_none()


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


def start(
    connection: Connection, row: Row[Any], versions: dag_queries.Versions, now: datetime, *, mirrored: bool
) -> None:
    """queued → running, with a row for each task of the run's version. `mirrored`: tell the mirror, if it trains."""
    move(connection, row.id, leaving={DagRunState.QUEUED}, to=DagRunState.RUNNING, started_at=now)
    document, _ = versions.get(connection, row.version_id)
    if not task_queries.of_run(connection, row.id):
        task_queries.create_for_run(connection, row.id, document)
    if mirrored and document.chain is not None:
        outbox_queries.add(connection, kind="run_started", dag_run_id=row.id, clear_number=row.clear_number, now=now)


def release(connection: Connection, dag_run_id: int, now: datetime) -> bool:
    """The next run need not wait for a running one any more; False when that was so already."""
    released = connection.execute(_RELEASE, {"run": dag_run_id, "now": now})
    return released.rowcount == 1


_RELEASE = (
    update(RUN)
    .where(RUN.c.id == bindparam("run"), RUN.c.state == DagRunState.RUNNING, RUN.c.released_at.is_(None))
    .values(released_at=bindparam("now"))
)


def finish(
    connection: Connection, row: Row[Any], *, to: DagRunState, now: datetime, note: str | None, mirrored: bool
) -> None:
    """running → success or failed; the mirror is told in the same transaction if it was told of the beginning."""
    values = {"note": note} if note is not None else {}
    move(connection, row.id, leaving={DagRunState.RUNNING}, to=to, ended_at=now, **values)
    if mirrored:
        outbox_queries.add(connection, kind="run_finished", dag_run_id=row.id, clear_number=row.clear_number, now=now)


def cancel(
    connection: Connection, row: Row[Any], versions: dag_queries.Versions, now: datetime, *, note: str, mirrored: bool
) -> None:
    """queued or running → failed. What runs is not waited for: its executor ends it, its report is stale.

    `mirrored`: tell the mirror, if the run trains and the mirror was told of its beginning. Raises LostTransition for a
    run that has ended.
    """
    if row.state in RUN_FINISHED:
        raise LostTransition(f"run '{row.run_id}' of '{row.dag_id}' has ended ({row.state}): nothing was changed")
    clearing.cancel(connection, row.id, now, note)
    if row.state == DagRunState.QUEUED:
        move(connection, row.id, leaving={DagRunState.QUEUED}, to=DagRunState.FAILED, ended_at=now, note=note)
        return
    document, _ = versions.get(connection, row.version_id)
    mirrored = mirrored and document.chain is not None
    finish(connection, row, to=DagRunState.FAILED, now=now, note=note, mirrored=mirrored)


def clear(connection: Connection, dag_run_id: int, now: datetime, task_ids: Collection[str] | None = None) -> int:
    """Let a run run again, whole or these tasks of it, at its old place in the order. Returns how many were cleared."""
    row = by_id(connection, dag_run_id)
    tasks = task_queries.of_run(connection, dag_run_id)
    ids = [task.id for task in tasks if task_ids is None or task.task_id in task_ids]
    cleared = clearing.clear(connection, ids, now)
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


def running(connection: Connection) -> list[Row[Any]]:
    """Every running run, oldest first."""
    return list(connection.execute(_RUNNING))


_RUNNING = select(RUN).where(RUN.c.state == DagRunState.RUNNING).order_by(RUN.c.id)


def rows_of(connection: Connection, ids: Collection[int]) -> list[Row[Any]]:
    """Those of `ids` that are running."""
    return list(connection.execute(_ROWS_OF, {"ids": list(ids)}))


_ROWS_OF = (
    select(RUN)
    .where(RUN.c.id.in_(bindparam("ids", expanding=True)), RUN.c.state == DagRunState.RUNNING)
    .order_by(RUN.c.id)
)


def previous(connection: Connection, dag_id: str, number: int) -> Row[Any] | None:
    """The run of this DAG before number `number`."""
    return connection.execute(_PREVIOUS, {"dag": dag_id, "number": number}).one_or_none()


_PREVIOUS = (
    select(RUN)
    .where(RUN.c.dag_id == bindparam("dag"), RUN.c.number < bindparam("number"))
    .order_by(RUN.c.number.desc())
    .limit(1)
)


def unfinished_of(connection: Connection, dag_id: str) -> list[Row[Any]]:
    """Queued and running runs of a DAG, in order."""
    return list(connection.execute(_UNFINISHED_OF, {"dag": dag_id}))


_UNFINISHED_OF = (
    select(RUN)
    .where(RUN.c.dag_id == bindparam("dag"), RUN.c.state.in_([DagRunState.QUEUED, DagRunState.RUNNING]))
    .order_by(RUN.c.number)
)


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
    statement = select(RUN).order_by(RUN.c.id.desc()).limit(limit)
    if dag_ids is not None:
        statement = statement.where(RUN.c.dag_id.in_(sorted(dag_ids)))
    if state is not None:
        statement = statement.where(RUN.c.state == state)
    return list(connection.execute(statement))


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
