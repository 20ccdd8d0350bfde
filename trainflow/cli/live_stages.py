"""Show the stages of a pipeline at work together: a bar for each, and a line of what it does."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from trainflow.cli.live import console_of_summary, day, outcome, shown_metrics, task_text, waiting_line
from trainflow.cli.output import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trainflow.engine.following import View

_AT_WORK = ("running", "queued", "scheduled")


def panel_of_stages(views: list[View], now: datetime) -> RenderableType:
    """One row a stage."""
    from rich.panel import Panel as Box
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    rows = Table.grid(padding=(0, 2))
    for _ in range(4):
        rows.add_column(no_wrap=True)
    for view in views:
        bar = ProgressBar(view.total, view.trained or 0, width=20) if view.total else ""
        trained = f"{view.trained or 0}/{view.total}" if view.total else f"{view.trained or 0}"
        rows.add_row(f"[bold]{view.dag_id}[/]", bar, trained, _now(view, now))
    return Box(rows, title="stages", title_align="left", width=100)


def _now(view: View, now: datetime) -> RenderableType:
    for task in view.tasks:
        if task.state in _AT_WORK:
            return task_text(task, now)
    waiting = waiting_line(view.tasks)
    if waiting:
        return waiting
    if view.last_run is None:
        return "[dim]not begun yet[/]"
    return f"[dim]{view.last_run.note or outcome(view.last_run)}[/]"


def summary_of_stages(views: list[View], *, seconds: float, mirrored: str | None) -> None:
    """What is said at the end."""
    from rich.table import Table

    console = console_of_summary()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("stage", "checkpoints", "partitions", "rows", "watermark", "prequential", "outcome"):
        table.add_column(title, overflow="fold")
    for view in views:
        metrics = shown_metrics(view.metrics)[:2]
        table.add_row(
            view.dag_id,
            str(view.runs),
            f"{view.trained or 0} of {view.total}" if view.total else f"{view.trained or 0}",
            f"{view.rows:,}",
            day(view.watermark),
            "  ".join(f"{name} {value:.4f}" for name, value in metrics),
            outcome(view.last_run) if view.last_run else "nothing was due",
        )
    console.print(table)
    console.print(f"{sum(view.runs for view in views)} checkpoints committed in {duration(seconds)}")
    if mirrored:
        console.print(f"MLflow: {mirrored}")
