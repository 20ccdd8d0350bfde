"""Show the stages of a pipeline at work together: a bar for each, and a line of what it does."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from trainflow.cli.live import console_of_summary, day, outcome, shown_metrics, task_text, waiting_line
from trainflow.cli.output import duration
from trainflow.counting import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trainflow.engine.views import View

_AT_WORK = ("running", "queued", "scheduled")


def panel_of_stages(views: list[View], now: datetime) -> RenderableType:
    """One row a stage."""
    from rich.panel import Panel as Box
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    title, names = _names(views)
    rows = Table.grid(padding=(0, 2))
    for width in (max(map(len, names)), 20, max(len(_trained(view)) for view in views)):
        rows.add_column(no_wrap=True, min_width=width)
    rows.add_column(no_wrap=True, overflow="ellipsis")
    for name, view in zip(names, views, strict=True):
        bar = ProgressBar(view.total, view.trained or 0, width=20) if view.total else ""
        rows.add_row(f"[bold]{name}[/]", bar, _trained(view), _now(view, now))
    return Box(rows, title=f"[bold]{title}[/]", title_align="left", width=100)


def _names(views: list[View]) -> tuple[str, list[str]]:
    """A title, and what to call each: its stage, where they are stages of one pipeline."""
    pipelines = {view.dag_id.partition(".")[0] for view in views}
    if len(pipelines) > 1:
        return "stages", [view.dag_id for view in views]
    return pipelines.pop(), [view.dag_id.partition(".")[2] or view.dag_id for view in views]


def _trained(view: View) -> str:
    return f"{view.trained or 0}/{view.total}" if view.total else f"{view.trained or 0}"


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
    title, names = _names(views)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (title, "committed", "partitions", "rows", "watermark", "prequential"):
        table.add_column(column, overflow="fold")
    for name, view in zip(names, views, strict=True):
        metrics = shown_metrics(view.metrics)[:1]
        table.add_row(
            name,
            str(view.runs),
            _trained(view),
            f"{view.rows:,}",
            day(view.watermark),
            "  ".join(f"{metric} {value:.4f}" for metric, value in metrics),
        )
    console.print(table)
    for name, view in zip(names, views, strict=True):
        console.print(f"{name}: {outcome(view.last_run) if view.last_run else 'nothing was due'}")
    console.print(f"{counted(sum(view.runs for view in views), 'checkpoint')} committed in {duration(seconds)}")
    if mirrored:
        console.print(f"MLflow: {mirrored}")
