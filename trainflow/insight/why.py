"""Why nothing is training right now, or what is: one sentence.

A pure rule over a snapshot and what the chain says: the first of `RULES` that has an answer gives it, so their order is
the order of importance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from trainflow.humanize import agreeing, counted, percent
from trainflow.insight.chains.chain_status import ChainStatus, chain_statuses_in
from trainflow.insight.snapshot import DagSnapshot, RunSnapshot, TaskSnapshot
from trainflow.insight.status import overview_of, snapshots_of
from trainflow.insight.why_task import Answer, AnswerKind, held_up_by, short, span, to_second, until
from trainflow.samples.partitions import label
from trainflow.states import TaskInstanceState
from trainflow.workspace.locate import Selection

_T = TaskInstanceState


class Explanation(msgspec.Struct, frozen=True):
    """Why nothing of a DAG is training, or what is."""

    dag_id: str
    path: str
    kind: AnswerKind
    sentence: str


class Explanations(msgspec.Struct, frozen=True):
    """One for each DAG that was asked about."""

    answers: list[Explanation]


def why(
    selection: Selection, now: datetime, *, stage: str | None = None, branch: str | None = None, processes: int = 1
) -> Explanations:
    """Say of each DAG in a sentence why nothing is training, or what is; up to `processes` copies of this process look.
    Raises InputError."""
    found = overview_of(selection, now)
    snapshots = snapshots_of(found, selection, stage, branch)
    statuses = chain_statuses_in(found.workspace, snapshots, now, processes=processes)
    return Explanations([explain(each, status, now) for each, status in zip(snapshots, statuses, strict=True)])


def explain(snapshot: DagSnapshot, status: ChainStatus | None, now: datetime) -> Explanation:
    """Judge a DAG. `status`: what ledger and samples say, where they were asked."""
    answers = (rule(snapshot, status, now) for rule in RULES)
    kind, sentence = next(filter(None, answers), None) or _never_started(snapshot, status)
    silence = [snapshot.engine.problem] if snapshot.engine.problem else []
    clauses = [sentence + _behind(snapshot), *silence, *(_of_samples(snapshot, status) if status is not None else ())]
    return Explanation(snapshot.dag_id, snapshot.path, kind, f"{snapshot.dag_id}: {'; '.join(clauses)}")


def _behind(snapshot: DagSnapshot) -> str:
    """Who waits for the run the sentence is about."""
    active = sum(not run.released for run in snapshot.running)
    if snapshot.queued is None or active < snapshot.max_active_runs:
        return ""
    return f"; run {snapshot.queued.number} is queued behind it (max_active_runs {snapshot.max_active_runs})"


def _of_samples(snapshot: DagSnapshot, status: ChainStatus) -> Iterator[str]:
    """What else is to be known of the chain and its samples, whatever goes on."""
    if status.lost_end is not None:
        yield status.lost_end
    if status.never_catches_up:
        yield f"at this rate it never catches up: it is {_days(status.lag_seconds)} behind"
    if status.republished:
        first, more = label(status.republished[0]), len(status.republished) - 1
        which = f"partition {first}{f' and {more} more' if more else ''}"
        yield f"{which} {'were' if more else 'was'} published again after being trained on"
    if status.holes_arrived:
        count = status.holes_arrived
        have = f"{counted(count, 'partition')} of its holes {agreeing(count, 'has', 'have')}"
        yield f"{have} arrived: '{_of_chain('repair', snapshot)}' trains what arrived"


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
            since = f" for {span(now, task.started_at)}" if task.started_at else ""
            how_far = _progress(task) + _after(snapshot, run, task)
            if task.role == "train":
                return AnswerKind.TRAINING, f"run {run.number} is training{since}{how_far}"
            return AnswerKind.WORKING, f"run {run.number} is at task '{task.task_id}'{since}{how_far}"
    return None


def _no_engine(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    """Sentence on an engine that is missing, where a run has not ended: elsewhere, how the last one ended says more."""
    run = snapshot.running[0] if snapshot.running else snapshot.queued
    if snapshot.engine.alive or run is None:
        return None
    return (
        AnswerKind.NO_ENGINE,
        f"no engine is alive: run {run.number} has not ended, '{_start(snapshot)}' goes on with it",
    )


def _broken_file(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    if snapshot.import_problem is None or snapshot.running:
        return None
    return (
        AnswerKind.BROKEN_FILE,
        f"the pipeline file cannot be read, so nothing is started: {short(snapshot.import_problem)}",
    )


def _missing_file(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    if snapshot.missing_since is None or snapshot.running:
        return None
    return (
        AnswerKind.MISSING_FILE,
        f"{snapshot.path} does not define it any more (since {to_second(snapshot.missing_since)}): "
        "put it back and it goes on; its chain is as it was",
    )


def _paused(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    if not snapshot.paused:
        return None
    return AnswerKind.PAUSED, f"it is paused: 'trainflow dags unpause {snapshot.dag_id}' lets it go on"


def _drained(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    return None if snapshot.drained is None else (AnswerKind.DRAINED, snapshot.drained)


def _no_triggerer(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    """A wait that no triggerer watches never ends, and does not run out either."""
    if snapshot.engine.triggers:
        return None
    for run in snapshot.running:
        for task in run.tasks:
            if task.state == _T.DEFERRED:
                return (
                    AnswerKind.NO_TRIGGERER,
                    f"run {run.number}: task '{task.task_id}' waits for its trigger, and no triggerer is alive to "
                    "watch it: start one with 'trainflow triggerer'",
                )
    return None


def _under_way(snapshot: DagSnapshot, _status: ChainStatus | None, now: datetime) -> Answer | None:
    """A run that runs and has no task at work: the task that holds it up."""
    answer = next(filter(None, (held_up_by(run, now) for run in snapshot.running)), None)
    if answer is not None:
        return answer
    for run in snapshot.running:
        for task in run.tasks:
            if task.waits_for_run is not None:
                return _waits_for_past(snapshot, run, task)
    if snapshot.running:
        run = snapshot.running[0]
        return AnswerKind.STARTING, f"run {run.number} is between two tasks: the next one is about to be scheduled"
    return None


def _waits_for_past(snapshot: DagSnapshot, run: RunSnapshot, task: TaskSnapshot) -> Answer:
    """depends_on_past: the same task of the run before it has not ended well."""
    before = task.waits_for_run
    what = f"run {run.number}: task '{task.task_id}' waits for run {before} (depends_on_past), in which it"
    if task.past_state in ("failed", "upstream_failed"):
        way_out = f"'trainflow runs clear {snapshot.dag_id} {before}' lets that run again"
        return AnswerKind.WAITING, f"{what} failed: {way_out}"
    where = "has not run yet" if task.past_state is None else f"is {task.past_state.replace('_', ' ')}"
    return AnswerKind.WAITING, f"{what} {where}"


def _queued(snapshot: DagSnapshot, _status: ChainStatus | None, now: datetime) -> Answer | None:
    run = snapshot.queued
    if run is None:
        return None
    if run.run_after > now:
        return (
            AnswerKind.QUEUED,
            f"run {run.number} starts {until(run.run_after, now)}, at {to_second(run.run_after)}",
        )
    return AnswerKind.STARTING, f"run {run.number} is about to start"


def _stopped(snapshot: DagSnapshot, status: ChainStatus | None, _now: datetime) -> Answer | None:
    if status is None or not status.stopped:
        return None
    if status.misnamed:
        return (
            AnswerKind.GATE,
            f"what was trained is not committed yet: {short('; '.join(status.stopped))}; mend the name, then "
            f"'{_of_chain('resume', snapshot)} --accept' commits it, and nothing is trained again",
        )
    return (
        AnswerKind.GATE,
        f"a gate stopped the chain: {short('; '.join(status.stopped))}; '{_of_chain('resume', snapshot)}' trains "
        "the split again, --accept commits it all the same, --skip leaves it out, --rewind N goes back N checkpoints",
    )


def _samples_changed(_snapshot: DagSnapshot, status: ChainStatus | None, _now: datetime) -> Answer | None:
    if status is None or status.samples_changed is None:
        return None
    return AnswerKind.SAMPLES_CHANGED, f"nothing is trained: {status.samples_changed}"


def _failed(snapshot: DagSnapshot, _status: ChainStatus | None, _now: datetime) -> Answer | None:
    last = snapshot.last
    if last is None or last.state != "failed":
        return None
    task = next((task for task in last.tasks if task.state == _T.FAILED), None)
    again = f"'{_start(snapshot)}' goes on at the head"
    if task is None:
        return AnswerKind.FAILED, f"run {last.number} failed: {short(last.note)}; {again}"
    return (
        AnswerKind.FAILED,
        f"run {last.number} failed: task '{task.task_id}': {short(task.problem)} ({_log(snapshot, last, task)}); "
        "when that is put right, "
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
        return AnswerKind.CAUGHT_UP, f"caught up{at}: {status.waits}"
    if status is not None and status.lag:
        more = "at least " if status.lag_is_more else ""
        there = f"{counted(status.lag, 'partition')} {agreeing(status.lag, 'is', 'are')}"
        return AnswerKind.ENDED, f"no run is under way, and {more}{there} ready after the head: {start} trains"
    if status is not None and status.problem:
        problem = short(status.problem)
        return AnswerKind.ENDED, f"no run is under way, and chain or samples cannot be read: {problem}"
    if note.startswith("caught up"):
        return AnswerKind.CAUGHT_UP, note
    if status is not None and status.watermark is not None and status.lag == 0:
        return (
            AnswerKind.CAUGHT_UP,
            f"caught up at {label(status.watermark)}: nothing after it is ready, and no run is under way",
        )
    return AnswerKind.ENDED, f"run {last.number} ended as {last.state} and no other was triggered: {start} begins one"


def _never_started(snapshot: DagSnapshot, status: ChainStatus | None) -> Answer:
    start = f"'{_start(snapshot)}'"
    where = ""
    if status is not None and status.waits:
        return AnswerKind.NEVER_STARTED, f"no run of it is in this home: it {status.waits}"
    if status is not None and status.watermark is not None:
        at = f"stands at checkpoint {status.head_number}" if status.head_number else "has trained nothing yet"
        where = f", its chain {at} ({label(status.watermark)})"
    here = "no run of it is in this home" if where else "it was never started"
    alive = "" if snapshot.engine.alive else " and no engine is alive"
    if not snapshot.known:
        unread = (
            f"and its file has not been read yet: 'trainflow plan {snapshot.path}' or {start} says whether it is valid"
        )
        return AnswerKind.NEVER_STARTED, f"{here}{where}, {unread}"
    return AnswerKind.NEVER_STARTED, f"{here}{where}{alive}: {start} begins"


RULES: tuple[Rule, ...] = (
    _working,
    _no_engine,
    _broken_file,
    _missing_file,
    _paused,
    _drained,
    _no_triggerer,
    _under_way,
    _queued,
    _stopped,
    _samples_changed,
    _failed,
    _ended,
)


def _log(snapshot: DagSnapshot, run: RunSnapshot, task: TaskSnapshot) -> str:
    return f"log: trainflow tasks logs {snapshot.dag_id} {run.run_id} {task.task_id}"


def _progress(task: TaskSnapshot) -> str:
    if not task.progress:
        return f": {task.note}" if task.note else ""
    done, total, unit = task.progress.get("done"), task.progress.get("total"), task.progress.get("unit") or ""
    note = f"; {task.progress['note']}" if task.progress.get("note") else ""
    if done is None or (note and not done):
        return note
    if not total:
        return f": {done:,.0f} {unit}".rstrip() + note
    return f": {percent(done, total)} ({done:,.0f} of {total:,.0f} {unit})".replace(" )", ")") + note


def _after(snapshot: DagSnapshot, run: RunSnapshot, task: TaskSnapshot) -> str:
    """What became of the attempt before the one that runs; "" where there was none that failed or was lost."""
    failure = snapshot.last_failure
    if failure is None or (failure.run_id, failure.task_id) != (run.run_id, task.task_id):
        return ""
    return f", after an attempt that ended early: {short(failure.problem)}"


def _days(seconds: float | None) -> str:
    hours = round((seconds or 0.0) / 3600)
    return f"{hours} h" if hours < 48 else counted(hours // 24, "day")
