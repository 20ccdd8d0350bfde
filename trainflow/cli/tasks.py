"""`trainflow tasks`: list, show, logs, clear, test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli import task_logs
from trainflow.cli.names import DAG_ARGUMENT, RUN_ARGUMENT, TASK_ARGUMENT, check_tasks, opened_for, run_named
from trainflow.cli.output import JSON_OPTION

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from trainflow.cli.opened import Opened
    from trainflow.serialization.document import DagDocument

tasks = typer.Typer(help="Tasks: list, show, logs, clear, test.", no_args_is_help=True)

COLUMNS = {
    "task_id": "TASK",
    "state": "STATE",
    "try": "TRY",
    "started_at": "STARTED (UTC)",
    "duration": "TOOK",
    "remark": "",
}
_ATTEMPT_COLUMNS = {
    "attempt_id": "ATTEMPT",
    "try_number": "TRY",
    "outcome": "OUTCOME",
    "started_at": "STARTED (UTC)",
    "duration": "TOOK",
    "problem": "PROBLEM",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(tasks, name="tasks")


@tasks.command("list")
def list_tasks(dag: str = DAG_ARGUMENT, run: str = RUN_ARGUMENT, as_json: bool = JSON_OPTION) -> None:
    """The tasks of a run, in the order of the DAG.

    JSON: a list of {dag_id, run_id, task_id, map_index, operator, role, state, try_number, max_tries, attempt_id,
    started_at, ended_at, seconds, waiting, note, problem, progress}. `waiting` is a sentence: why it does not run.
    """
    from trainflow.cli.output import print_rows

    with opened_for(dag) as here, here.database.reading() as connection:
        rows = task_listing(connection, run_named(connection, here.project, dag, run), here)
    empty = "the run has not started: its tasks are made when it does"
    print_rows(rows if as_json else shown_tasks(rows), COLUMNS, as_json=as_json, empty=empty)


@tasks.command("show")
def show_task(
    dag: str = DAG_ARGUMENT, run: str = RUN_ARGUMENT, task: str = TASK_ARGUMENT, as_json: bool = JSON_OPTION
) -> None:
    """One task of a run: why it waits, its attempts, what it handed over.

    JSON: the keys of `tasks list`, and {upstream, trigger_rule, pool, pool_slots, priority_weight, queue, retry_at,
    hostname, pid, xcoms: {key: value}, attempts: [{attempt_id, try_number, outcome, queued_at, started_at, ended_at,
    seconds, problem, log_path}]}, oldest attempt first.
    """
    from trainflow.cli.output import print_json
    from trainflow.metadata import attempt_queries, xcom_queries

    with opened_for(dag) as here, here.database.reading() as connection:
        found = run_named(connection, here.project, dag, run)
        row = task_row(connection, found, task)
        facts = next(each for each in task_listing(connection, found, here) if each["task_id"] == task)
        facts |= _details(connection, found, row)
        values = xcom_queries.of_run(connection, found.id)
        facts["xcoms"] = {key: value for (task_id, key), value in values.items() if task_id == task}
        attempts = attempt_queries.of_task(connection, row.id)
        facts["attempts"] = [_attempt_facts(attempt, here) for attempt in attempts]
    if as_json:
        print_json(facts)
    else:
        _print_task(facts)


@tasks.command("logs")
def logs(
    dag: str = DAG_ARGUMENT,
    run: str = RUN_ARGUMENT,
    task: str = TASK_ARGUMENT,
    attempt: str | None = typer.Option(
        None, "--attempt", help="Which: 1 is the first, -1 the last, or how its id begins; default: the last."
    ),
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on until the attempt has ended (Ctrl-C stops)."),
) -> None:
    """What an attempt of a task printed and logged."""
    with opened_for(dag) as here:
        with here.database.reading() as connection:
            found = run_named(connection, here.project, dag, run)
            task_instance = task_row(connection, found, task)
            chosen = task_logs.choose_attempt(connection, task_instance, attempt)
        path = Path(chosen.log_path)
        position = task_logs.print_from(path, 0)
        while follow:
            # in this order: what was written before the attempt ended has been printed then
            ended = task_logs.has_ended(here, task_instance.id, chosen.attempt_id)
            position = task_logs.print_from(path, position)
            if ended:
                break
            task_logs.pause()
    if not position:
        typer.echo(f"nothing was printed or logged: {path}", err=True)


@tasks.command("clear")
def clear_task(
    dag: str = DAG_ARGUMENT,
    run: str = RUN_ARGUMENT,
    task: str = TASK_ARGUMENT,
    only: bool = typer.Option(False, "--only", help="Nothing downstream of it."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Let a task and all that wait for it run again: `trainflow runs clear DAG RUN --task TASK`, which see.

    JSON: {dag_id, run_id, number, state, cleared: [task ids]}.
    """
    from trainflow.cli.output import print_json
    from trainflow.cli.runs import clear
    from trainflow.executors.supervision import nudge

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
    logical_date: str | None = typer.Option(None, "--logical-date", help="The date the run is about."),
) -> int:
    """Run one task in this process, once: no scheduler, no retries, no database.

    What tasks before it would hand over is empty, unless `--xcom samples='{…}'` gives it ('trainflow tasks show
    --json' prints real ones). Whatever the task does outside of trainflow, it does: a task that commits a checkpoint
    commits it. A wait and a run it wants to trigger are only printed. The context says `test_mode`.

    Exit codes: 0 success, skipped or deferred, 1 failed, 2 wrong input, 130 interrupted.
    """
    from trainflow.cli.trial import run_trial

    return run_trial(dag, task, conf=conf, xcoms=xcom, overrides=overrides, logical_date=logical_date)


