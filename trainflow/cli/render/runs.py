"""What is said of a run, as JSON and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.render.output import duration, print_facts, print_rows, seconds_between, text
from trainflow.cli.render.tasks import TASK_COLUMNS, shown_tasks

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from trainflow.workspace.workspace import Opened

RUN_COLUMNS = {
    "dag_id": "DAG",
    "number": "#",
    "run_id": "RUN",
    "state": "STATE",
    "run_type": "TYPE",
    "started_at": "STARTED (UTC)",
    "duration": "TOOK",
    "note": "NOTE",
}


def run_facts(row: Row[Any], here: Opened) -> dict[str, Any]:
    """One run as JSON shows it."""
    keys = (
        "dag_id",
        "run_id",
        "number",
        "state",
        "run_type",
        "triggered_by",
        "conf",
        "logical_date",
        "run_after",
        "queued_at",
        "started_at",
        "ended_at",
    )
    from trainflow.observability.redaction import redact

    facts = {key: getattr(row, key) for key in keys}
    facts["conf"] = redact(row.conf)
    facts["seconds"] = seconds_between(row.started_at, row.ended_at or here.clock.now())
    return facts | {"note": row.note, "clear_number": row.clear_number, "mlflow_run_id": row.mlflow_run_id}


def relatives(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    """Where it came from, and what came of it."""
    from trainflow.metadata import dag_queries, run_queries
    from trainflow.observability.redaction import redact

    version = dag_queries.version(connection, row.version_id)
    parent = run_queries.by_id(connection, row.parent_id) if row.parent_id is not None else None
    children = run_queries.children(connection, row.id)
    return {
        "version": version.number,
        "path": version.source["path"],
        "overrides": redact(version.source.get("overrides", {})),
        "parent": {"dag_id": parent.dag_id, "run_id": parent.run_id, "task_id": row.parent_task_id} if parent else None,
        "children": [{"dag_id": child.dag_id, "run_id": child.run_id, "state": child.state} for child in children],
    }


def shown_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a listing as people read them."""
    return [row | {"duration": duration(row["seconds"]), "number": str(row["number"])} for row in rows]


def print_run(facts: dict[str, Any]) -> None:
    """One run, for people."""
    parent = facts["parent"]
    lines = {
        "run": f"{facts['run_id']} (#{facts['number']} of {facts['dag_id']})",
        "state": facts["state"],
        "took": duration(facts["seconds"]),
        "started": text(facts["started_at"]),
        "ended": text(facts["ended_at"]),
        "version": f"{facts['version']} of {facts['path']}",
        "conf": str(facts["conf"]) if facts["conf"] else "",
        "logical date": text(facts["logical_date"]),
        "triggered by": f"{parent['task_id']} of run {parent['run_id']}" if parent else facts["triggered_by"],
        "triggered": ", ".join(f"{child['run_id']} of {child['dag_id']}" for child in facts["children"]),
        "note": facts["note"] or "",
    }
    print_facts(lines)
    typer.echo("")
    print_rows(shown_tasks(facts["tasks"]), TASK_COLUMNS, as_json=False, empty="its tasks are made when it starts")
