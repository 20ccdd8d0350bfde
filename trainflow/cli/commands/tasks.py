"""`trainflow tasks`: list, show, logs, clear, mark, test."""

from __future__ import annotations

from contextlib import closing

import typer

from trainflow.cli.arguments import DAG_ARGUMENT, RUN_ARGUMENT, TASK_ARGUMENT
from trainflow.cli.commands.runs import say_cleared
from trainflow.cli.render import runs
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows
from trainflow.cli.render.runs import TASK_COLUMNS, print_task, task_row
from trainflow.errors import InputError
from trainflow.workspace.names import run_named, workspace_for

tasks = typer.Typer(name="tasks", help="Tasks: list, show, logs, clear, mark, test.", no_args_is_help=True)


@tasks.command("list")
def list_tasks(dag: str = DAG_ARGUMENT, run: str = RUN_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """List the tasks of a run, in the order of the DAG.

    JSON: [{dag_id, run_id, task_id, map_index, operator, role, state, try_number, max_tries, attempt_id,
    started_at, ended_at, seconds, waiting, note, problem, progress}]. `waiting` is a sentence: why it does not run.
    """
    from trainflow.clock import SystemClock
    from trainflow.insight.runs import tasks as insight

    with workspace_for(dag) as workspace:
        found = insight.list_tasks(workspace, dag, run, SystemClock().now())
    if as_json:
        print_json(found)
    else:
        empty = "the run has not started: its tasks are made when it does"
        print_rows([task_row(each) for each in found], TASK_COLUMNS, empty=empty)


@tasks.command("show")
def show_task(
    dag: str = DAG_ARGUMENT, run: str = RUN_ARGUMENT, task: str = TASK_ARGUMENT, as_json: bool = JSON_OPTION
) -> None:
    """Show a task: why it waits, its attempts, its XComs.

    JSON: the keys of `tasks list`, and {upstream, trigger_rule, pool, pool_slots, priority_weight, queue, retry_at,
    hostname, pid, xcoms (key: value), attempts: [{attempt_id, try_number, outcome, queued_at, started_at, ended_at,
    seconds, problem, hostname, service_id, refused_at, log_path, rendered_fields (name: value) or null,
    curves (metric: [[done, value or null, milliseconds], …])}]}, oldest attempt first.
    """
    from trainflow.clock import SystemClock
    from trainflow.insight.runs import tasks as insight

    with workspace_for(dag) as workspace:
        found = insight.task_detail(workspace, dag, run, task, SystemClock().now())
    if as_json:
        print_json(found)
    else:
        print_task(found)


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
    """Print what an attempt of a task printed and logged.

    A terminal is sent text and colours: nothing that moves its cursor, clears it or changes its title. Into a file or
    a pipe the log is written as it is.
    """
    from trainflow.insight.runs.logs import log_source
    from trainflow.insight.runs.tasks import attempt_log, has_ended

    with workspace_for(dag) as workspace:
        log = attempt_log(workspace, dag, run, task, attempt)
        source = log_source(workspace, log)
        with closing(runs.LogPrinter()) as printer:
            rotated = printer.print_rotated(source)
            position = printer.print_from(source, 0)
            while follow:
                # in this order: what was written before the attempt ended has been printed then
                ended = has_ended(workspace, log)
                position = printer.print_from(source, position)
                if ended:
                    break
                runs.pause()
    if not position and not rotated:
        typer.echo(f"nothing was printed or logged{log.elsewhere}: {source.place}", err=True)


@tasks.command("clear")
def clear_task(
    dag: str = DAG_ARGUMENT,
    run: str = RUN_ARGUMENT,
    task: str = TASK_ARGUMENT,
    only: bool = typer.Option(False, "--only", help="Nothing downstream of it."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would run again."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Let a task and all that wait for it run again.

    As `trainflow runs clear DAG RUN --task TASK`, which see.

    JSON: {dag_id, run_id, number, state, cleared (task ids)}.
    """
    from trainflow.actions import runs as actions
    from trainflow.clock import SystemClock

    with workspace_for(dag) as workspace:
        asked = actions.ClearRequest(runs=[run], tasks=[task], only=only)
        if dry_run:
            (cleared,) = actions.plan_clear(workspace, dag, asked)
        else:
            (cleared,) = actions.clear(workspace, dag, asked, SystemClock().now())
    if as_json:
        print_json(cleared)
    else:
        say_cleared(cleared, dry_run=dry_run)


@tasks.command("mark")
def mark_task(
    dag: str = DAG_ARGUMENT,
    run: str = RUN_ARGUMENT,
    task: str = TASK_ARGUMENT,
    success: bool = typer.Option(False, "--success", help="As done: what waits for it goes on."),
    failed: bool = typer.Option(False, "--failed", help="As failed: one at work is told to stop."),
    skipped: bool = typer.Option(False, "--skipped", help="As skipped."),
    note: str = typer.Option("marked from the command line", "--note", metavar="TEXT", help="Shown beside the task."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be changed."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Mark a task of a run by hand, without running it.

    A task that works on a chain is never marked as done: what its ledger does not have was not trained. One at work may
    be marked as failed only.

    Exit code 1 where the task is in no state for it. JSON: {dag_id, run_id, task_id, state, cleared (task ids)}.
    """
    from trainflow.actions.marking import mark_task, plan_mark
    from trainflow.clock import SystemClock

    given = [name for name, is_given in (("success", success), ("failed", failed), ("skipped", skipped)) if is_given]
    if len(given) != 1:
        raise InputError("say what the task is from now on: --success, --failed or --skipped")
    with workspace_for(dag) as workspace:
        with workspace.database.reading() as connection:
            found = run_named(connection, workspace.project, dag, run)
        asked = found.dag_id, found.run_id, task, given[0]
        if dry_run:
            done = plan_mark(workspace, *asked)
        else:
            done = mark_task(workspace, *asked, SystemClock().now(), note=note)
    if as_json:
        print_json(done)
        return
    would = "would be" if dry_run else "is"
    typer.echo(f"task {done.task_id} of {done.run_id} {would} {done.state}")
    if done.cleared:
        typer.echo(f"{'would run again' if dry_run else 'run again'}: {', '.join(done.cleared)}")


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
