"""Show the stages of a pipeline at work together: a bar for each, and a line of what it does."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import typer

from trainflow.cli.live.lines import day, failed_beside, is_bad, outcome, shown_metrics, waiting_line
from trainflow.cli.live.panel import task_text
from trainflow.cli.render.output import duration, print_table
from trainflow.pluralize import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trainflow.insight.progress.view import ProgressView

_WIDTH = 100
#: columns from which on a bar has room to be long
_ROOMY = 78
_AT_WORK = ("running", "queued", "scheduled")


def panel_of_stages(views: list[ProgressView], now: datetime, width: int) -> RenderableType:
    """One row a stage."""
    from rich.panel import Panel as Box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    title, names = _names(views)
    bar_width = 20 if width >= _ROOMY else 8
    rows = Table.grid(padding=(0, 2))
    width = min(width, _WIDTH)
    columns = [max(map(len, names)), bar_width, max(len(_trained(view)) for view in views)]
    # what is left of the line, beside the frame and the gaps: Rich would take it from all columns alike
    columns.append(max(8, width - sum(columns) - 4 - 2 * len(columns)))
    for column in columns:
        rows.add_column(no_wrap=True, overflow="ellipsis", width=column)
    for name, view in zip(names, views, strict=True):
        bar = ProgressBar(view.total, view.trained or 0, width=bar_width) if view.total else ""
        rows.add_row(Text(name, style="bold"), bar, _trained(view), _now(view, now))
    return Box(rows, title=Text(title, style="bold"), title_align="left", width=width)


def _names(views: list[ProgressView]) -> tuple[str, list[str]]:
    """A title, and what to call each: its stage, where they are stages of one pipeline."""
    pipelines = {view.dag_id.partition(".")[0] for view in views}
    if len(pipelines) > 1:
        return "stages", [view.dag_id for view in views]
    return pipelines.pop(), [view.dag_id.partition(".")[2] or view.dag_id for view in views]


def _trained(view: ProgressView) -> str:
    return f"{view.trained or 0}/{view.total}" if view.total else f"{view.trained or 0}"


def _now(view: ProgressView, now: datetime) -> RenderableType:
    from rich.text import Text

    for task in view.tasks:
        if task.state in _AT_WORK:
            return task_text(task, now)
    waiting = waiting_line(view.tasks)
    if waiting:
        return Text(waiting, no_wrap=True, overflow="ellipsis")
    said = "not begun yet" if view.last_run is None else view.last_run.note or outcome(view.last_run)
    return Text(said, style="red" if is_bad(view.last_run) else "dim", no_wrap=True, overflow="ellipsis")


def summary_of_stages(views: list[ProgressView], *, seconds: float, mirrored: str | None) -> None:
    """What is said at the end."""
    title, names = _names(views)
    titles = [title, "COMMITTED", "PARTITIONS", "ROWS", "WATERMARK", "PREQUENTIAL"]
    print_table(titles, [_summed_up(name, view) for name, view in zip(names, views, strict=True)])
    for name, view in zip(names, views, strict=True):
        line = f"{name}: {outcome(view.last_run) if view.last_run else 'nothing was due'}"
        typer.secho(line, fg=typer.colors.RED if is_bad(view.last_run) else None)
        if view.failed_beside:
            typer.secho(f"{name}: failed: {failed_beside(view)}", fg=typer.colors.RED)
    typer.echo(f"{counted(sum(view.runs for view in views), 'checkpoint')} committed in {duration(seconds)}")
    if mirrored:
        typer.echo(f"MLflow: {mirrored}")


def _summed_up(name: str, view: ProgressView) -> list[str]:
    scores = "  ".join(f"{metric} {value:.4f}" for metric, value in shown_metrics(view.metrics)[:1])
    return [name, str(view.runs), _trained(view), f"{view.rows:,}", day(view.watermark), scores]
