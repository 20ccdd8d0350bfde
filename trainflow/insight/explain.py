"""Why nothing is training right now, or what is: one sentence. A pure rule over a situation.

The first of `RULES` that has an answer gives it, so their order is the order of importance.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

import msgspec

from trainflow.insight.chains.chain_status import ChainStatus
from trainflow.insight.snapshot import DagSnapshot, RunSnapshot, TaskSnapshot
from trainflow.pluralize import agreeing, counted
from trainflow.samples.partitions import label
from trainflow.states import TaskInstanceState

_T = TaskInstanceState
_PROBLEM_CHARACTERS = 500


class AnswerKind(StrEnum):
    """The answer in one word, for programs."""

    TRAINING = "training"
    WORKING = "working"
    NO_ENGINE = "no_engine"
    NO_TRIGGERER = "no_triggerer"
    PAUSED = "paused"
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


class Answer(msgspec.Struct, frozen=True):
    """`sentence` is for people."""

    kind: AnswerKind
    sentence: str


def explain(snapshot: DagSnapshot, status: ChainStatus | None, now: datetime) -> Answer:
    """The sentence. `standing` is what ledger and samples say, where they were asked."""
    for rule in RULES:
        answer = rule(snapshot, status, now)
        if answer is not None:
            return _and_samples(_and_behind(answer, snapshot), snapshot, status)
    return _and_samples(_never_started(snapshot, status), snapshot, status)


def _and_behind(answer: Answer, snapshot: DagSnapshot) -> Answer:
    """Who waits for the run the sentence is about."""
    active = sum(not run.released for run in snapshot.running)
    if snapshot.queued is None or active < snapshot.max_active_runs:
        return answer
    behind = f"; run {snapshot.queued.number} is queued behind it (max_active_runs {snapshot.max_active_runs})"
    return Answer(answer.kind, answer.sentence + behind)


def _and_samples(answer: Answer, snapshot: DagSnapshot, status: ChainStatus | None) -> Answer:
    """What else is to be known of the chain's samples, whatever goes on."""
    if status is None:
        return answer
    clauses = []
    if status.never_catches_up:
        clauses.append(f"at this rate it never catches up: it is {_days(status.lag_seconds)} behind")
    if status.republished:
        first, more = label(status.republished[0]), len(status.republished) - 1
        which = f"partition {first}{f' and {more} more' if more else ''}"
        clauses.append(f"{which} {'were' if more else 'was'} published again after being trained on")
    if status.holes_arrived:
        count = status.holes_arrived
        have = f"{counted(count, 'partition')} of its holes {agreeing(count, 'has', 'have')}"
        clauses.append(f"{have} arrived: '{_of_chain('repair', snapshot)}' trains what arrived")
    return Answer(answer.kind, "; ".join([answer.sentence, *clauses]))


def _start(snapshot: DagSnapshot) -> str:
    """The command that goes on with this DAG: without its branch, another chain would be trained."""
    return f"trainflow start {snapshot.path}{_branch(snapshot)}"


def _of_chain(command: str, snapshot: DagSnapshot) -> str:
    """A command that is about this one chain of the file."""
    stage = _option("stage", snapshot.chain.stage) if snapshot.chain is not None else ""
    return f"trainflow {command} {snapshot.path}{stage}{_branch(snapshot)}"


def _branch(snapshot: DagSnapshot) -> str:
    return _option("branch", snapshot.chain.branch) if snapshot.chain is not None else ""


def _option(option: str, name: str) -> str:
    """What names a stage or branch; "" for the default, and for a template, which only a run renders."""
    return "" if name == "main" or "{" in name else f" --{option} {name}"


Rule = Callable[[DagSnapshot, ChainStatus | None, datetime], Answer | None]


