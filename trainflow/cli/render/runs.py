"""Runs as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.render.output import duration, print_facts, print_rows, text
from trainflow.cli.render.tasks import TASK_COLUMNS, task_row

if TYPE_CHECKING:
    from trainflow.insight.runs.runs import RunDetail, RunSummary

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


def run_row(run: RunSummary) -> dict[str, Any]:
    """A row of a listing."""
    import msgspec

    return msgspec.structs.asdict(run) | {"duration": duration(run.seconds), "number": str(run.number)}


def print_run(run: RunDetail) -> None:
    """One run, for people."""
    parent = run.parent
    lines = {
        "run": f"{run.run_id} (#{run.number} of {run.dag_id})",
        "state": run.state,
        "took": duration(run.seconds),
        "started": text(run.started_at),
        "ended": text(run.ended_at),
        "version": f"{run.version} of {run.path}",
        "conf": str(run.conf) if run.conf else "",
        "logical date": text(run.logical_date),
        "triggered by": f"{parent.task_id} of run {parent.run_id}" if parent else run.triggered_by,
        "triggered": ", ".join(f"{child.run_id} of {child.dag_id}" for child in run.children),
        "note": run.note or "",
    }
    print_facts(lines)
    typer.echo("")
    print_rows(
        [task_row(each) for each in run.tasks], TASK_COLUMNS, as_json=False, empty="its tasks are made when it starts"
    )
