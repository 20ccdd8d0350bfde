"""Carry out what the end of an attempt means for its task instance, in the transaction of the process that heard of
it."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from trainflow.errors import DagNotFound, DagRunAlreadyExists, InputError, TaskError
from trainflow.messages.execution_api import AttemptFailure, Outcome, OutcomeState
from trainflow.messages.workload import AttemptKey
from trainflow.metadata import exit_judgement, retry_policy, run_creation
from trainflow.metadata.exit_judgement import ExitJudgement
from trainflow.metadata.queries import (
    attempt_queries,
    notification_queries,
    run_queries,
    task_queries,
    trigger_queries,
    xcom_queries,
)
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.retry_policy import RetryCounts, RetryDecision
from trainflow.serialization.document import RetryDocument
from trainflow.states import TaskInstanceState

_T = TaskInstanceState
#: how an attempt has ended that no process ever got
UNDELIVERED = "undelivered"
#: what a task instance keeps of an attempt that is over
_NOTHING_LEFT: dict[str, Any] = {"next_method": None, "next_kwargs": None, "pid": None, "progress": None}


class AttemptOutcomes:
    """`row` is the task instance as `in_flight.by_key` gives it: the attempt holds it."""

    def __init__(self, versions: Versions, lost_attempts: int) -> None:
        self._versions = versions
        self._lost_attempts = lost_attempts

    @staticmethod
    def begin(connection: Connection, outcome: Outcome, now: datetime) -> task_queries.Move | None:
        """Move a task instance whose attempt ended well, before anything is known of it; None where more has to be
        known, or something could still be refused."""
        if outcome.triggered_runs or outcome.state not in (OutcomeState.SUCCESS, OutcomeState.SKIPPED):
            return None
        return _leave(connection, outcome, _T(outcome.state.value), ended_at=now, lost=0)

    def apply_or_refuse(
        self, connection: Connection, row: Row[Any], outcome: Outcome, now: datetime, left: task_queries.Move | None
    ) -> tuple[Outcome, task_queries.Move | None]:
        """Like `apply`, and where a run that it triggers is refused, have the attempt fail instead. Returns the outcome
        that counts as well."""
        try:
            # only a triggered run can be refused, the first before anything is written
            with connection.begin_nested() if len(outcome.triggered_runs) > 1 else nullcontext():
                return outcome, self.apply(connection, row, outcome, now, left)
        except (InputError, DagRunAlreadyExists, TaskError) as error:
            outcome = _refused_trigger(outcome.key, error)
            return outcome, self.apply(connection, row, outcome, now, None)

    def apply(
        self, connection: Connection, row: Row[Any], outcome: Outcome, now: datetime, left: task_queries.Move | None
    ) -> task_queries.Move | None:
        """What the attempt said of its end, for which `begin` has `left` its state or not; returns the move of its
        state, if that is still to be checked. Raises LostTransition for a stale one, and what `run_creation.trigger`
        raises: nothing is written then, unless it triggered several runs."""
        for run in outcome.triggered_runs:
            run_creation.trigger(connection, run, parent_of(row), now)
        xcom_queries.put(connection, row.dag_run_id, row.task_id, row.map_index, outcome.xcoms, now)
        for notice in outcome.notices:
            notification_queries.add(connection, notice, now)
        match outcome.state:
            case OutcomeState.SUCCESS | OutcomeState.SKIPPED:
                return left or _leave(connection, outcome, _T(outcome.state.value), ended_at=now, lost=0)
            case OutcomeState.FAILED:
                problem = outcome.problem or AttemptFailure("failed without saying why")
                self._fail(connection, row, outcome.key, problem, now, saved_rows=outcome.saved_rows)
            case OutcomeState.DEFERRED:
                self._defer(connection, row, outcome, now)
            case OutcomeState.RESCHEDULED:
                again = {
                    "retry_at": outcome.again_at(now),
                    "waits_since": now,
                    "reschedules": row.reschedules + 1,
                }
                _leave(connection, outcome, _T.UP_FOR_RESCHEDULE, **again).check()
            case OutcomeState.RESTARTED:
                self._restart(connection, row, outcome, now)
            case OutcomeState.PREEMPTED:
                saved_rows = _furthest(row.saved_rows, outcome.saved_rows)
                verdict = retry_policy.after_preemption(_retry_counts(row, saved_rows))
                message = outcome.problem.message if outcome.problem else exit_judgement.TOLD_TO_STOP
                _settle(connection, row, outcome.key, verdict, message, saved_rows, now)
            case OutcomeState.PART_LOST:
                message = outcome.problem.message if outcome.problem else "a part of it was ended from outside"
                self._lose(connection, row, outcome.key, message, _furthest(row.saved_rows, outcome.saved_rows), now)
        return None

    def _restart(self, connection: Connection, row: Row[Any], outcome: Outcome, now: datetime) -> None:
        """An earlier task runs again, and all that follows it: this one too. What they handed over is forgotten."""
        document, _ = self._versions.get(connection, row.version_id)
        again = document.with_downstream({outcome.restart}) if outcome.restart else frozenset()
        times = attempt_queries.count_in_run(connection, row.dag_run_id, outcome.state.value)
        said = outcome.problem.message if outcome.problem else "an earlier task has to run again"
        refusal = retry_policy.restart_refusal(row.task_id, outcome.restart, again, times)
        if refusal is not None:
            problem = AttemptFailure(f"{said}; {refusal}", retryable=False)
            self._fail(connection, row, outcome.key, problem, now, saved_rows=outcome.saved_rows)
            return
        # the same road as an attempt that infrastructure lost; guarded by what holds it
        task_queries.move(connection, row.id, leaving={_T.RUNNING}, to=_T.SCHEDULED, key=outcome.key)
        tasks = task_queries.of_run(connection, row.dag_run_id)
        task_queries.clear(connection, [task.id for task in tasks if task.task_id in again], now)
        run_queries.add_note(connection, row.dag_run_id, f"'{outcome.restart}' ran again: {said}")

    def without_outcome(
        self, connection: Connection, row: Row[Any], key: AttemptKey, judgement: ExitJudgement, now: datetime
    ) -> str:
        """The process ended and its attempt never said how. Returns what its outcome counts as."""
        # one that had not claimed itself yet ran no code of the task, however it ended
        if not judgement.lost and (row.state != _T.QUEUED or judgement.refused):
            self._fail(connection, row, key, AttemptFailure(judgement.message), now)
            return OutcomeState.FAILED.value
        if not judgement.delivered and row.state == _T.QUEUED:
            verdict = retry_policy.after_preemption(_retry_counts(row, row.saved_rows))
            _settle(connection, row, key, verdict, judgement.message, row.saved_rows, now)
            return UNDELIVERED
        if judgement.stopped:
            verdict = retry_policy.after_preemption(_retry_counts(row, row.saved_rows))
            _settle(connection, row, key, verdict, exit_judgement.TOLD_TO_STOP, row.saved_rows, now)
            return OutcomeState.PREEMPTED.value
        self._lose(connection, row, key, judgement.message, row.saved_rows, now)
        return "lost"

    def _lose(
        self,
        connection: Connection,
        row: Row[Any],
        key: AttemptKey,
        message: str,
        saved_rows: int | None,
        now: datetime,
    ) -> None:
        verdict = retry_policy.after_loss(_retry_counts(row, saved_rows), self._lost_attempts)
        if verdict.state is _T.FAILED:
            message = f"lost {verdict.lost} times in a row, given up: {message}"
        _settle(connection, row, key, verdict, message, saved_rows, now)

    @staticmethod
    def fail_for_good(connection: Connection, task_instance_id: int, key: AttemptKey, why: str, now: datetime) -> None:
        """The attempt failed and is not tried again. Reads nothing: for what cannot be read or kept."""
        task_queries.move(
            connection,
            task_instance_id,
            leaving={_T.QUEUED, _T.RUNNING},
            to=_T.FAILED,
            key=key,
            ended_at=now,
            retry_at=None,
            problem=why,
            **_NOTHING_LEFT,
        )

    @staticmethod
    def _defer(connection: Connection, row: Row[Any], outcome: Outcome, now: datetime) -> None:
        assert outcome.deferral is not None
        task_queries.move(
            connection,
            row.id,
            leaving={_T.RUNNING},
            to=_T.DEFERRED,
            key=outcome.key,
            next_method=outcome.deferral.method_name,
            next_kwargs=outcome.deferral.kwargs,
            pid=None,
            lost=0,
            note=outcome.note,
        )
        trigger_queries.add(connection, row, outcome.key, outcome.deferral, now)

    def _fail(
        self,
        connection: Connection,
        row: Row[Any],
        key: AttemptKey,
        problem: AttemptFailure,
        now: datetime,
        *,
        saved_rows: int | None = None,
    ) -> None:
        document, _ = self._versions.get(connection, row.version_id)
        task = document.task(row.task_id)
        retry = task.retry if task is not None else RetryDocument()
        saved_rows = _furthest(row.saved_rows, saved_rows)
        verdict = retry_policy.after_failure(
            _retry_counts(row, saved_rows),
            retry,
            retryable=problem.retryable,
            now=now,
            identity=f"{row.dag_id}#{row.task_id}#{row.run_id}",
        )
        _settle(connection, row, key, verdict, problem.message, saved_rows, now)


def _settle(
    connection: Connection,
    row: Row[Any],
    key: AttemptKey,
    verdict: RetryDecision,
    message: str,
    saved_rows: int | None,
    now: datetime,
) -> None:
    """Carry out a verdict. Whatever comes next is a new attempt: it knows nothing but what was saved."""
    task_queries.move(
        connection,
        row.id,
        leaving={_T.QUEUED, _T.RUNNING},
        to=verdict.state,
        key=key,
        failures=verdict.failures,
        lost=verdict.lost,
        retry_at=verdict.retry_at,
        waits_since=now if verdict.retry_at is not None else None,
        ended_at=now if verdict.state is _T.FAILED else None,
        scheduled_at=now if verdict.state is _T.SCHEDULED else row.scheduled_at,
        problem=message,
        saved_rows=saved_rows,
        credited_rows=saved_rows,
        **_NOTHING_LEFT,
    )


def parent_of(row: Row[Any]) -> run_creation.Parent:
    """The task instance as the parent of a run that it triggers."""
    return run_creation.Parent(row.dag_run_id, row.root_id or row.dag_run_id, row.task_id, row.map_index)


def _retry_counts(row: Row[Any], saved_rows: int | None) -> RetryCounts:
    advanced = retry_policy.has_advanced(saved_rows, row.credited_rows)
    return RetryCounts(row.failures, row.max_tries, row.lost, advanced)


def _furthest(one: int | None, other: int | None) -> int | None:
    return max((rows for rows in (one, other) if rows is not None), default=None)


def _leave(connection: Connection, outcome: Outcome, to: TaskInstanceState, **values: Any) -> task_queries.Move:
    """Move `running` → `to`, with what the attempt said about it, if it did."""
    if outcome.note is not None:
        values["note"] = outcome.note
    return task_queries.begin_move(connection, None, leaving={_T.RUNNING}, to=to, key=outcome.key, **values)


def _refused_trigger(key: AttemptKey, error: Exception) -> Outcome:
    if type(error).__name__ == "SkipException":
        return Outcome(key, OutcomeState.SKIPPED, note=str(error))
    # a DAG may be read later, a run be deleted; anything else would be refused again
    retryable = isinstance(error, DagNotFound | DagRunAlreadyExists)
    problem = AttemptFailure(str(error), kind=type(error).__name__, retryable=retryable)
    return Outcome(key, OutcomeState.FAILED, problem=problem)