def _working(snapshot: DagSnapshot, _status: ChainStatus | None, now: datetime) -> Answer | None:
    if not snapshot.engine.alive:
        return None
    for run in snapshot.running:
        for task in run.tasks:
            if task.state != _T.RUNNING:
                continue
            since = f" for {_span(now, task.started_at)}" if task.started_at else ""
            how_far = _progress(task)
            if task.role == "train":
                return Answer(AnswerKind.TRAINING, f"run {run.number} is training{since}{how_far}")
            return Answer(AnswerKind.WORKING, f"run {run.number} is at task '{task.task_id}'{since}{how_far}")
    return None


def _no_engine(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    """Sentence on an engine that is missing, where a run has not ended: elsewhere, how the last one ended says more."""
    run = snapshot.running[0] if snapshot.running else snapshot.queued
    if snapshot.engine.alive or run is None:
        return None
    return Answer(
        AnswerKind.NO_ENGINE,
        f"no engine is alive: run {run.number} has not ended, '{_start(snapshot)}' goes on with it",
    )


def _broken_file(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    if snapshot.import_problem is None or snapshot.running:
        return None
    return Answer(
        AnswerKind.BROKEN_FILE,
        f"the pipeline file cannot be read, so nothing is started: {_short(snapshot.import_problem)}",
    )


def _missing_file(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    if snapshot.missing_since is None or snapshot.running:
        return None
    return Answer(
        AnswerKind.MISSING_FILE,
        f"{snapshot.path} does not define it any more (since {_moment(snapshot.missing_since)}): "
        "put it back and it goes on; its chain is as it was",
    )


def _paused(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    if not snapshot.paused:
        return None
    return Answer(AnswerKind.PAUSED, f"it is paused: 'trainflow dags unpause {snapshot.dag_id}' lets it go on")


def _no_triggerer(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    """A wait that no triggerer watches never ends, and does not run out either."""
    if snapshot.engine.triggers:
        return None
    for run in snapshot.running:
        for task in run.tasks:
            if task.state == _T.DEFERRED:
                return Answer(
                    AnswerKind.NO_TRIGGERER,
                    f"run {run.number}: task '{task.task_id}' waits for its trigger, and no triggerer is alive to "
                    "watch it: start one with 'trainflow triggerer'",
                )
    return None


def _under_way(snapshot: DagSnapshot, _status: ChainStatus | None, now: datetime) -> Answer | None:
    """A run that runs and has no task at work: the task that holds it up."""
    for run in snapshot.running:
        for judge in (_deferred, _retrying, _rescheduled, _no_slot, _handed_over):
            for task in run.tasks:
                answer = judge(run, task, now)
                if answer is not None:
                    return answer
    for run in snapshot.running:
        for task in run.tasks:
            if task.waits_for_run is not None:
                return _waits_for_past(snapshot, run, task)
    if snapshot.running:
        run = snapshot.running[0]
        return Answer(
            AnswerKind.STARTING, f"run {run.number} is between two tasks: the next one is about to be scheduled"
        )
    return None


def _waits_for_past(snapshot: DagSnapshot, run: RunSnapshot, task: TaskSnapshot) -> Answer:
    """depends_on_past: the same task of the run before it has not ended well."""
    before = task.waits_for_run
    what = f"run {run.number}: task '{task.task_id}' waits for run {before} (depends_on_past), in which it"
    if task.past_state in ("failed", "upstream_failed"):
        way_out = f"'trainflow runs clear {snapshot.dag_id} {before}' lets that run again"
        return Answer(AnswerKind.WAITING, f"{what} failed: {way_out}")
    where = "has not run yet" if task.past_state is None else f"is {task.past_state.replace('_', ' ')}"
    return Answer(AnswerKind.WAITING, f"{what} {where}")


def _deferred(run: RunSnapshot, task: TaskSnapshot, now: datetime) -> Answer | None:
    if task.state != _T.DEFERRED:
        return None
    since = f", since {_moment(task.started_at)} ({_span(now, task.started_at)})" if task.started_at else ""
    note = (task.note or f"task '{task.task_id}' waits for its trigger") + since
    if note.startswith("caught up"):
        return Answer(AnswerKind.CAUGHT_UP, f"run {run.number}: {note}")
    return Answer(AnswerKind.WAITING, f"run {run.number}{' ' if note.startswith('waits') else ': '}{note}")


def _retrying(run: RunSnapshot, task: TaskSnapshot, now: datetime) -> Answer | None:
    if task.state != _T.UP_FOR_RETRY:
        return None
    tries = f"try {task.failures + 1} of {task.max_tries + 1}"
    return Answer(
        AnswerKind.RETRYING,
        f"run {run.number}: task '{task.task_id}' is tried again {_in(task.retry_at, now)} ({tries}) after: "
        f"{_short(task.problem)}",
    )


def _rescheduled(run: RunSnapshot, task: TaskSnapshot, now: datetime) -> Answer | None:
    if task.state != _T.UP_FOR_RESCHEDULE:
        return None
    note = task.note or f"task '{task.task_id}' waits"
    between = " " if note.startswith("waits") else ": "
    return Answer(AnswerKind.WAITING, f"run {run.number}{between}{note}; it looks again {_in(task.retry_at, now)}")


def _no_slot(run: RunSnapshot, task: TaskSnapshot, _now: datetime) -> Answer | None:
    if task.state != _T.SCHEDULED or task.refused is None:
        return None
    return Answer(AnswerKind.NO_SLOT, f"run {run.number}: task '{task.task_id}' has to wait: {task.refused}")


def _handed_over(run: RunSnapshot, task: TaskSnapshot, _now: datetime) -> Answer | None:
    if task.state not in (_T.SCHEDULED, _T.QUEUED):
        return None
    return Answer(AnswerKind.STARTING, f"run {run.number}: task '{task.task_id}' is about to start")


def _queued(snapshot: DagSnapshot, _status: ChainStatus | None, now: datetime) -> Answer | None:
    run = snapshot.queued
    if run is None:
        return None
    if run.run_after > now:
        return Answer(
            AnswerKind.QUEUED, f"run {run.number} starts {_in(run.run_after, now)}, at {_moment(run.run_after)}"
        )
    return Answer(AnswerKind.STARTING, f"run {run.number} is about to start")


def _stopped(snapshot: DagSnapshot, status: ChainStatus | None, _now: datetime) -> Answer | None:
    if status is None or not status.stopped:
        return None
    if status.misnamed:
        return Answer(
            AnswerKind.GATE,
            f"what was trained is not committed yet: {_short('; '.join(status.stopped))}; mend the name, then "
            f"'{_of_chain('resume', snapshot)} --accept' commits it, and nothing is trained again",
        )
    return Answer(
        AnswerKind.GATE,
        f"a gate stopped the chain: {_short('; '.join(status.stopped))}; '{_of_chain('resume', snapshot)}' trains "
        "the split again, --accept commits it all the same, --skip leaves it out, --rewind N goes back N checkpoints",
    )


def _samples_changed(_situation: DagSnapshot, status: ChainStatus | None, _now: datetime) -> Answer | None:
    if status is None or status.samples_changed is None:
        return None
    return Answer(AnswerKind.SAMPLES_CHANGED, f"nothing is trained: {status.samples_changed}")


def _failed(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    last = snapshot.last
    if last is None or last.state != "failed":
        return None
    task = next((task for task in last.tasks if task.state == _T.FAILED), None)
    again = f"'{_start(snapshot)}' goes on at the head"
    if task is None:
        return Answer(AnswerKind.FAILED, f"run {last.number} failed: {_short(last.note)}; {again}")
    return Answer(
        AnswerKind.FAILED,
        f"run {last.number} failed: task '{task.task_id}': {_short(task.problem)}{_log(task)}; when that is put right, "
        f"{again}",
    )


def _ended(snapshot: DagSnapshot, status: ChainStatus | None, _now: datetime) -> Answer | None:
    last = snapshot.last
    if last is None:
        return None
    start = f"'{_start(snapshot)}'"
    samples = next((task for task in last.tasks if task.role == "samples"), None)
    note = (samples.note if samples is not None and samples.state == _T.SKIPPED else None) or last.note or ""
    if status is not None and status.waits:
        at = f" at {label(status.watermark)}" if status.watermark else ""
        return Answer(AnswerKind.CAUGHT_UP, f"caught up{at}: {status.waits}")
    if status is not None and status.lag:
        more = "at least " if status.lag_is_more else ""
        there = f"{counted(status.lag, 'partition')} {agreeing(status.lag, 'is', 'are')}"
        return Answer(AnswerKind.ENDED, f"no run is under way, and {more}{there} ready after the head: {start} trains")
    if status is not None and status.problem:
        problem = _short(status.problem)
        return Answer(AnswerKind.ENDED, f"no run is under way, and chain or samples cannot be read: {problem}")
    if note.startswith("caught up"):
        return Answer(AnswerKind.CAUGHT_UP, note)
    if status is not None and status.watermark is not None and status.lag == 0:
        return Answer(
            AnswerKind.CAUGHT_UP,
            f"caught up at {label(status.watermark)}: nothing after it is ready, and no run is under way",
        )
    return Answer(
        AnswerKind.ENDED, f"run {last.number} ended as {last.state} and no other was triggered: {start} begins one"
    )


def _never_started(snapshot: DagSnapshot, status: ChainStatus | None) -> Answer:
    start = f"'{_start(snapshot)}'"
    where = ""
    if status is not None and status.waits:
        return Answer(AnswerKind.NEVER_STARTED, f"no run of it is in this home: it {status.waits}")
    if status is not None and status.watermark is not None:
        at = f"stands at checkpoint {status.head_sequence}" if status.head_sequence else "has trained nothing yet"
        where = f", its chain {at} ({label(status.watermark)})"
    here = "no run of it is in this home" if where else "it was never started"
    alive = "" if snapshot.engine.alive else " and no engine is alive"
    return Answer(AnswerKind.NEVER_STARTED, f"{here}{where}{alive}: {start} begins")


RULES: tuple[Rule, ...] = (
    _working,
    _no_engine,
    _broken_file,
    _missing_file,
    _paused,
    _no_triggerer,
    _under_way,
    _queued,
    _stopped,
    _samples_changed,
    _failed,
    _ended,
)


def _log(task: TaskSnapshot) -> str:
    return f" (log: {task.log_path})" if task.log_path else ""


def _progress(task: TaskSnapshot) -> str:
    if not task.progress:
        return f": {task.note}" if task.note else ""
    done, total, unit = task.progress.get("done"), task.progress.get("total"), task.progress.get("unit") or ""
    if done is None:
        return ""
    if not total:
        return f": {done:,.0f} {unit}".rstrip()
    return f": {done / total:.0%} ({done:,.0f} of {total:,.0f} {unit})".replace(" )", ")")


def _short(text: str | None) -> str:
    """One line, and no sentence's end: another clause may follow."""
    line = " ".join((text or "it did not say why").split()).rstrip(".")
    return line if len(line) <= _PROBLEM_CHARACTERS else f"{line[:_PROBLEM_CHARACTERS]}…"


def _moment(moment: datetime) -> str:
    return label(moment.replace(microsecond=0))


def _in(moment: datetime | None, now: datetime) -> str:
    if moment is None or moment <= now:
        return "at once"
    return f"in {_span(moment, now)}"


def _days(seconds: float | None) -> str:
    hours = round((seconds or 0.0) / 3600)
    return f"{hours} h" if hours < 48 else counted(hours // 24, "day")


def _span(later: datetime, earlier: datetime) -> str:
    seconds = max(0, round((later - earlier).total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else counted(seconds // 86_400, "day")
