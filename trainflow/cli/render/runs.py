"""Runs, their tasks and the logs of these, as people read them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from trainflow.cli.render.output import print_facts, print_rows, text
from trainflow.humanize import duration
from trainflow.observability.standard_streams import drive

if TYPE_CHECKING:
    from trainflow.insight.runs.logs import LogSource
    from trainflow.insight.runs.runs import RunDetail, RunSummary
    from trainflow.insight.runs.tasks import AttemptSummary, TaskDetail, TaskSummary
    from trainflow.observability.terminal_text import TerminalLog


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
    "hostname": "HOST",
    "problem": "PROBLEM",
}


def task_row(task: TaskSummary) -> dict[str, Any]:
    """A row of a listing."""
    import msgspec

    return msgspec.structs.asdict(task) | {
        "state": task.state or "-",
        "try": f"{task.try_number}/{task.max_tries + 1}",
        "duration": duration(task.seconds),
        "remark": _remark(task),
    }


def _remark(task: TaskSummary) -> str:
    progress = task.progress
    if task.state == "running" and progress:
        total = f" of {progress['total']:,.0f}" if progress.get("total") else ""
        done = (
            f"{progress['done']:,.0f}{total} {progress.get('unit', '')}".rstrip() if progress["done"] or total else ""
        )
        return "  ".join(filter(None, (done, progress.get("note"))))
    problem = task.problem if task.state in ("failed", "up_for_retry") else None
    return task.waiting or problem or task.note or ""


def print_task(task: TaskDetail) -> None:
    """One task."""
    import msgspec

    rule = "" if task.trigger_rule == "all_success" else f" ({task.trigger_rule})"
    lines = {
        "task": f"{task.task_id} ({task.operator}) of run {task.run_id} of {task.dag_id}",
        "state": task.state or "not looked at yet",
        "waiting": task.waiting or "",
        "try": f"{task.try_number} of {task.max_tries + 1}",
        "started": text(task.started_at),
        "took": duration(task.seconds),
        "after": ", ".join(task.upstream) + rule,
        "pool": f"{task.pool} ({task.pool_slots} of its slots)",
        "where": f"{task.hostname}, pid {task.pid}" if task.pid and task.state == "running" else "",
        "progress": _remark(task) if task.state == "running" else "",
        "note": task.note or "",
        "problem": task.problem or "",
    }
    print_facts(lines)
    typer.echo("")
    attempts = [
        msgspec.structs.asdict(each) | {"duration": duration(each.seconds), "problem": _problem_of(each)}
        for each in task.attempts
    ]
    print_rows(attempts, _ATTEMPT_COLUMNS, empty="no attempt yet")
    if task.xcoms:
        typer.echo("\nhanded over")
    for key, value in task.xcoms.items():
        typer.echo(f"  {key}: {_clip(value)}")


def _problem_of(attempt: AttemptSummary) -> str:
    if attempt.refused_at is None:
        return attempt.problem or ""
    returned = f"it was heard again at {text(attempt.refused_at)}, and told to stop"
    return f"{attempt.problem}; {returned}" if attempt.problem else returned


def _clip(value: Any) -> str:
    import msgspec

    shown = msgspec.json.encode(value).decode()
    return shown if len(shown) <= 400 else f"{shown[:400]}… ({len(shown):,} characters; --json shows all)"


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
    from trainflow.observability.store_requests import sentence_of

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
        "store": sentence_of(run.store) if run.store else "",
        "note": run.note or "",
    }
    print_facts(lines)
    typer.echo("")
    print_rows([task_row(each) for each in run.tasks], TASK_COLUMNS, empty="its tasks are made when it starts")


_FOLLOW_SECONDS = 0.25


class LogPrinter:
    """Prints a log: to a terminal its text and its colours, elsewhere as it is."""

    def __init__(self) -> None:
        self._terminal: TerminalLog | None = None
        if sys.stdout.isatty():
            from trainflow.observability.terminal_text import TerminalLog

            self._terminal = TerminalLog(colors=not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")

    def print_rotated(self, source: LogSource) -> bool:
        """Print the parts of a log that were rotated away, oldest first; returns whether there were any."""
        older = source.rotated()
        for each in older:
            self.print_from(each, 0)
        return bool(older)

    def print_from(self, source: LogSource, position: int) -> int:
        """Print what was written after `position` (bytes); returns where it ends now."""
        sys.stdout.flush()
        while (part := source.read(position)).data:
            self._print(part.data)
            position = part.position
        sys.stdout.buffer.flush()
        return position

    def _print(self, data: bytes) -> None:
        if self._terminal is None:
            sys.stdout.buffer.write(data)
        else:
            drive(self._terminal.feed(data))
            sys.stdout.flush()

    def close(self) -> None:
        """Give the terminal back with no colour of the log's."""
        if self._terminal is not None:
            drive(self._terminal.feed(b"", final=True))
            sys.stdout.flush()


def pause() -> None:
    """Wait until the log is read again."""
    import time

    time.sleep(_FOLLOW_SECONDS)
