"""`trainflow runs`: list, show, trigger, cancel, clear."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from trainflow.cli.arguments import DAG_ARGUMENT, RUN_ARGUMENT, conf_of, moment
from trainflow.cli.render.output import JSON_OPTION, print_json, print_rows
from trainflow.cli.render.runs import RUN_COLUMNS, print_run, run_row
from trainflow.workspace.names import workspace_for

if TYPE_CHECKING:
    from trainflow.actions.runs import CancelPlan, ClearedRun

runs = typer.Typer(name="runs", help="Runs: list, show, trigger, cancel, clear.", no_args_is_help=True)


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
    from trainflow.clock import SystemClock
    from trainflow.insight.runs import runs as insight

    with workspace_for(dag) as workspace:
        found = insight.list_runs(workspace, dag, SystemClock().now(), state=state, limit=limit)
    if as_json:
        print_json(found.runs)
        return
    of = f" of {', '.join(found.dag_ids)}" if found.dag_ids else ""
    empty = f"no run{of}{f' is {state}' if state else ' yet'}"
    print_rows([run_row(each) for each in found.runs], RUN_COLUMNS, empty=empty, spare=("run_type", "run_id"))


@runs.command("show")
def show_run(dag: str = DAG_ARGUMENT, run: str = RUN_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """Show a run: its tasks, its origin, what came of it.

    JSON: the keys of `runs list`, and {version, path, overrides, parent: {dag_id, run_id, task_id} or null,
    children: [{dag_id, run_id, state}], tasks (as `tasks list`), store: {requests, writes (PUT, COPY, POST, LIST),
    reads (GET, HEAD), deletes, bytes_sent, bytes_received, seconds, errors} or null: what its attempts asked of stores
    in the network}.
    """
    from trainflow.clock import SystemClock
    from trainflow.insight.runs import runs as insight

    with workspace_for(dag) as workspace:
        found = insight.run_detail(workspace, dag, run, SystemClock().now())
    if as_json:
        print_json(found)
    else:
        print_run(found)


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
    DAG (exit code 2 otherwise). A chain goes on at its head, whatever triggers it: two runs never train the same split
    twice, the second one to commit is refused.

    JSON: the keys of `runs list`.
    """
    from trainflow.actions import runs as actions
    from trainflow.clock import SystemClock

    asked = actions.RunRequest(
        conf=conf_of(conf),
        run_id=run_id,
        logical_date=moment(logical_date, "--logical-date"),
        note=note,
        traceparent=os.environ.get("TRACEPARENT"),
    )
    with workspace_for(dag) as workspace:
        done = actions.trigger(workspace, dag, asked, SystemClock().now())
    if as_json:
        print_json(done.run)
    else:
        waits = f": {done.waits_for}" if done.waits_for else ""
        typer.echo(f"queued run {done.run.run_id} (#{done.run.number}) of {done.run.dag_id}{waits}")


@runs.command("cancel")
def cancel_run(
    dag: str = DAG_ARGUMENT,
    run: str = RUN_ARGUMENT,
    note: str = typer.Option(
        "cancelled from the command line", "--note", metavar="TEXT", help="Why, shown beside the run."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be ended."),
    as_json: bool = JSON_OPTION,
) -> None:
    """End a queued or running run as failed.

    Running tasks fail and are told to stop, the others are skipped.

    A run that continues itself ends there: nothing is triggered any more, `trainflow start` goes on at the head of the
    chain. A commit that is under way at this very moment may still succeed; the ledger says so then, and the next run
    goes on after it.

    Exit code 1 when the run has ended already. JSON: the keys of `runs list`; with --dry-run of the run as it is.
    """
    from trainflow.actions import runs as actions
    from trainflow.clock import SystemClock

    with workspace_for(dag) as workspace:
        now = SystemClock().now()
        if dry_run:
            plan = actions.plan_cancel(workspace, dag, run, now)
        done = plan.run if dry_run else actions.cancel(workspace, dag, run, now, note=note)
    if as_json:
        print_json(done)
    elif dry_run:
        typer.echo(f"run {done.run_id} (#{done.number}) of {done.dag_id} would be cancelled{_ending(plan)}")
    else:
        typer.echo(f"cancelled run {done.run_id} (#{done.number}) of {done.dag_id}")


def _ending(plan: CancelPlan) -> str:
    ends = [("would fail", plan.failing), ("would be skipped", plan.skipped)]
    said = [f"{', '.join(tasks)} {what}" for what, tasks in ends if tasks]
    return f": {'; '.join(said)}" if said else ""


@runs.command("clear")
def clear_run(
    dag: str = DAG_ARGUMENT,
    run: list[str] = typer.Argument(metavar="RUN…", help="Runs: ids, numbers, or 'latest'."),
    task: list[str] = typer.Option([], "--task", metavar="TASK", help="Only this task and all that wait for it."),
    only: bool = typer.Option(False, "--only", help="With --task: nothing downstream of it."),
    failed: bool = typer.Option(False, "--failed", help="Only tasks that failed, and all that wait for them."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would run again."),
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
    from trainflow.actions import runs as actions
    from trainflow.clock import SystemClock

    with workspace_for(dag) as workspace:
        asked = actions.ClearRequest(runs=run, tasks=task, only=only, failed=failed)
        if dry_run:
            cleared = actions.plan_clear(workspace, dag, asked)
        else:
            cleared = actions.clear(workspace, dag, asked, SystemClock().now())
    if as_json:
        print_json(cleared)
    for one in [] if as_json else cleared:
        say_cleared(one, dry_run=dry_run)


def say_cleared(run: ClearedRun, *, dry_run: bool) -> None:
    """Say which tasks of a run run again, or would."""
    what = ", ".join(run.cleared) or "no task had started"
    typer.echo(f"{'would clear' if dry_run else 'cleared'} run {run.run_id} (#{run.number}) of {run.dag_id}: {what}")
