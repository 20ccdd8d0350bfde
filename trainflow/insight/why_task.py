"""Why one task does not run, and holds up its run: sentences. Pure rules over what the database says.

`trainflow.insight.why` judges a whole DAG.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from trainflow.humanize import counted
from trainflow.insight.snapshot import RunSnapshot, TaskSnapshot
from trainflow.samples.partitions import label
from trainflow.serialization.document import TaskDocument
from trainflow.settings.executors import LOCAL
from trainflow.states import FINISHED, RUN_FINISHED, DagRunState, TaskInstanceState

_T = TaskInstanceState
_BAD = frozenset({_T.FAILED, _T.UPSTREAM_FAILED})
_PROBLEM_CHARACTERS = 500
#: a worker that listens begins with a task sooner, while it has a slot
_BEGUN_SECONDS = 5


class AnswerKind(StrEnum):
    """The answer in one word, for programs."""

    TRAINING = "training"
    WORKING = "working"
    NO_ENGINE = "no_engine"
    NO_TRIGGERER = "no_triggerer"
    PAUSED = "paused"
    DRAINED = "drained"
    BROKEN_FILE = "broken_file"
    MISSING_FILE = "missing_file"
    WAITING = "waiting"
    RETRYING = "retrying"
    NO_SLOT = "no_slot"
    STARTING = "starting"
    QUEUED = "queued"
    GATE = "gate"
    SAMPLES_CHANGED = "samples_changed"
    FAILED = "failed"
    CAUGHT_UP = "caught_up"
    NEVER_STARTED = "never_started"
    ENDED = "ended"


#: the answer in one word, and in a sentence
Answer = tuple[AnswerKind, str]


def held_up_by(run: RunSnapshot, now: datetime) -> Answer | None:
    """Name the task that holds up a run that has none at work; None: none does."""
    judged = (judge(run, task, now) for judge in _JUDGES for task in run.tasks)
    return next(filter(None, judged), None)


def _deferred(run: RunSnapshot, task: TaskSnapshot, now: datetime) -> Answer | None:
    if task.state != _T.DEFERRED:
        return None
    since = f", since {to_second(task.started_at)} ({span(now, task.started_at)})" if task.started_at else ""
    note = (task.note or f"task '{task.task_id}' waits for its trigger") + since
    if note.startswith("caught up"):
        return AnswerKind.CAUGHT_UP, f"run {run.number}: {note}"
    return AnswerKind.WAITING, f"run {run.number}{' ' if note.startswith('waits') else ': '}{note}"


def _retrying(run: RunSnapshot, task: TaskSnapshot, now: datetime) -> Answer | None:
    if task.state != _T.UP_FOR_RETRY:
        return None
    tries = f"try {task.failures + 1} of {task.max_tries + 1}"
    return (
        AnswerKind.RETRYING,
        f"run {run.number}: task '{task.task_id}' is tried again {until(task.retry_at, now)} ({tries}) after: "
        f"{short(task.problem)}",
    )


def _rescheduled(run: RunSnapshot, task: TaskSnapshot, now: datetime) -> Answer | None:
    if task.state != _T.UP_FOR_RESCHEDULE:
        return None
    note = task.note or f"task '{task.task_id}' waits"
    between = " " if note.startswith("waits") else ": "
    return AnswerKind.WAITING, f"run {run.number}{between}{note}; it looks again {until(task.retry_at, now)}"


def _no_slot(run: RunSnapshot, task: TaskSnapshot, _now: datetime) -> Answer | None:
    if task.state not in (_T.SCHEDULED, _T.QUEUED) or task.refused is None:
        return None
    return AnswerKind.NO_SLOT, f"run {run.number}: task '{task.task_id}' has to wait: {task.refused}"


def _handed_over(run: RunSnapshot, task: TaskSnapshot, now: datetime) -> Answer | None:
    if task.state not in (_T.SCHEDULED, _T.QUEUED):
        return None
    if (said := not_begun(task, now)) is not None:
        return AnswerKind.STARTING, f"run {run.number}: {said}"
    return AnswerKind.STARTING, f"run {run.number}: task '{task.task_id}' is about to start"


def not_begun(task: TaskSnapshot, now: datetime) -> str | None:
    """What is said of a task that no worker of an executor has begun; None: it is none, or of the engine's own host."""
    if task.state != _T.QUEUED or task.executor in (None, LOCAL):
        return None
    if task.refused is not None:
        return f"task '{task.task_id}' has to wait: {task.refused}"
    said = handed_to(str(task.executor), task.queued_at, task.listened_queue, task.note, now)
    return f"task '{task.task_id}' {said}"


def handed_to(executor: str, queued_at: datetime | None, queue: str | None, note: str | None, now: datetime) -> str:
    """What is said of a task that was handed to an executor. `queue`: where workers of it listen; None: they do not.
    `note`: what the executor says of it."""
    handed = f"was handed to executor '{executor}' at {_time(queued_at)}, no worker has begun it"
    if queued_at is None:
        return handed
    handed += f" for {span(now, queued_at)}"
    if note:
        return f"{handed}: {note}"
    waits = queue is not None and (now - queued_at).total_seconds() >= _BEGUN_SECONDS
    return f"{handed}; is a worker listening on queue '{queue}'?" if waits else handed


