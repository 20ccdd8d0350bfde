"""The states of runs and task instances, and every legal move between them.

SQL may only perform a move that these tables hold; see `trainflow.metadata.queries.task_queries.move`.
"""

from __future__ import annotations

from enum import StrEnum


class TaskInstanceState(StrEnum):
    """Where a task instance is. A row that has not been looked at yet has no state (None)."""

    #: the task left the DAG while the run was under way
    REMOVED = "removed"
    #: dependencies are met; waits for a slot
    SCHEDULED = "scheduled"
    #: has an attempt id and was handed to an executor
    QUEUED = "queued"
    #: its attempt has claimed it
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    #: failed with retries left; scheduled again at `retry_at`
    UP_FOR_RETRY = "up_for_retry"
    #: a sensor gave its slot back; scheduled again at `retry_at`
    UP_FOR_RESCHEDULE = "up_for_reschedule"
    UPSTREAM_FAILED = "upstream_failed"
    SKIPPED = "skipped"
    #: waits in the triggerer; holds no slot
    DEFERRED = "deferred"


class DagRunState(StrEnum):
    """Where a run is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


class DagRunType(StrEnum):
    """Why a run exists."""

    MANUAL = "manual"
    OPERATOR_TRIGGERED = "operator_triggered"


class TriggeredBy(StrEnum):
    """Who asked for a run."""

    CLI = "cli"
    REST_API = "rest_api"
    OPERATOR = "operator"
    TEST = "test"


class TriggerRule(StrEnum):
    """When a task may run, seen from its direct upstream tasks (names and meaning: Airflow)."""

    ALL_SUCCESS = "all_success"
    ALL_FAILED = "all_failed"
    ALL_DONE = "all_done"
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    ALL_DONE_SETUP_SUCCESS = "all_done_setup_success"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    ONE_DONE = "one_done"
    NONE_FAILED = "none_failed"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    NONE_SKIPPED = "none_skipped"
    ALL_SKIPPED = "all_skipped"
    ALWAYS = "always"


class WeightRule(StrEnum):
    """Whose weights a task's effective priority sums."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    ABSOLUTE = "absolute"


_T = TaskInstanceState

FINISHED = frozenset({_T.SUCCESS, _T.FAILED, _T.SKIPPED, _T.UPSTREAM_FAILED, _T.REMOVED})
SUCCESSFUL = frozenset({_T.SUCCESS, _T.SKIPPED})
#: in the hands of an executor: holds a slot, and is looked after when its engine dies
EXECUTION_STATES = frozenset({_T.QUEUED, _T.RUNNING})
UNFINISHED = frozenset(set(TaskInstanceState) - FINISHED)

#: state → states it may be left for. None is "not looked at yet".
TASK_MOVES: dict[TaskInstanceState | None, frozenset[TaskInstanceState | None]] = {
    None: frozenset({_T.SCHEDULED, _T.SKIPPED, _T.UPSTREAM_FAILED, _T.REMOVED, _T.SUCCESS, _T.FAILED}),
    _T.SCHEDULED: frozenset({_T.QUEUED, _T.SKIPPED, _T.FAILED, _T.SUCCESS, _T.REMOVED, None}),
    _T.QUEUED: frozenset({_T.RUNNING, _T.SCHEDULED, _T.FAILED, _T.SKIPPED, _T.SUCCESS, _T.UP_FOR_RETRY, None}),
    _T.RUNNING: frozenset(
        {
            _T.SUCCESS,
            _T.FAILED,
            _T.SKIPPED,
            _T.UP_FOR_RETRY,
            _T.UP_FOR_RESCHEDULE,
            _T.DEFERRED,
            _T.SCHEDULED,
        }
    ),
    _T.DEFERRED: frozenset({_T.SCHEDULED, _T.FAILED, _T.SKIPPED, _T.SUCCESS, None}),
    _T.UP_FOR_RETRY: frozenset({_T.SCHEDULED, _T.FAILED, _T.SKIPPED, _T.SUCCESS, None}),
    _T.UP_FOR_RESCHEDULE: frozenset({_T.SCHEDULED, _T.FAILED, _T.SKIPPED, _T.SUCCESS, None}),
    # a finished task instance leaves only by being cleared, or by being marked otherwise by a person
    _T.SUCCESS: frozenset({None, _T.FAILED, _T.SKIPPED}),
    _T.FAILED: frozenset({None, _T.SUCCESS, _T.SKIPPED}),
    _T.SKIPPED: frozenset({None, _T.SUCCESS, _T.FAILED}),
    _T.UPSTREAM_FAILED: frozenset({None, _T.SUCCESS, _T.FAILED, _T.SKIPPED}),
    _T.REMOVED: frozenset({None}),
}

_R = DagRunState

RUN_FINISHED = frozenset({_R.SUCCESS, _R.FAILED})
RUN_MOVES: dict[DagRunState, frozenset[DagRunState]] = {
    _R.QUEUED: frozenset({_R.RUNNING, _R.FAILED, _R.SUCCESS}),
    _R.RUNNING: frozenset({_R.SUCCESS, _R.FAILED, _R.QUEUED}),
    _R.SUCCESS: frozenset({_R.QUEUED}),
    _R.FAILED: frozenset({_R.QUEUED}),
}

#: role of a task that works on what its run has committed: the next run does not wait for it
AFTER_COMMIT = "after_commit"
#: so many runs may begin after one that has nothing left to do but such tasks, and has not ended
MOST_AHEAD = 2
