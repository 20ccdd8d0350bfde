"""Show pipelines at work: a live panel, or a line an event where output is no terminal, and a summary at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import typer

from trainflow.cli.live.lines import (
    LineDisplay,
    day,
    failed_beside,
    is_bad,
    outcome,
    run_line,
    shown_metrics,
    waiting_line,
)
from trainflow.cli.render.output import print_facts, print_table, sparkline
from trainflow.humanize import counted, duration, number, percent

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from trainflow.insight.progress import ProgressView, TaskLine


class Display(Protocol):
    """Shows views as they come."""

    def show(self, views: list[ProgressView], now: datetime) -> None:
        """Show the views, one a chain, as they are at `now`."""

    def close(self) -> None:
        """Give the terminal back."""


def display(*, interactive: bool | None = None) -> Display:
    """The display that fits where output goes."""
    if not (_can_redraw() if interactive is None else interactive):
        return LineDisplay()
    return Panel(_console())


def _can_redraw() -> bool:
    # a command in a cell of a notebook has a terminal, whose cursor goes up in none of the pages that show it
    in_notebook = "JPY_PARENT_PID" in os.environ
    return sys.stdout.isatty() and not in_notebook and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _console() -> Console:
    """A console that drives the terminal, and lets no text of users do so."""
    from rich.console import Console

    from trainflow.observability.standard_streams import unguarded
    from trainflow.observability.terminal_text import plain_text

    class TextConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=plain_text(segment.text))

    # what people write (a problem, a metric's name) may look like markup, and is none
    return TextConsole(file=unguarded(sys.stdout), highlight=False, markup=False)


class Panel:
    """Redraws a panel in place."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, views: list[ProgressView], now: datetime) -> None:
        """Print what failed above the panel, and draw it anew."""
        for view in views:
            for run in view.new_runs:
                if run.state == "failed" or run.failed_beside:
                    self._live.console.print(run_line(run, view), style="red")
        # the terminal writes ^C behind the last line: where that has no room, a line of the panel would stay
        width = self._live.console.width - 2
        panel = panel_of_chain(views[0], now, width) if len(views) == 1 else panel_of_stages(views, now, width)
        self._live.update(panel, refresh=True)

    def close(self) -> None:
        """Take the panel away."""
        self._live.stop()


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
        shown = [f"{name} {number(value)}" for name, value in shown_metrics(view.metrics)]
        facts.add_row("prequential", "  ".join([*shown[:1], *filter(None, [sparkline(view.metric_trend)]), *shown[1:]]))
    if lag := sparkline(view.lag_trend):
        facts.add_row("age", f"{duration(view.lag_trend[-1])} at the commit {lag}")
    if view.eta_seconds is not None and not view.finished:
        facts.add_row("ETA", duration(view.eta_seconds))
    lines = [task_text(task, now) for task in view.tasks]
    title = Text(view.dag_id, style="bold")
    title.append(f" · run {view.current_number}" if view.current_number else "", style="not bold")
    return Box(Group(facts, Text(""), *lines), title=title, title_align="left", width=width)


def task_text(task: TaskLine, now: datetime) -> RenderableType:
    """A task in one line: its state, for how long it has been at work, how far it is or what it says."""
    from rich.text import Text

    mark, style = _MARKS.get(task.state or "", (" ", "dim"))
    line = Text(f"{mark} {task.task_id:<12}", style=style, no_wrap=True, overflow="ellipsis")
    if task.attempts:
        seconds = sum(((end or now) - start).total_seconds() for start, end in task.attempts)
        line.append(f" {duration(seconds):>7}", style="dim")
    if task.state == "running" and task.progress:
        done, total = task.progress["done"], task.progress.get("total")
        share = f" {percent(done, total):>4}" if total else ""
        line.append(f" {share} {done:,.0f} {task.progress.get('unit', '')}" if done or total else "")
        if task.progress.get("note"):
            line.append(f"  {_one_line(task.progress['note'])}", style="dim")
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
    print_facts(facts, color="red" if is_bad(view.last_run) else None)


_STAGES_WIDTH = 100
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
    width = min(width, _STAGES_WIDTH)
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
