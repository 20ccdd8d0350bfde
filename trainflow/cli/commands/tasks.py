"""`trainflow tasks`: list, show, logs, clear, test."""

from __future__ import annotations

from pathlib import Path

import typer

from trainflow.cli.arguments import DAG_ARGUMENT, RUN_ARGUMENT, TASK_ARGUMENT
from trainflow.cli.render import task_logs
from trainflow.cli.render.output import JSON_OPTION
from trainflow.cli.render.tasks import (
    TASK_COLUMNS,
    attempt_facts,
    details,
    print_task,
    shown_tasks,
    task_listing,
    task_row,
)
from trainflow.workspace.names import opened_for, run_named

tasks = typer.Typer(help="Tasks: list, show, logs, clear, test.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(tasks, name="tasks")


@tasks.command("list")
def list_tasks(dag: str = DAG_ARGUMENT, run: str = RUN_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """List the tasks of a run, in the order of the DAG.

    JSON: [{dag_id, run_id, task_id, map_index, operator, role, state, try_number, max_tries, attempt_id,
    started_at, ended_at, seconds, waiting, note, problem, progress}]. `waiting` is a sentence: why it does not run.
    """
    from trainflow.cli.render.output import print_rows

    with opened_for(dag) as here, here.database.reading() as connection:
        rows = task_listing(connection, run_named(connection, here.project, dag, run), here)
    empty = "the run has not started: its tasks are made when it does"
    print_rows(rows if as_json else shown_tasks(rows), TASK_COLUMNS, as_json=as_json, empty=empty)


@tasks.command("show")
def show_task(
    dag: str = DAG_ARGUMENT, run: str = RUN_ARGUMENT, task: str = TASK_ARGUMENT, as_json: bool = JSON_OPTION
) -> None:
    """Show a task: why it waits, its attempts, its XComs.

    JSON: the keys of `tasks list`, and {upstream, trigger_rule, pool, pool_slots, priority_weight, queue, retry_at,
    hostname, pid, xcoms (key: value), attempts: [{attempt_id, try_number, outcome, queued_at, started_at, ended_at,
    seconds, problem, log_path}]}, oldest attempt first.
    """
    from trainflow.cli.render.output import print_json
    from trainflow.metadata import attempt_queries, xcom_queries

    with opened_for(dag) as here, here.database.reading() as connection:
        found = run_named(connection, here.project, dag, run)
        row = task_row(connection, found, task)
        facts = next(each for each in task_listing(connection, found, here) if each["task_id"] == task)
        facts |= details(connection, found, row)
        values = xcom_queries.of_run(connection, found.id)
        facts["xcoms"] = {key: value for (task_id, key), value in values.items() if task_id == task}
        attempts = attempt_queries.of_task(connection, row.id)
        facts["attempts"] = [attempt_facts(attempt, here) for attempt in attempts]
    if as_json:
        print_json(facts)
    else:
        print_task(facts)


@tasks.command("logs")
def logs(
    dag: str = DAG_ARGUMENT,
    run: str = RUN_ARGUMENT,
    task: str = TASK_ARGUMENT,
    attempt: str | None = typer.Option(
        None,
        "--attempt",
        metavar="N|ID",
        help="Which: 1 is the first, -1 the last, or how its id begins; default: the last.",
    ),
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on until the attempt has ended (Ctrl-C stops)."),
) -> None:
    """Print what an attempt of a task printed and logged."""
    with opened_for(dag) as here:
        with here.database.reading() as connection:
            found = run_named(connection, here.project, dag, run)
            task_instance = task_row(connection, found, task)
            chosen = task_logs.choose_attempt(connection, task_instance, attempt)
        path = Path(chosen.log_path)
        rotated = task_logs.print_rotated(path)
        position = task_logs.print_from(path, 0)
        while follow:
            # in this order: what was written before the attempt ended has been printed then
            ended = task_logs.has_ended(here, task_instance.id, chosen.attempt_id)
            position = task_logs.print_from(path, position)
            if ended:
                break
            task_logs.pause()
    if not position and not rotated:
        typer.echo(f"nothing was printed or logged: {path}", err=True)


@tasks.command("clear")
def clear_task(
    dag: str = DAG_ARGUMENT,
    run: str = RUN_ARGUMENT,
    task: str = TASK_ARGUMENT,
    only: bool = typer.Option(False, "--only", help="Nothing downstream of it."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Let a task and all that wait for it run again.

    As `trainflow runs clear DAG RUN --task TASK`, which see.

    JSON: {dag_id, run_id, number, state, cleared (task ids)}.
    """
    from trainflow.cli.commands.runs import clear
    from trainflow.cli.render.output import print_json
    from trainflow.executors.execution_socket import nudge

    with opened_for(dag) as here:
        (cleared,) = here.database.write(lambda c: clear(c, here, dag, [run], tasks=[task], only=only))
        nudge(here.project.home.socket_path)
    if as_json:
        print_json(cleared)
    else:
        what = ", ".join(cleared["cleared"]) or "no task had started"
        typer.echo(f"cleared run {cleared['run_id']} (#{cleared['number']}) of {cleared['dag_id']}: {what}")


@tasks.command("test")
def try_task(
    dag: str = DAG_ARGUMENT,
    task: str = TASK_ARGUMENT,
    conf: str | None = typer.Option(None, "--conf", metavar="JSON", help="Conf of the run: an object."),
    xcom: list[str] = typer.Option([], "--xcom", metavar="TASK=JSON", help="What a task before it hands over."),
    overrides: list[str] = typer.Option([], "--set", metavar="NAME=VALUE", help="Override a value of the pipeline."),
    logical_date: str | None = typer.Option(None, "--logical-date", metavar="DATE", help="The date the run is about."),
) -> int:
    """Run one task in this process, once.

    No scheduler, no retries, no database.

    What tasks before it would hand over is empty, unless `--xcom samples='{…}'` gives it ('trainflow tasks show
    --json' prints real ones). Whatever the task does outside of trainflow, it does: a task that commits a checkpoint
    commits it. A wait and a run it wants to trigger are only printed. The context says `test_mode`.

    Exit codes: 0 success, skipped or deferred, 1 failed, 2 wrong input, 130 interrupted.
    """
    from trainflow.cli.commands.task_test import run_trial

    return run_trial(dag, task, conf=conf, xcoms=xcom, overrides=overrides, logical_date=logical_date)