# -- facts ---------------------------------------------------------------------------------------------------------


def task_listing(connection: Connection, run: Row[Any], here: Opened) -> list[dict[str, Any]]:
    """The tasks of a run as JSON shows them, in the order of the DAG."""
    from trainflow.cli.runs import seconds_between
    from trainflow.metadata import task_queries
    from trainflow.metadata.dag_queries import Versions

    now = here.clock.now()
    document, _ = Versions().get(connection, run.version_id)
    rows = task_queries.rows_of_run(connection, run.id)
    waiting = _reasons(connection, run, document, rows, here)
    order = {task.task_id: number for number, task in enumerate(document.tasks)}
    result = []
    for row in sorted(rows, key=lambda row: (order.get(row.task_id, len(order)), row.map_index)):
        described = document.task(row.task_id)
        result.append(
            {
                "dag_id": run.dag_id,
                "run_id": run.run_id,
                "task_id": row.task_id,
                "map_index": row.map_index,
                "operator": described.operator if described else None,
                "role": described.role if described else None,
                "state": row.state,
                "try_number": max(1, row.failures + (row.state != "failed")),
                "max_tries": row.max_tries,
                "attempt_id": row.attempt_id,
                "started_at": row.started_at,
                "ended_at": row.ended_at,
                "seconds": seconds_between(row.started_at, row.ended_at or now),
                "waiting": waiting.get(row.id),
                "note": row.note,
                "problem": row.problem,
                "progress": row.progress,
            }
        )
    return result


def task_row(connection: Connection, run: Row[Any], task_id: str) -> Row[Any]:
    """The row of a task of a run. Raises InputError with near matches."""
    from trainflow.errors import InputError
    from trainflow.metadata import task_queries
    from trainflow.metadata.dag_queries import Versions

    rows = {row.task_id: row for row in task_queries.rows_of_run(connection, run.id)}
    document, _ = Versions().get(connection, run.version_id)
    known = [task.task_id for task in document.tasks]
    check_tasks([task_id], [*rows, *known], f"run {run.run_id} of {run.dag_id}")
    if task_id not in rows:
        raise InputError(f"run {run.run_id} of {run.dag_id} has not started: its tasks are made when it does")
    return rows[task_id]


