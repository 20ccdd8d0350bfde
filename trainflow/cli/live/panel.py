"""Show a pipeline at work: a panel of its chain and its current run, and a summary at the end."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from trainflow.cli.live.lines import day, failed_beside, is_bad, outcome, shown_metrics
from trainflow.cli.render.output import duration, print_facts
from trainflow.pluralize import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trainflow.insight.progress.view import ProgressView, TaskLine

_WIDTH = 88
_MARKS = {
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "upstream_failed": ("✗", "red"),
    "skipped": ("-", "dim"),
    "running": ("▶", "cyan"),
    "queued": ("·", "cyan"),
    "deferred": ("◌", "yellow"),
    "up_for_retry": ("↻", "yellow"),
    "up_for_reschedule": ("↻", "yellow"),
}


def panel_of_chain(view: ProgressView, now: datetime, width: int) -> RenderableType:
    """The facts of a chain, and a line for each task of its current run."""
    from rich.console import Group
    from rich.panel import Panel as Box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    width = min(width, _WIDTH)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(no_wrap=True, overflow="ellipsis", max_width=width - 17)
    if view.total:
        bar, reached = Table.grid(padding=(0, 1)), view.trained or 0
        share = f"{reached}/{view.total} partitions"
        # beside the frame, the names of the facts and the share itself
        bar.add_row(ProgressBar(view.total, reached, width=max(4, min(40, width - len(share) - 18))), share)
        facts.add_row("trained", bar)
    elif view.trained is not None:
        facts.add_row("trained", counted(view.trained, "partition"))
    if view.watermark:
        facts.add_row("watermark", day(view.watermark))
    if view.rows:
        rate = f"  {view.rows_per_second:,.0f} rows/s" if view.rows_per_second else ""
        facts.add_row("rows", f"{view.rows:,}{rate}")
    if view.metrics:
        facts.add_row("prequential", "  ".join(f"{name} {value:.4g}" for name, value in shown_metrics(view.metrics)))
    if view.eta_seconds is not None and not view.finished:
        facts.add_row("ETA", duration(view.eta_seconds))
    lines = [task_text(task, now) for task in view.tasks]
    title = Text(view.dag_id, style="bold")
    title.append(f" · run {view.current_number}" if view.current_number else "", style="not bold")
    return Box(Group(facts, Text(""), *lines), title=title, title_align="left", width=width)


def task_text(task: TaskLine, now: datetime) -> RenderableType:
    """A task in one line: its state, how long it has taken, how far it is or what it says."""
    from rich.text import Text

    mark, style = _MARKS.get(task.state or "", (" ", "dim"))
    line = Text(f"{mark} {task.task_id:<12}", style=style, no_wrap=True, overflow="ellipsis")
    if task.started_at is not None:
        line.append(f" {duration(((task.ended_at or now) - task.started_at).total_seconds()):>7}", style="dim")
    if task.state == "running" and task.progress:
        done, total = task.progress["done"], task.progress.get("total")
        share = f" {done / total:4.0%}" if total else ""
        line.append(f" {share} {done:,.0f} {task.progress.get('unit', '')}")
    elif task.note:
        line.append(f"  {_one_line(task.note)}", style="dim")
    elif task.problem and task.state != "success":
        line.append(f"  {_one_line(task.problem)}", style="red")
    return line


def _one_line(words: str) -> str:
    return " ".join(words.split())


def summary(view: ProgressView, *, seconds: float, mirrored: str | None) -> None:
    """What is said at the end."""
    facts = {
        "pipeline": view.dag_id,
        "outcome": outcome(view.last_run),
        "runs": f"{counted(view.runs, 'checkpoint')} committed in {duration(seconds)}",
    }
    if view.trained is not None and (view.total or view.trained):
        facts["partitions"] = f"{view.trained:,} of {view.total:,}" if view.total else f"{view.trained:,}"
    if view.rows:
        facts["rows"] = f"{view.rows:,} ({view.rows / seconds:,.0f} rows/s)" if seconds else f"{view.rows:,}"
    if view.metrics:
        facts["prequential"] = "  ".join(f"{name} {value:.4f}" for name, value in shown_metrics(view.metrics))
    if view.watermark:
        facts["watermark"] = day(view.watermark)
    if view.head_uri:
        facts["checkpoint"] = view.head_uri
    if view.failed_beside:
        facts["failed"] = failed_beside(view)
    if mirrored:
        facts["MLflow"] = mirrored
    print_facts(facts, style="red" if is_bad(view.last_run) else None)
