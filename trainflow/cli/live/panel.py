"""Show a pipeline at work: a live panel in a terminal, one line an event where output is no terminal."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from trainflow.cli.render.output import duration, print_facts
from trainflow.pluralize import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from trainflow.insight.progress import RunLine, TaskLine, View

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


class Display(Protocol):
    """Shows views as they come."""

    def show(self, views: list[View], now: datetime) -> None: ...

    def close(self) -> None: ...


def display(*, interactive: bool | None = None) -> Display:
    """The display that fits where output goes."""
    if not (_can_redraw() if interactive is None else interactive):
        return Lines()
    from rich.console import Console

    # what people write (a problem, a metric's name) may look like markup, and is none
    return Panel(Console(highlight=False, markup=False))


def _can_redraw() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class Lines:
    """One line for each run that ended and for each new thing that is waited for."""

    def __init__(self) -> None:
        self._said: dict[str, str | None] = {}

    def show(self, views: list[View], now: datetime) -> None:
        for view in views:
            if view.joined and view.dag_id not in self._said:
                _say(state_line(view))
            for run in view.new_runs:
                _say(run_line(run, view))
            waiting = waiting_line(view.tasks)
            if waiting and waiting != self._said.get(view.dag_id):
                _say(f"{view.dag_id}: {waiting}")
            self._said[view.dag_id] = waiting

    def close(self) -> None:
        return None


def _say(line: str) -> None:
    """At once: whoever reads a log wants to know now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def state_line(view: View) -> str:
    """Where a chain is whose run was under way before anybody followed here."""
    parts = [f"{view.dag_id}: {_share(view)}" if view.trained is not None else f"{view.dag_id}:"]
    if view.watermark is not None:
        parts.append(f"trained up to {day(view.watermark)}")
    if view.current_number is not None:
        at = next((task for task in view.tasks if task.state in ("running", "queued", "scheduled")), None)
        parts.append(f"run {view.current_number} {f'is at {at.task_id}' if at else 'waits'}")
    return " · ".join(parts)


def _share(view: View) -> str:
    if view.total:
        return f"{view.trained or 0} of {counted(view.total, 'partition')} trained"
    return f"{counted(view.trained or 0, 'partition')} trained"


def run_line(run: RunLine, view: View) -> str:
    """One ended run in one line."""
    if run.stopped is not None:
        return f"{run.dag_id} #{run.number}: stopped: {run.stopped}"
    if run.state == "failed":
        return f"{run.dag_id} #{run.number}: failed: {run.failed_task or 'run'}: {run.problem or run.note or ''}"
    if run.checkpoint is None:
        return "; ".join(filter(None, (f"{run.dag_id} #{run.number}: {run.note or run.state}", run.late, _beside(run))))
    parts = [
        f"{run.dag_id} #{run.number}: checkpoint {run.checkpoint['sequence']}",
        f"{day(run.start)} … {day(run.end)}",
        _amount(run),
        " ".join(f"{name} {value:.4g}" for name, value in shown_metrics(run.metrics)[:3]),
        duration(run.seconds),
    ]
    if view.total and run.dag_id == view.dag_id:
        parts.append(f"{_reached(run, view)}/{view.total}")
    parts += [run.again or "", run.late or "", _beside(run)]
    return " · ".join(part for part in parts if part)


def _beside(run: RunLine) -> str:
    """What failed in a run that ended well."""
    return f"failed: {', '.join(run.failed_beside)}" if run.failed_beside else ""


def _reached(run: RunLine, view: View) -> int:
    """How many partitions the chain was trained on after this run, where later ones are shown with it."""
    later = view.new_runs[view.new_runs.index(run) + 1 :]
    beyond = sum(each.partitions + each.holes for each in later if each.checkpoint and each.dag_id == run.dag_id)
    return max(0, (view.trained or 0) - beyond)


def _amount(run: RunLine) -> str:
    amounts = [(run.partitions, "partition"), (run.holes, "hole"), (run.rows, "row")]
    return ", ".join(counted(number, noun) for number, noun in amounts if number or noun != "hole")


def shown_metrics(metrics: dict[str, float]) -> list[tuple[str, float]]:
    """What says how good a model is; how much was scored is shown elsewhere."""
    return [(name, value) for name, value in metrics.items() if name != "rows"]


def waiting_line(tasks: list[TaskLine]) -> str | None:
    """What the run waits for, in one line; None while something works."""
    for task in tasks:
        if task.state == "deferred":
            return task.note or f"{task.task_id} waits"
        if task.state == "up_for_retry":
            when = f"{task.retry_at.astimezone(UTC):%H:%M:%S} UTC" if task.retry_at else "soon"
            return f"{task.task_id} is tried again at {when}: {task.problem}"
    return None


def day(moment: datetime | None) -> str:
    """A partition's start as people write it."""
    if moment is None:
        return ""
    moment = moment.astimezone(UTC)
    whole_day = (moment.hour, moment.minute) == (0, 0)
    return f"{moment:%Y-%m-%d}" if whole_day else f"{moment:%Y-%m-%d %H:%M}"


class Panel:
    """Redraws a panel in place."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, views: list[View], now: datetime) -> None:
        from trainflow.cli.live.stages_panel import panel_of_stages

        for view in views:
            for run in view.new_runs:
                if run.state == "failed" or run.failed_beside:
                    self._live.console.print(run_line(run, view), style="red")
        # the terminal writes ^C behind the last line: where that has no room, a line of the panel would stay
        width = self._live.console.width - 2
        panel = _panel(views[0], now, width) if len(views) == 1 else panel_of_stages(views, now, width)
        self._live.update(panel, refresh=True)

    def close(self) -> None:
        self._live.stop()


def _panel(view: View, now: datetime, width: int) -> RenderableType:
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


def summary(view: View, *, seconds: float, mirrored: str | None) -> None:
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


def failed_beside(view: View) -> str:
    """Which tasks failed in runs that ended well, and how to read why."""
    tasks = ", ".join(f"{task} in {counted(runs, 'run')}" for task, runs in sorted(view.failed_beside.items()))
    return f"{tasks}, though the runs ended well (trainflow tasks logs {view.dag_id} latest TASK)"


def is_bad(last: RunLine | None) -> bool:
    """Whether somebody has to look after it."""
    return last is not None and (last.stopped is not None or last.state == "failed")


def outcome(last: RunLine | None) -> str:
    """How it ended, in words."""
    if last is None:
        return "nothing ran"
    if last.stopped is not None:
        return f"stopped: {last.stopped}"
    if last.state == "failed":
        where = f" (log: {last.log_path})" if last.log_path else ""
        return f"failed in {last.failed_task or 'the run'}: {last.problem or last.note or ''}{where}"
    return last.note or "done"