def _reasons(
    connection: Connection, run: Row[Any], document: DagDocument, rows: list[Row[Any]], here: Opened
) -> dict[int, str]:
    """Task instance → why it does not run."""
    from trainflow.engine.situation import engine_state, refusals
    from trainflow.engine.waiting import Surroundings, why_waits
    from trainflow.metadata import dag_queries, run_queries, trigger_queries
    from trainflow.states import FINISHED

    if not any(row.state not in FINISHED or row.state == "upstream_failed" for row in rows):
        return {}
    now = here.clock.now()
    engine = engine_state(here.project, here.settings, here.database, now)
    dag = dag_queries.get(connection, run.dag_id)
    unfinished = run_queries.unfinished_of(connection, run.dag_id)
    running = [each for each in unfinished if each.state == "running" and each.released_at is None]
    refused = refusals(connection, here.settings)
    states = {row.task_id: row.state for row in rows}
    reasons = {}
    for row in rows:
        described = document.task(row.task_id)
        if described is None:
            continue
        wait = trigger_queries.of_task(connection, row.id) if row.state == "deferred" else None
        around = Surroundings(
            dag_id=run.dag_id,
            engine_alive=engine.alive,
            triggerer_alive=engine.triggers,
            paused=dag.is_paused,
            max_active_runs=dag.max_active_runs,
            running=len(running),
            run_state=run.state,
            run_after=run.run_after,
            states=states,
            refused=refused.get(row.id),
            trigger_class=wait.trigger_class if wait else None,
            deadline=wait.deadline if wait else None,
        )
        sentence = why_waits(described, row, around, now)
        if sentence is not None:
            reasons[row.id] = sentence
    return reasons


def _details(connection: Connection, run: Row[Any], row: Row[Any]) -> dict[str, Any]:
    from trainflow.metadata.dag_queries import Versions

    document, _ = Versions().get(connection, run.version_id)
    described = document.task(row.task_id)
    keys = ("pool", "pool_slots", "priority_weight", "queue", "retry_at", "hostname", "pid")
    return {
        "upstream": described.upstream if described else [],
        "trigger_rule": described.trigger_rule if described else None,
        **{key: getattr(row, key) for key in keys},
    }


def _attempt_facts(row: Row[Any], here: Opened) -> dict[str, Any]:
    from trainflow.cli.runs import seconds_between

    keys = ("attempt_id", "try_number", "outcome", "queued_at", "started_at", "ended_at", "problem", "log_path")
    facts = {key: getattr(row, key) for key in keys}
    return facts | {"seconds": seconds_between(row.started_at, row.ended_at or here.clock.now())}


# -- for people ----------------------------------------------------------------------------------------------------


def shown_tasks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a listing as people read them."""
    from trainflow.cli.output import duration

    return [
        row
        | {
            "state": row["state"] or "-",
            "try": f"{row['try_number']}/{row['max_tries'] + 1}",
            "duration": duration(row["seconds"]),
            "remark": _remark(row),
        }
        for row in rows
    ]


def _remark(row: dict[str, Any]) -> str:
    progress = row["progress"]
    if row["state"] == "running" and progress:
        total = f" of {progress['total']:,.0f}" if progress.get("total") else ""
        return f"{progress['done']:,.0f}{total} {progress.get('unit', '')}".rstrip()
    problem = row["problem"] if row["state"] in ("failed", "up_for_retry") else None
    return row["waiting"] or problem or row["note"] or ""


def _print_task(facts: dict[str, Any]) -> None:
    from trainflow.cli.output import duration, print_rows, text
    from trainflow.cli.runs import print_facts

    rule = "" if facts["trigger_rule"] == "all_success" else f" ({facts['trigger_rule']})"
    lines = {
        "task": f"{facts['task_id']} ({facts['operator']}) of run {facts['run_id']} of {facts['dag_id']}",
        "state": facts["state"] or "not looked at yet",
        "waiting": facts["waiting"] or "",
        "try": f"{facts['try_number']} of {facts['max_tries'] + 1}",
        "started": text(facts["started_at"]),
        "took": duration(facts["seconds"]),
        "after": ", ".join(facts["upstream"]) + rule,
        "pool": f"{facts['pool']} ({facts['pool_slots']} of its slots)",
        "where": f"{facts['hostname']}, pid {facts['pid']}" if facts["pid"] and facts["state"] == "running" else "",
        "progress": _remark(facts) if facts["state"] == "running" else "",
        "note": facts["note"] or "",
        "problem": facts["problem"] or "",
    }
    print_facts(lines)
    attempts = [row | {"duration": duration(row["seconds"])} for row in facts["attempts"]]
    print_rows(attempts, _ATTEMPT_COLUMNS, as_json=False, empty="no attempt yet")
    if facts["xcoms"]:
        typer.echo("\nhanded over")
    for key, value in facts["xcoms"].items():
        typer.echo(f"  {key}: {_clip(value)}")


def _clip(value: Any) -> str:
    import msgspec

    shown = msgspec.json.encode(value).decode()
    return shown if len(shown) <= 400 else f"{shown[:400]}… ({len(shown):,} characters; --json shows all)"
