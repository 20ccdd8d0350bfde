"""What is said of a task of a run, as JSON and for people: where it stands, and why it does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.render.output import duration, print_facts, print_rows, seconds_between, text
from trainflow.workspace.names import check_tasks

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from trainflow.serialization.document import DagDocument
    from trainflow.workspace.workspace import Opened

TASK_COLUMNS = {
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


def task_listing(connection: Connection, run: Row[Any], here: Opened) -> list[dict[str, Any]]:
    """The tasks of a run as JSON shows them, in the order of the DAG."""
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
    from trainflow.insight.explain_task import Surroundings, why_waits
    from trainflow.insight.snapshot import engine_state, refusals
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


def details(connection: Connection, run: Row[Any], row: Row[Any]) -> dict[str, Any]:
    """What `tasks show` says more."""
    from trainflow.metadata.dag_queries import Versions

    document, _ = Versions().get(connection, run.version_id)
    described = document.task(row.task_id)
    keys = ("pool", "pool_slots", "priority_weight", "queue", "retry_at", "hostname", "pid")
    return {
        "upstream": described.upstream if described else [],
        "trigger_rule": described.trigger_rule if described else None,
        **{key: getattr(row, key) for key in keys},
    }


def attempt_facts(row: Row[Any], here: Opened) -> dict[str, Any]:
    """One attempt as JSON shows it."""
    keys = ("attempt_id", "try_number", "outcome", "queued_at", "started_at", "ended_at", "problem", "log_path")
    facts = {key: getattr(row, key) for key in keys}
    return facts | {"seconds": seconds_between(row.started_at, row.ended_at or here.clock.now())}


def shown_tasks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a listing as people read them."""
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


def print_task(facts: dict[str, Any]) -> None:
    """One task, for people."""
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
    typer.echo("")
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