_JUDGES = (_deferred, _retrying, _rescheduled, _no_slot, _handed_over)


# -- one task of one run -----------------------------------------------------------------------------------------------


class TaskWaitFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is around the task instance."""

    dag_id: str
    engine_alive: bool
    #: a triggerer watches what deferred tasks wait for
    triggerer_alive: bool = True
    paused: bool
    max_active_runs: int
    #: running runs of the DAG
    running: int
    run_state: str
    run_after: datetime
    #: task id → state, in this run
    states: Mapping[str, TaskInstanceState | None]
    #: why the scheduler would not queue it now
    refused: str | None = None
    #: the queue that its executor's workers listen on; None: they listen on none
    listened_queue: str | None = None
    #: the wait of a deferred task: its trigger's class and deadline
    trigger_class: str | None = None
    deadline: datetime | None = None


def explain_wait(task: TaskDocument, row: Any, around: TaskWaitFacts, now: datetime) -> str | None:
    """The sentence; None for a task that runs or has ended with nothing to explain. `row`: of `task_instance`."""
    match row.state:
        case None:
            return _not_looked_at(task, around, now)
        case _T.SCHEDULED:
            return around.refused or _nobody_schedules(around) or "is about to be handed to the executor"
        case _T.QUEUED:
            handed = handed_to(row.executor, row.queued_at, around.listened_queue, row.note, now)
            return _no_engine(around) or around.refused or handed
        case _T.UP_FOR_RETRY:
            tries = f"try {row.failures + 1} of {row.max_tries + 1}"
            return f"is tried again {_at(row.retry_at, now)} ({tries}) after: {row.problem or 'it did not say why'}"
        case _T.UP_FOR_RESCHEDULE:
            return f"looks again {_at(row.retry_at, now)}" + (f": {row.note}" if row.note else "")
        case _T.DEFERRED:
            return _deferred_row(row, around)
        case _T.UPSTREAM_FAILED:
            failed = [name for name in task.upstream if around.states.get(name) in _BAD]
            return f"will not run: {_listed(failed, around)}" if failed else "will not run: something before it failed"
    return None


def _not_looked_at(task: TaskDocument, around: TaskWaitFacts, now: datetime) -> str | None:
    if around.run_state in RUN_FINISHED:
        return None
    if around.run_state == DagRunState.QUEUED:
        return _run_is_queued(around, now)
    pending = [name for name in task.upstream if around.states.get(name) not in FINISHED]
    if pending:
        rule = "" if task.trigger_rule == "all_success" else f" (trigger rule {task.trigger_rule})"
        return f"waits for {_listed(pending, around)}{rule}"
    if task.depends_on_past:
        return "waits for the same task of the run before (depends_on_past)"
    return _nobody_schedules(around) or "is about to be scheduled"


def _run_is_queued(around: TaskWaitFacts, now: datetime) -> str:
    if around.run_after > now:
        return f"its run starts {_at(around.run_after, now)}"
    if around.running >= around.max_active_runs:
        return f"its run is queued: {around.running} of {around.max_active_runs} runs are running (max_active_runs)"
    return _nobody_schedules(around) or "its run is about to start"


def _nobody_schedules(around: TaskWaitFacts) -> str | None:
    if around.paused:
        return f"the DAG is paused: 'trainflow dags unpause {around.dag_id}' lets it go on"
    return _no_engine(around)


def _no_engine(around: TaskWaitFacts) -> str | None:
    if around.engine_alive:
        return None
    return "no engine is alive: 'trainflow start PIPELINE' or 'trainflow standalone' goes on with it"


def _deferred_row(row: Any, around: TaskWaitFacts) -> str:
    trigger = (around.trigger_class or "its trigger").rpartition(".")[2]
    sentence = row.note or f"waits in the triggerer for {trigger}"
    if around.deadline is not None:
        sentence += f", until {_time(around.deadline)} at the longest"
    unwatched = _no_engine(around)
    if unwatched is None and not around.triggerer_alive:
        unwatched = "no triggerer is alive to watch it: start one with 'trainflow triggerer'"
    return f"{sentence}; {unwatched}" if unwatched else sentence


def _listed(names: list[str], around: TaskWaitFacts) -> str:
    return ", ".join(f"{name} ({around.states.get(name) or 'not scheduled yet'})" for name in names)


def _at(moment: datetime | None, now: datetime) -> str:
    return "at once" if moment is None or moment <= now else f"at {_time(moment)}"


def _time(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def short(text: str | None) -> str:
    """One line, and no sentence's end: another clause may follow."""
    line = " ".join((text or "it did not say why").split()).rstrip(".")
    return line if len(line) <= _PROBLEM_CHARACTERS else f"{line[:_PROBLEM_CHARACTERS]}…"


def to_second(moment: datetime) -> str:
    """A moment for people, without fractions of a second."""
    return label(moment.replace(microsecond=0))


def until(moment: datetime | None, now: datetime) -> str:
    """How long it is to a moment: `in 5 min`, `at once`."""
    if moment is None or moment <= now:
        return "at once"
    return f"in {span(moment, now)}"


def span(later: datetime, earlier: datetime) -> str:
    """The time between two moments: `90 s`, `5 min`, `3 h`, `2 days`."""
    seconds = max(0, round((later - earlier).total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else counted(seconds // 86_400, "day")
