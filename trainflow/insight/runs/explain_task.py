"""Why one task instance does not run: one sentence. A pure rule over what the database says.

`why` judges a whole DAG; this is the same question about one task of one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from trainflow.serialization.document import TaskDocument
from trainflow.states import FINISHED, RUN_FINISHED, DagRunState, TaskInstanceState

_T = TaskInstanceState
_BAD = frozenset({_T.FAILED, _T.UPSTREAM_FAILED})


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
            return _no_engine(around) or f"was handed to the executor at {_time(row.queued_at)}, no worker has begun it"
        case _T.UP_FOR_RETRY:
            tries = f"try {row.failures + 1} of {row.max_tries + 1}"
            return f"is tried again {_at(row.retry_at, now)} ({tries}) after: {row.problem or 'it did not say why'}"
        case _T.UP_FOR_RESCHEDULE:
            return f"looks again {_at(row.retry_at, now)}" + (f": {row.note}" if row.note else "")
        case _T.DEFERRED:
            return _deferred(row, around)
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
    return "no engine is alive: 'trainflow start' or 'trainflow standalone' goes on with it"


def _deferred(row: Any, around: TaskWaitFacts) -> str:
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
