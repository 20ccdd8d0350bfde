"""`trainflow runs`: list, show, trigger, cancel, clear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.arguments import DAG_ARGUMENT, RUN_ARGUMENT, json_object, moment
from trainflow.cli.render.output import JSON_OPTION
from trainflow.cli.render.runs import RUN_COLUMNS, print_run, relatives, run_facts, shown_runs
from trainflow.workspace.names import (
    check_tasks,
    dag_named,
    dags_named,
    is_file,
    opened_for,
    read_into_database,
    run_named,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from trainflow.workspace.workspace import Opened

runs = typer.Typer(help="Runs: list, show, trigger, cancel, clear.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(runs, name="runs")


@runs.command("list")
def list_runs(
    dag: str | None = typer.Argument(None, metavar="[DAG]", help="Id of a DAG, or a pipeline file; default: all."),
    state: str | None = typer.Option(
        None, "--state", metavar="STATE", help="Only runs that are queued, running, success or failed."
    ),
    limit: int = typer.Option(50, "--limit", metavar="N", min=1, help="At most this many."),
    as_json: bool = JSON_OPTION,
) -> None:
    """List runs, newest first.

    JSON: [{dag_id, run_id, number, state, run_type, triggered_by, conf, logical_date, run_after, queued_at,
    started_at, ended_at, seconds, note, clear_number, mlflow_run_id}]. Times are UTC; `seconds` from start to end (or
    until now).
    """
    from trainflow.cli.render.output import print_rows
    from trainflow.metadata import run_queries

    wanted = _state(state)
    with opened_for(dag) as here, here.database.reading() as connection:
        dag_ids = [row.dag_id for row in dags_named(connection, here.project, dag)] if dag is not None else None
        rows = [run_facts(row, here) for row in run_queries.listing(connection, dag_ids, limit, wanted)]
    empty = "no run" + (f" of {', '.join(dag_ids)}" if dag_ids else "") + (f" is {state}" if state else " yet")
    print_rows(rows if as_json else shown_runs(rows), RUN_COLUMNS, as_json=as_json, empty=empty)


@runs.command("show")
def show_run(dag: str = DAG_ARGUMENT, run: str = RUN_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """Show a run: its tasks, its origin, what came of it.

    JSON: the keys of `runs list`, and {version, path, overrides, parent: {dag_id, run_id, task_id} or null,
    children: [{dag_id, run_id, state}], tasks (as `tasks list`)}.
    """
    from trainflow.cli.render.output import print_json
    from trainflow.cli.render.tasks import task_listing

    with opened_for(dag) as here, here.database.reading() as connection:
        row = run_named(connection, here.project, dag, run)
        facts = run_facts(row, here) | relatives(connection, row)
        facts["tasks"] = task_listing(connection, row, here)
    if as_json:
        print_json(facts)
    else:
        print_run(facts)


@runs.command("trigger")
def trigger_run(
    dag: str = DAG_ARGUMENT,
    conf: str | None = typer.Option(None, "--conf", metavar="JSON", help="Values of the params, and more: an object."),
    run_id: str | None = typer.Option(
        None, "--run-id", metavar="ID", help="Id of the run; default: manual__<time>_<random>."
    ),
    logical_date: str | None = typer.Option(
        None, "--logical-date", metavar="DATE", help="A date the run is about; default: none."
    ),
    note: str | None = typer.Option(None, "--note", metavar="TEXT", help="A sentence shown beside the run."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Queue a run. An engine that is alive starts it at once, otherwise the next one does.

    A pipeline file is read first, so that the run is of what it says now. `--conf` has to satisfy the params of the
    DAG (exit code 2 otherwise). A chain goes on at its head, whoever triggers it: two runs never train the same split
    twice, the second one to commit is refused.

    JSON: the keys of `runs list`.
    """
    from trainflow.observability.redaction import check_no_secrets

    given, date = json_object(conf, "--conf"), moment(logical_date, "--logical-date")
    check_no_secrets(given, "--conf")
    with opened_for(dag) as here:
        if is_file(dag):
            read_into_database(here, dag)
        row, warning = _create(here, dag, given, run_id=run_id, logical_date=date, note=note)
        _tell_engine(here)
        facts = run_facts(row, here)
    if as_json:
        from trainflow.cli.render.output import print_json

        print_json(facts)
    else:
        typer.echo(f"queued run {row.run_id} (#{row.number}) of {row.dag_id}{warning}")


@runs.command("cancel")
def cancel_run(
    dag: str = DAG_ARGUMENT,
    run: str = RUN_ARGUMENT,
    note: str = typer.Option(
        "cancelled from the command line", "--note", metavar="TEXT", help="Why, shown beside the run."
    ),
    as_json: bool = JSON_OPTION,
) -> None:
    """End a queued or running run as failed.

    Running tasks fail and are told to stop, the others are skipped.

    A run that continues itself ends there: nothing is triggered any more, `trainflow start` goes on at the head of the
    chain. A commit that is under way at this very moment may still succeed; the ledger says so then, and the next run
    goes on after it.

    Exit code 1 when the run has ended already. JSON: the keys of `runs list`.
    """
    from trainflow.metadata import run_queries
    from trainflow.metadata.dag_queries import Versions

    with opened_for(dag) as here:
        now, mirrored = here.clock.now(), here.settings.tracking.enabled

        def cancel(connection: Connection) -> Row[Any]:
            row = run_named(connection, here.project, dag, run)
            run_queries.cancel(connection, row, Versions(), now, note=note, mirrored=mirrored)
            return run_queries.by_id(connection, row.id)

        row = here.database.write(cancel)
        _tell_engine(here)
        facts = run_facts(row, here)
    if as_json:
        from trainflow.cli.render.output import print_json

        print_json(facts)
    else:
        typer.echo(f"cancelled run {row.run_id} (#{row.number}) of {row.dag_id}")


