"""Decide about one run: which tasks may be scheduled, which will never run, whether the run is over, and what people
are told of one that failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainflow.messages.notice import Cause, Event, Notice
from trainflow.metadata.queries.status_queries import FirstFailure
from trainflow.metadata.queries.task_queries import TaskStateRow
from trainflow.scheduler.trigger_rules import SATISFIED, UNDECIDED, Ruling, ruling
from trainflow.serialization.document import ChainDocument, DagDocument, TaskDocument
from trainflow.states import AFTER_COMMIT, EXECUTION_STATES, FINISHED, SUCCESSFUL, DagRunState, TaskInstanceState

_T = TaskInstanceState
State = TaskInstanceState | None
_BAD = frozenset({_T.FAILED, _T.UPSTREAM_FAILED})
#: a task that was removed was none of the previous run's
_PASSES = SUCCESSFUL | {_T.REMOVED}
_UNDER_WAY = EXECUTION_STATES | {_T.DEFERRED}
#: what a notice repeats of an error, at most
_NOTICE_CHARACTERS = 500
_FAIL_FAST = "fail_fast: another task of the run failed"


class TaskMoves(NamedTuple):
    """Move these task instances (by id) from one state to another; `problem` says why they failed."""

    leaving: State
    to: TaskInstanceState
    ids: tuple[int, ...]
    problem: str | None = None

    @property
    def ends_attempts(self) -> bool:
        """Whether attempts under way are not waited for any more."""
        return self.leaving in _UNDER_WAY and self.to in FINISHED


class RunDecision(NamedTuple):
    """What to do about a run. `ends`: the state it ends in, None while it goes on. `released`: the next run need not
    wait for what is left of it."""

    steps: tuple[TaskMoves, ...]
    ends: DagRunState | None = None
    note: str | None = None
    released: bool = False
    #: it gives its place back: the run that it waits for cannot start before
    yields: bool = False


def decide(
    document: DagDocument,
    tasks: Sequence[TaskStateRow],
    *,
    timed_out: bool = False,
    past: Mapping[str, State] | None = None,
    past_has_no_place: bool = False,
) -> RunDecision:
    """What to do about a running run.

    `timed_out`: it has taken longer than its `dagrun_timeout`. `past`: states of the previous run's tasks (for
    depends_on_past), None when there is no previous run. `past_has_no_place`: the previous run is queued (it was
    cleared) and could start, but for max_active_runs.
    """
    if timed_out and any(task.state not in FINISHED for task in tasks):
        return _time_out(document, tasks)
    states: dict[str, State] = {task.task_id: task.state for task in tasks}
    moves: dict[tuple[State, TaskInstanceState], list[int]] = {}
    _remove_strangers(document, tasks, states, moves)
    _stop_early(document, tasks, states, moves)
    by_id = {task.task_id: task for task in tasks}
    setups = frozenset(task.task_id for task in document.tasks if task.is_setup)
    # the document lists tasks in topological order: one pass carries skips and failures all the way down
    for task in document.tasks:
        instance = by_id.get(task.task_id)
        if instance is None or states[task.task_id] is not None:
            continue
        to = _task_decision(task, states, setups, past)
        if to is not None:
            states[task.task_id] = to
            moves.setdefault((None, to), []).append(instance.id)
    steps = tuple(
        # no task fails here but those that run while another one has failed
        TaskMoves(source, to, tuple(ids), _FAIL_FAST if to is _T.FAILED else None)
        for (source, to), ids in moves.items()
    )
    ends, note = _end(document, states)
    return RunDecision(
        steps,
        ends,
        note,
        released=ends is None and _released(document, states),
        yields=ends is None
        and past_has_no_place
        and _only_waits(states)
        and bool(waiting_for_past(document, states, past)),
    )


def _only_waits(states: Mapping[str, State]) -> bool:
    """Whether nothing of the run is at work or about to be."""
    return all(state is None or state in FINISHED for state in states.values())


def waiting_for_past(document: DagDocument, states: Mapping[str, State], past: Mapping[str, State] | None) -> list[str]:
    """The tasks that wait for nothing but the same task of the previous run (depends_on_past)."""
    setups = frozenset(task.task_id for task in document.tasks if task.is_setup)
    return [
        task.task_id
        for task in document.tasks
        if task.task_id in states
        and states[task.task_id] is None
        and _waits_for_past(task, past)
        and ruling(task.trigger_rule, _upstream(task, states), setups) is SATISFIED
    ]


def _waits_for_past(task: TaskDocument, past: Mapping[str, State] | None) -> bool:
    return task.depends_on_past and past is not None and past.get(task.task_id, _T.SUCCESS) not in _PASSES


def _upstream(task: TaskDocument, states: Mapping[str, State]) -> dict[str, State]:
    return {name: states[name] for name in task.upstream if name in states}


def _task_decision(
    task: TaskDocument, states: Mapping[str, State], setups: frozenset[str], past: Mapping[str, State] | None
) -> TaskInstanceState | None:
    """Where a task that was not looked at yet goes, None to stay."""
    says: Ruling = ruling(task.trigger_rule, _upstream(task, states), setups)
    if says is UNDECIDED:
        return None
    if isinstance(says, TaskInstanceState):
        return says
    assert says is SATISFIED
    if _waits_for_past(task, past):
        return None
    return _T.SCHEDULED


def _remove_strangers(
    document: DagDocument,
    tasks: Sequence[TaskStateRow],
    states: dict[str, State],
    moves: dict[tuple[State, TaskInstanceState], list[int]],
) -> None:
    known = {task.task_id for task in document.tasks}
    for instance in tasks:
        if instance.task_id not in known and instance.state in (None, _T.SCHEDULED):
            states[instance.task_id] = _T.REMOVED
            moves.setdefault((instance.state, _T.REMOVED), []).append(instance.id)


def _stop_early(
    document: DagDocument,
    tasks: Sequence[TaskStateRow],
    states: dict[str, State],
    moves: dict[tuple[State, TaskInstanceState], list[int]],
) -> None:
    """`fail_fast`: after the first failure nothing new starts, and what runs fails as well (Airflow's rule); but for
    teardowns and what is short and worth finishing, a commit."""
    if not document.fail_fast or _T.FAILED not in states.values():
        return
    kept = {task.task_id for task in document.tasks if task.is_teardown}
    finishing = {task.task_id for task in document.tasks if task.shielded}
    for instance in tasks:
        if instance.task_id in kept or instance.state in FINISHED:
            continue
        if instance.state in EXECUTION_STATES and instance.task_id in finishing:
            continue
        to = _T.FAILED if instance.state in EXECUTION_STATES else _T.SKIPPED
        states[instance.task_id] = to
        moves.setdefault((instance.state, to), []).append(instance.id)


def _end(document: DagDocument, states: Mapping[str, State]) -> tuple[DagRunState | None, str | None]:
    """End of the run, if it is over. Airflow's rule: all leaves but teardowns decide. In a run that trains, so does its
    commit: what comes after it may have ended well before the commit was cleared alone, and failed."""
    waiting = [state for state in states.values() if state not in FINISHED]
    if waiting and any(state is not None for state in waiting):
        return None, None
    leaves = [states[name] for name in _leaves(document) if name in states]
    if not waiting:
        # after a failure, fail_fast skips the leaves as well: they say nothing then
        commits = [states[task.task_id] for task in document.tasks if task.role == "commit" and task.task_id in states]
        decisive = states.values() if document.fail_fast else [*leaves, *commits]
        failed = any(state in _BAD for state in decisive)
        return (DagRunState.FAILED if failed else DagRunState.SUCCESS), None
    if _may_wait_for_past(document, states):
        # waits for the previous run's tasks, not for its own
        return None, None
    return DagRunState.FAILED, "all tasks deadlocked: nothing is running and nothing can be scheduled"


def _released(document: DagDocument, states: Mapping[str, State]) -> bool:
    """Whether it has committed, and only tasks after the commit, and what waits for them, are left."""
    tails = {task.task_id for task in document.tasks if task.role == AFTER_COMMIT}
    if not tails:
        return False
    committed = any(task.role == "commit" and states.get(task.task_id) == _T.SUCCESS for task in document.tasks)
    left = {task_id for task_id, state in states.items() if state not in FINISHED}
    return committed and left <= document.with_downstream(tails)


def _may_wait_for_past(document: DagDocument, states: Mapping[str, State]) -> bool:
    return any(task.depends_on_past and states.get(task.task_id) is None for task in document.tasks)


def _leaves(document: DagDocument) -> list[str]:
    """Tasks that nothing but a teardown follows; teardowns do not decide about a run."""
    teardowns = {task.task_id for task in document.tasks if task.is_teardown}
    has_followers = {name for task in document.tasks if task.task_id not in teardowns for name in task.upstream}
    return [
        task.task_id for task in document.tasks if task.task_id not in has_followers and task.task_id not in teardowns
    ]


def _time_out(document: DagDocument, tasks: Sequence[TaskStateRow]) -> RunDecision:
    moves: dict[tuple[State, TaskInstanceState], list[int]] = {}
    for instance in tasks:
        if instance.state in FINISHED:
            continue
        to = _T.FAILED if instance.state in EXECUTION_STATES else _T.SKIPPED
        moves.setdefault((instance.state, to), []).append(instance.id)
    note = f"dagrun_timeout: the run took longer than {document.dagrun_timeout_seconds:g} s"
    steps = tuple(
        TaskMoves(source, to, tuple(ids), note if to is _T.FAILED else None) for (source, to), ids in moves.items()
    )
    return RunDecision(steps, DagRunState.FAILED, note)


def stop_notice(
    chain: ChainDocument, run: Any, failure: FirstFailure | None, *, last_success: int, note: str | None
) -> Notice:
    """Tell that `run` (dag_id, run_id, number, released_at) failed. Told once for each task since the last run that
    succeeded: a person who starts a stopped chain again and again has heard of it."""
    about: dict[str, Any] = {"pipeline": chain.pipeline, "stage": chain.stage, "branch": chain.branch}
    about |= {"dag_id": run.dag_id, "run_id": run.run_id}
    task_id = failure.task_id if failure else None
    if run.released_at is not None:
        # the chain goes on; what was to be made of the checkpoint is not there
        why = f"task '{task_id}' failed: {failure.problem}" if failure else "it failed"
        return Notice(
            event=Event.AFTER_COMMIT_FAILED,
            key=run.run_id,
            sentence=f"{run.dag_id}: after the commit of run {run.number}: {_short(why)}; the chain goes on",
            facts={"task_id": task_id},
            **about,
        )
    told: dict[str, Any] = (failure.told if failure else None) or {}
    why = told.get("sentence") or (f"task '{task_id}': {failure.problem}" if failure else note or "the run failed")
    return Notice(
        event=Event.STOPPED,
        key=str(told.get("key") or f"{run.dag_id}:{last_success}:{task_id}"),
        cause=Cause(told.get("cause") or Cause.TASK),
        sentence=f"{run.dag_id}: the chain stopped in run {run.number}: {_short(why)}",
        facts={"task_id": task_id, **told.get("facts", {})},
        **about,
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _NOTICE_CHARACTERS else f"{line[:_NOTICE_CHARACTERS]}…"
