"""What is said of a pipeline at work, in lines of plain text: of each run that ended, and of what is waited for."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trainflow.humanize import counted, duration, number

if TYPE_CHECKING:
    from trainflow.insight.ended_runs import RunLine
    from trainflow.insight.progress import ProgressView, TaskLine


class LineDisplay:
    """One line for each run that ended and for each new thing that is waited for."""

    def __init__(self) -> None:
        self._said: dict[str, str | None] = {}

    def show(self, views: list[ProgressView], now: datetime) -> None:
        """Print what is new in the views."""
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
        """End the display; nothing is left to do."""
        return


def _say(line: str) -> None:
    """Print a line at once: a person who reads a log wants to know now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def state_line(view: ProgressView) -> str:
    """Where a chain is whose run was under way before it was followed here."""
    parts = [f"{view.dag_id}: {_share(view)}" if view.trained is not None else f"{view.dag_id}:"]
    if view.watermark is not None:
        parts.append(f"trained up to {day(view.watermark)}")
    if view.current_number is not None:
        at = next((task for task in view.tasks if task.state in ("running", "queued", "scheduled")), None)
        parts.append(f"run {view.current_number} {f'is at {at.task_id}' if at else 'waits'}")
    return " · ".join(parts)


def _share(view: ProgressView) -> str:
    if view.total:
        return f"{view.trained or 0} of {counted(view.total, 'partition')} trained"
    return f"{counted(view.trained or 0, 'partition')} trained"


def run_line(run: RunLine, view: ProgressView) -> str:
    """One ended run in one line."""
    if run.stopped is not None:
        return f"{run.dag_id} #{run.number}: stopped: {run.stopped}"
    if run.state == "failed":
        return f"{run.dag_id} #{run.number}: failed: {run.failed_task or 'run'}: {run.problem or run.note or ''}"
    if run.checkpoint is None:
        return "; ".join(filter(None, (f"{run.dag_id} #{run.number}: {run.note or run.state}", run.late, _beside(run))))
    parts = [
        f"{run.dag_id} #{run.number}: checkpoint {run.checkpoint['number']}",
        f"{day(run.start)} … {day(run.end)}",
        _amount(run),
        " ".join(f"{name} {number(value)}" for name, value in shown_metrics(run.metrics)[:3]),
        duration(run.seconds),
    ]
    if view.total and run.dag_id == view.dag_id:
        parts.append(f"{_reached(run, view)}/{view.total}")
    parts += [run.again or "", run.late or "", _beside(run)]
    return " · ".join(part for part in parts if part)


def _beside(run: RunLine) -> str:
    """What failed in a run that ended well."""
    return f"failed: {', '.join(run.failed_beside)}" if run.failed_beside else ""


def _reached(run: RunLine, view: ProgressView) -> int:
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


def failed_beside(view: ProgressView) -> str:
    """Which tasks failed in runs that ended well, and how to read why."""
    tasks = ", ".join(f"{task} in {counted(runs, 'run')}" for task, runs in sorted(view.failed_beside.items()))
    return f"{tasks}, though the runs ended well (trainflow tasks logs {view.dag_id} latest TASK)"


def is_bad(last: RunLine | None) -> bool:
    """Whether a person has to look after it."""
    return last is not None and (last.stopped is not None or last.state == "failed")


def outcome(last: RunLine | None) -> str:
    """How it ended, in words."""
    if last is None:
        return "nothing ran"
    if last.stopped is not None:
        return f"stopped: {last.stopped}"
    if last.state == "failed":
        logs = f"trainflow tasks logs {last.dag_id} {last.run_id} {last.failed_task}"
        where = f" (log: {logs})" if last.failed_task else ""
        return f"failed in {last.failed_task or 'the run'}: {last.problem or last.note or ''}{where}"
    return last.note or "done"
