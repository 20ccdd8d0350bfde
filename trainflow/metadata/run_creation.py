"""How runs come to be: queued by a person, or triggered by a task, which triggers one and the same however often."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from trainflow.errors import DagRunAlreadyExists, FailException, InputError, ParamValidationError, SkipException
from trainflow.identifiers import check_name
from trainflow.messages.execution_api import TriggeredRun
from trainflow.metadata.queries import dag_queries, run_queries
from trainflow.metadata.queries.run_queries import RUN
from trainflow.param_schema import check_json, resolve
from trainflow.states import RUN_FINISHED, DagRunState, DagRunType, TriggeredBy


class Parent(NamedTuple):
    """The task instance that triggers a run."""

    dag_run_id: int
    root_id: int
    task_id: str
    map_index: int

    def named(self) -> dict[str, Any]:
        """The same as parameters of a statement."""
        return {"run": self.dag_run_id, "task": self.task_id, "index": self.map_index}


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
    note: str | None = None,
    traceparent: str | None = None,
) -> int:
    """Queue a run of the DAG's current version. Returns its key.

    `conf` is kept as given; together with the defaults of the DAG's params it must satisfy their schemas.
    `traceparent`: the span that the run is asked for in.

    Raises DagNotFound; ParamValidationError; DagRunAlreadyExists when the run id is taken.
    """
    _check_run_id(run_id)
    dag = dag_queries.lock(connection, dag_id)
    check_conf(connection, dag, conf)
    if run_queries.find(connection, dag_id, run_id) is not None:
        raise DagRunAlreadyExists(f"DAG '{dag_id}' has a run '{run_id}' already", dag_id=dag_id, run_id=run_id)
    values = {
        "run_type": run_type,
        "triggered_by": triggered_by,
        "logical_date": logical_date,
        "run_after": run_after or now,
        "note": note,
        "traceparent": traceparent,
    }
    number = connection.execute(_NEXT_NUMBER, {"dag": dag_id}).scalar_one()
    result = _insert(connection, dag, run_id, number, conf, now, None, values)
    created = int(result.inserted_primary_key[0])
    connection.execute(_OWN_ROOT, {"run": created})
    return created


def _insert(
    connection: Connection,
    dag: Row[Any],
    run_id: str,
    number: int,
    conf: dict[str, Any],
    now: datetime,
    parent: Parent | None,
    values: dict[str, Any],
) -> Any:
    return connection.execute(
        _INSERT,
        {
            "dag_id": dag.dag_id,
            "run_id": run_id,
            "number": number,
            "version_id": dag.version_id,
            "state": DagRunState.QUEUED,
            "conf": conf,
            "queued_at": now,
            "parent_id": parent.dag_run_id if parent else None,
            "parent_task_id": parent.task_id if parent else None,
            "parent_map_index": parent.map_index if parent else None,
            "root_id": parent.root_id if parent else None,
            **values,
        },
    )


_NEXT_NUMBER = select(func.coalesce(func.max(RUN.c.number), 0) + 1).where(RUN.c.dag_id == bindparam("dag"))
_INSERT = insert(RUN)
_OWN_ROOT = update(RUN).where(RUN.c.id == bindparam("run")).values(root_id=RUN.c.id)


def _check_run_id(run_id: str) -> None:
    # names of runs have moments in them
    check_name(run_id.replace(":", "_").replace("+", "_"), "run")


def check_conf(connection: Connection, dag: Row[Any], conf: dict[str, Any]) -> None:
    """Raise ParamValidationError, naming the DAG, when its params cannot be what `conf` makes them."""
    _check_conf(dag, dag_queries.params_of(connection, dag.version_id), conf)


def _check_conf(dag: Row[Any], params: dict[str, dict[str, Any]], conf: dict[str, Any]) -> None:
    try:
        check_json(conf, "conf")
        resolve(params, conf)
    except InputError as error:
        raise ParamValidationError(f"DAG '{dag.dag_id}': {error}") from None


def trigger(connection: Connection, run: TriggeredRun, parent: Parent, now: datetime) -> None:
    """Create the run that a task asks for, or find it again: asked twice by the same task instance, it is one run.

    Raises DagNotFound; ParamValidationError; DagRunAlreadyExists when the run id is another's;
    SkipException and FailException as the request's policies say.
    """
    locked = dag_queries.ask_lock(connection, run.dag_id)
    # after the lock; all that may have to be known goes to the server at once
    asked_run = run_queries.ask_find(connection, run.dag_id, run.run_id)
    asked_other = connection.execute(_TRIGGERED_BY, parent.named())
    asked_params = dag_queries.ask_current_params(connection, run.dag_id)
    asked_number = connection.execute(_NEXT_NUMBER, {"dag": run.dag_id})
    dag = locked()
    if run.fail_when_dag_is_paused and dag.is_paused:
        raise FailException(f"DAG '{run.dag_id}' is paused: unpause it with 'trainflow dags unpause {run.dag_id}'")
    found = asked_run()
    if found is not None:
        _take_again(connection, found, run, parent, now)
        return
    _check_only_successor(asked_other.one_or_none(), run, parent)
    _check_run_id(run.run_id)
    _check_conf(dag, asked_params(), run.conf)
    values = {
        "run_type": DagRunType.OPERATOR_TRIGGERED,
        "triggered_by": TriggeredBy.OPERATOR,
        "logical_date": run.logical_date,
        "run_after": run.run_after or now,
        "note": run.note,
    }
    _insert(connection, dag, run.run_id, asked_number.scalar_one(), run.conf, now, parent, values)


def _take_again(connection: Connection, found: Row[Any], run: TriggeredRun, parent: Parent, now: datetime) -> None:
    """The run is there: it is this task's own, is cleared, or is refused, as the request's policies say."""
    place = (found.parent_id, found.parent_task_id, found.parent_map_index)
    mine = place == (parent.dag_run_id, parent.task_id, parent.map_index)
    if run.reset_dag_run and (not mine or found.state in RUN_FINISHED):
        run_queries.clear(connection, found.id, now)
    elif run.skip_when_already_exists and not mine:
        raise SkipException(f"DAG '{run.dag_id}' has a run '{run.run_id}' already")
    elif not mine:
        raise DagRunAlreadyExists(
            f"DAG '{run.dag_id}' has a run '{run.run_id}' already, and it was not triggered by this task: "
            "give it another trigger_run_id, or set reset_dag_run or skip_when_already_exists",
            dag_id=run.dag_id,
            run_id=run.run_id,
        )


def _check_only_successor(other: Any, run: TriggeredRun, parent: Parent) -> None:
    """The unique index forbids a second one as well; this says so in words."""
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