@runs.command("clear")
def clear_run(
    dag: str = DAG_ARGUMENT,
    run: list[str] = typer.Argument(metavar="RUN…", help="Runs: ids, numbers, or 'latest'."),
    task: list[str] = typer.Option([], "--task", metavar="TASK", help="Only this task and all that wait for it."),
    only: bool = typer.Option(False, "--only", help="With --task: nothing downstream of it."),
    failed: bool = typer.Option(False, "--failed", help="Only tasks that failed, and all that wait for them."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Let runs run again, whole or from some tasks on.

    Forgets what these tasks did, keeps the rest.

    Cleared runs keep their numbers: they queue before all later runs of their DAG, in the order of the chain.

    What that does in a chain (nothing here can train a partition twice: a commit that is not the child of the head is
    refused):

    The whole run, or `checkpoint`: the head is read anew, the run trains what comes after it now.

    `train` of a run that has committed: the same split is trained again from the same parent, and then the commit finds
    that this run has committed already: it returns that checkpoint, nothing changes. To train a split anew, rewind the
    chain first.

    `train` of a run that failed before it committed: trains its split again from the beginning; the commit succeeds if
    no other run was faster, and is refused otherwise.

    `next`: the run that it triggered exists already and is its own, so nothing is triggered a second time.

    JSON: [{dag_id, run_id, number, state, cleared (task ids)}].
    """
    from trainflow.cli.render.output import print_json

    with opened_for(dag) as here:
        cleared = here.database.write(lambda c: clear(c, here, dag, run, tasks=task, only=only, failed=failed))
        _tell_engine(here)
    if as_json:
        print_json(cleared)
        return
    for one in cleared:
        what = ", ".join(one["cleared"]) or "no task had started"
        typer.echo(f"cleared run {one['run_id']} (#{one['number']}) of {one['dag_id']}: {what}")


def clear(
    connection: Connection,
    here: Opened,
    dag: str,
    names: list[str],
    *,
    tasks: list[str],
    only: bool = False,
    failed: bool = False,
) -> list[dict[str, Any]]:
    """Clear runs in the order of the chain. Raises InputError when there is nothing to clear in one of them."""
    from trainflow.errors import InputError
    from trainflow.metadata import run_queries, task_queries
    from trainflow.metadata.dag_queries import Versions

    versions, now = Versions(), here.clock.now()
    rows = {row.number: row for row in (run_named(connection, here.project, dag, name) for name in names)}
    result = []
    for _, row in sorted(rows.items()):
        document, _ = versions.get(connection, row.version_id)
        states = task_queries.states_in_run(connection, row.id)
        check_tasks(tasks, [task.task_id for task in document.tasks], f"run {row.run_id} of {row.dag_id}")
        chosen = set(tasks) or set(states)
        if failed:
            chosen &= {task_id for task_id, state in states.items() if state in ("failed", "upstream_failed")}
            if not chosen:
                raise InputError(f"run {row.run_id} of {row.dag_id}: no task has failed, nothing was cleared")
        if not only:
            chosen = document.with_downstream(chosen)
        run_queries.clear(connection, row.id, now, chosen)
        after = run_queries.by_id(connection, row.id)
        order = [task.task_id for task in document.tasks if task.task_id in chosen and task.task_id in states]
        result.append(
            {
                "dag_id": row.dag_id,
                "run_id": row.run_id,
                "number": row.number,
                "state": after.state,
                "cleared": order,
            }
        )
    return result


# -- what is asked for ----------------------------------------------------------------------------------------------


def _state(name: str | None) -> Any:
    from trainflow.errors import InputError
    from trainflow.near_names import did_you_mean
    from trainflow.states import DagRunState

    if name is None:
        return None
    known = [state.value for state in DagRunState]
    if name not in known:
        raise InputError(f"--state {name}: a run is never that{did_you_mean(name, known)}")
    return DagRunState(name)


def _create(
    here: Opened, dag: str, conf: dict[str, Any], *, run_id: str | None, logical_date: Any, note: str | None
) -> tuple[Row[Any], str]:
    import os

    from trainflow.identifiers import manual_run_id
    from trainflow.metadata import run_creation, run_queries
    from trainflow.states import DagRunType, TriggeredBy

    now = here.clock.now()
    run_id = run_id or manual_run_id(now, os.urandom(3).hex())

    tries: list[int] = []

    def create(connection: Connection) -> tuple[Row[Any], Row[Any]]:
        found = dag_named(connection, here.project, dag)
        tries.append(1)
        if len(tries) > 1 and (made := run_queries.find(connection, found.dag_id, run_id)) is not None:
            return found, made  # by the try before, whose commit was not heard of
        created = run_creation.create(
            connection,
            dag_id=found.dag_id,
            run_id=run_id,
            run_type=DagRunType.MANUAL,
            triggered_by=TriggeredBy.CLI,
            conf=conf,
            now=now,
            logical_date=logical_date,
            note=note,
        )
        return found, run_queries.by_id(connection, created)

    found, row = here.database.write(create)
    return row, _why_not_at_once(here, found)


def _why_not_at_once(here: Opened, dag: Row[Any]) -> str:
    from trainflow.engine.lock import running_engine

    if dag.is_paused:
        return f": the DAG is paused, it waits for 'trainflow dags unpause {dag.dag_id}'"
    if here.database.is_sqlite and running_engine(here.project.home) is None:
        return ": no engine is alive, it waits for 'trainflow start' or 'trainflow standalone'"
    return ""


def _tell_engine(here: Opened) -> None:
    from trainflow.executors.execution_socket import nudge

    nudge(here.project.home.socket_path)
