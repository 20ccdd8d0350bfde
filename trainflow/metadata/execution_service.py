"""Answer attempts: the execution API as function calls into the database, one transaction for each request."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import StatementError

from trainflow.clock import Clock
from trainflow.errors import DagRunAlreadyExists, InputError, LostTransition, TaskError, describe
from trainflow.messages.execution_api import (
    OUTCOME_REFUSED,
    DagRunInfo,
    Done,
    Failed,
    GetDagRunState,
    GetTrackingRun,
    GetXCom,
    MeetRanks,
    Outcome,
    OutcomeState,
    Progress,
    RanksMeet,
    Refused,
    Reply,
    Request,
    RowsSaved,
    Start,
    Started,
    TrackingRun,
    TriggerRun,
    XComValues,
)
from trainflow.messages.workload import AttemptKey, ProcessExit
from trainflow.metadata import attempt_claims, attempt_credentials, run_creation
from trainflow.metadata.applied_change import AppliedChange, FollowUp, change_of
from trainflow.metadata.attempt_outcomes import AttemptOutcomes, parent_of
from trainflow.metadata.database import Database
from trainflow.metadata.exit_judgement import judge_exit
from trainflow.metadata.queries import attempt_queries, curve_queries, in_flight, run_queries, xcom_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.transaction_retries import is_conflict, is_own_fault, is_refusal
from trainflow.observability.redaction import presentable
from trainflow.states import TaskInstanceState

log = logging.getLogger(__name__)

_T = TaskInstanceState
_PROBLEM_CHARACTERS = 4_000
#: where processes end that others have started (an API server) nothing takes them away again
_MOST_REPORTED = 1_000
#: how an attempt has ended when it said so itself
_REPORTED = frozenset(state.value for state in OutcomeState)
#: outcomes that may have the next task of their run queued
_FOLLOWED = frozenset({OutcomeState.SUCCESS, OutcomeState.SKIPPED})


class ExecutionService:
    """The execution API over the metadata database."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        versions: Versions,
        *,
        lost_attempts: int = 10,
        on_change: Callable[[AppliedChange], None] = lambda _change: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ends = AttemptOutcomes(versions, lost_attempts)
        self._on_change = on_change
        #: the scheduler, where it is in this process
        self.follow_up: FollowUp | None = None
        #: attempts that said here how they ended and whose process has not ended yet; only saves asking the database
        self._reported: deque[AttemptKey] = deque(maxlen=_MOST_REPORTED)

    def handle(self, request: Request) -> Reply:
        """See `trainflow.messages.execution_api.ExecutionApi`."""
        return self._guarded(request, lambda: self._answer(request))

    def claim_from_afar(self, request: Start, claim_secret: str, token: str) -> Reply:
        """`Start` of a worker on another host, which speaks for the attempt by `token` from then on.

        Raises CredentialRefused and AttemptTaken, and then has changed nothing.
        """
        return self._guarded(request, lambda: self._claim_from_afar(request, claim_secret, token))

    def meet_ranks(self, request: MeetRanks, claim_secret: str) -> RanksMeet | Refused:
        """Where the first rank of an attempt is that has not begun. Raises CredentialRefused."""

        def meet(connection: Connection) -> RanksMeet | Refused:
            row = attempt_credentials.meet(connection, request.key, claim_secret, request.address)
            return attempt_claims.STALE if row is None else RanksMeet(row.rank_address)

        return self._database.read(meet) if request.address is None else self._database.write(meet)

    def _guarded(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        reply = self._answered(request, answer)
        if isinstance(reply, Refused) and not isinstance(request, Start):
            now = self._clock.now()
            self._database.write(
                lambda connection: attempt_queries.note_refused(connection, [request.key.attempt_id], now)
            )
        return reply

    def _answered(self, request: Request, answer: Callable[[], Reply]) -> Reply:
        try:
            return self._database.retrying(answer)
        except LostTransition as error:
            return Refused(str(error))
        except Exception as error:
            if not isinstance(request, Start | Outcome) or not is_refusal(error):
                raise
            return self._given_up(request, error)

    def _given_up(self, request: Start | Outcome, error: Exception) -> Reply:
        """What an attempt said cannot be kept, or what it is to be told cannot be read. It would be the same each time:
        the attempt fails, and nothing else does."""
        log.error("attempt %s fails: what it hands over cannot be kept", request.key.attempt_id, exc_info=error)
        about = "what it handed over cannot be stored" if isinstance(request, Outcome) else "its run cannot be read"
        why = presentable(f"{about}: {_in_words(error)}", _PROBLEM_CHARACTERS)
        if not self._fail_for_good(request.key, why):
            return Refused(str(_not_running(request.key)))
        return Failed(OUTCOME_REFUSED, why) if isinstance(request, Outcome) else Refused(why)

    def _fail_for_good(self, key: AttemptKey, why: str) -> bool:
        """End an attempt as failed, without reading its DAG. False: it does not hold its task instance any more."""
        now = self._clock.now()

        def fail(connection: Connection) -> int | None:
            held = in_flight.attempt_holder(connection, key)
            if held is None:
                return None
            self._ends.fail_for_good(connection, held.id, key, why, now)
            attempt_queries.note(connection, key.attempt_id, outcome="failed", ended_at=now, problem=why)
            return int(held.dag_run_id)

        dag_run_id = self._database.write(fail)
        if dag_run_id is None:
            return False
        self._reported.append(key)
        self._on_change(AppliedChange(dag_run_id, ended=True))
        return True

    def _answer(self, request: Request) -> Reply:
        match request:
            case Start():
                return self._claim_here(request)
            case Outcome():
                return self._outcome(request)
            case Progress():
                return self._progress(request)
            case RowsSaved():
                return self._saved(request)
            case GetXCom():
                return self._get_xcom(request)
            case TriggerRun():
                return self._trigger_run(request)
            case GetDagRunState():
                return self._dag_run_info(request)
            case GetTrackingRun():
                return self._tracking_run(request)

    def _claim_here(self, request: Start) -> Reply:
        with self._database.transaction() as connection:
            answer = attempt_claims.begin_fresh(connection, request, self._clock.now())
        # committed with the last statement: on a server that is one question for all of it
        return answer() or self._claim(request)

    def _claim_from_afar(self, request: Start, claim_secret: str, token: str) -> Reply:
        reply = attempt_claims.claim_from_afar(self._database, request, claim_secret, token, self._clock.now())
        # read last: what it has waited for locks does not count
        return replace(reply, control_plane_time=self._clock.now()) if isinstance(reply, Started) else reply

    def _claim(self, request: Start) -> Reply:
        with self._database.transaction() as connection:
            return attempt_claims.claim(connection, request, self._clock.now())

    # -- while it runs ---------------------------------------------------------------------------------------------

    def note_heartbeats(self, keys: Collection[AttemptKey]) -> set[AttemptKey]:
        """Attempts on other hosts say that they live. Returns those of them that are waited for."""

        def note(connection: Connection) -> set[AttemptKey]:
            alive = attempt_credentials.note_heartbeats(connection, keys)
            if refused := {key.attempt_id for key in keys} - {key.attempt_id for key in alive}:
                attempt_queries.note_refused(connection, refused, self._clock.now())
            return alive

        return self._database.write(note)

    def _progress(self, request: Progress) -> Reply:
        progress = {name: getattr(request, name) for name in ("done", "total", "unit", "metrics", "note")}
        with self._database.transaction() as connection:
            shown = in_flight.update_progress(connection, request.key, progress=progress, now=self._clock.now())
            if shown and request.curves:
                curve_queries.put(connection, request.key.attempt_id, request.curves)
        return Done() if shown else attempt_claims.STALE

    def _saved(self, request: RowsSaved) -> Reply:
        with self._database.transaction() as connection:
            if not in_flight.update_saved_rows(connection, request.key, request.rows):
                row = in_flight.by_key(connection, request.key)
                # one that runs has saved as much before
                return Done() if row is not None and row.state == _T.RUNNING else attempt_claims.STALE
        return Done()

    def _get_xcom(self, request: GetXCom) -> Reply:
        with self._database.reading() as connection:
            asked = in_flight.ask_by_key(connection, request.key)
            if request.include_prior_dates and request.task_ids is not None:
                values = xcom_queries.prior_values(
                    connection, request.dag_id, request.run_id, task_ids=request.task_ids, key=request.xcom_key
                )
            else:
                values = xcom_queries.values(
                    connection,
                    request.dag_id,
                    request.run_id,
                    task_ids=request.task_ids,
                    key=request.xcom_key,
                    map_index=request.map_index,
                )
            if asked() is None:
                # cleared under way: what its successors hand over must not be mixed with what it has read before
                return attempt_claims.STALE
        return XComValues(values)

    def _trigger_run(self, request: TriggerRun) -> Reply:
        now = self._clock.now()
        with self._database.transaction() as connection:
            row = self._running(connection, request.key)
            try:
                run_creation.trigger(connection, request.run, parent_of(row), now)
            except (InputError, DagRunAlreadyExists, TaskError) as error:
                return Failed(type(error).__name__, str(error))
        self._on_change(AppliedChange(row.dag_run_id, triggered=True))
        return Done()

    def dag_run_state(self, dag_id: str, run_id: str) -> str | None:
        """Where a run is; None when there is none."""
        with self._database.reading() as connection:
            row = run_queries.find(connection, dag_id, run_id)
        return None if row is None else str(row.state)

    def _dag_run_info(self, request: GetDagRunState) -> Reply:
        with self._database.reading() as connection:
            if in_flight.by_key(connection, request.key) is None:
                return attempt_claims.STALE
            row = run_queries.find(connection, request.dag_id, request.run_id)
        return DagRunInfo(None if row is None else str(row.state))

    def _tracking_run(self, request: GetTrackingRun) -> Reply:
        with self._database.reading() as connection:
            row = in_flight.by_key(connection, request.key)
            if row is None:
                return attempt_claims.STALE
            run = run_queries.by_id(connection, row.dag_run_id)
        return TrackingRun(run.mlflow_uri, run.mlflow_run_id)

    @staticmethod
    def _running(connection: Connection, key: AttemptKey) -> Any:
        row = in_flight.by_key(connection, key)
        if row is None or row.state != _T.RUNNING:
            raise _not_running(key)
        return row

    # -- the end ---------------------------------------------------------------------------------------------------

    def _outcome(self, outcome: Outcome) -> Reply:
        follow_up = self.follow_up
        if follow_up is None or outcome.state not in _FOLLOWED or not follow_up.ready:
            return self._end(outcome, None)
        try:
            return self._end(outcome, follow_up)
        except BaseException as error:
            follow_up.take_back()
            if not isinstance(error, Exception) or not (is_own_fault(error) or is_conflict(error)):
                raise
            log.info("attempt %s: its end and what follows are written apart: %s", outcome.key.attempt_id, error)
        # a run that cannot be decided is set aside by the scheduler: its outcome is kept
        return self._end(outcome, None)

    def _end(self, outcome: Outcome, follow_up: FollowUp | None) -> Reply:
        now = self._clock.now()
        with self._database.transaction() as connection:
            asked = in_flight.ask_by_key(connection, outcome.key)
            left = self._ends.begin(connection, outcome, now)
            decide = follow_up.begin(connection, outcome) if follow_up is not None and left is not None else None
            row = asked()
            if row is None or row.state != _T.RUNNING:
                ended = attempt_queries.outcome(connection, outcome.key.attempt_id)
                # told twice: the first reply was lost. One that had its run begin anew holds its task no more
                if ended == OutcomeState.RESTARTED or (row is not None and ended in _REPORTED):
                    return Done()
                raise _not_running(outcome.key)
            outcome, moved = self._ends.apply_or_refuse(connection, row, outcome, now, left)
            attempt_queries.note(
                connection,
                outcome.key.attempt_id,
                outcome=outcome.state.value,
                ended_at=now,
                problem=outcome.problem.message if outcome.problem else None,
                **attempt_queries.noted_of(connection, outcome),
            )
            if outcome.curves:
                curve_queries.put(connection, outcome.key.attempt_id, outcome.curves)
            if follow_up is not None and decide is None and outcome.state in _FOLLOWED:
                decide = follow_up.begin(connection, outcome)
            if moved is not None:
                moved.check()
            change = change_of(row.dag_run_id, outcome)
            if decide is not None:
                decide(change, now)
        self._reported.append(outcome.key)
        self._on_change(change)
        return Done()

    def has_begun(self, key: AttemptKey, pid: int | None = None) -> bool:
        """Whether the attempt is more than handed out: claimed by a process (`pid`: by this one), ended, or replaced by
        another one."""
        row = self._database.read(lambda connection: in_flight.by_key(connection, key))
        if row is None or row.state != _T.RUNNING:
            return row is None or row.state != _T.QUEUED
        return pid is None or row.pid == pid

    def note_queued(self, key: AttemptKey, text: str | None) -> None:
        """Say what an attempt waits for that was handed over, and that no process has claimed."""
        said = presentable(text, _PROBLEM_CHARACTERS) if text else None
        self._database.write(lambda connection: in_flight.note_queued(connection, key, said))

    def explain(self, key: AttemptKey, cause: str) -> None:
        """Add why an attempt has ended that did not end well, and said so itself."""
        said = presentable(cause, _PROBLEM_CHARACTERS)
        self._database.write(lambda connection: attempt_queries.explain(connection, key.attempt_id, said))

    def has_reported(self, key: AttemptKey) -> bool:
        """Whether the attempt has said how it ended."""
        return self._database.read(lambda connection: attempt_queries.outcome(connection, key.attempt_id)) in _REPORTED

    def exited(self, key: AttemptKey, exit: ProcessExit) -> bool:
        """The process of an attempt ended. Where its outcome was reported before, nothing is left to do.

        Returns True when the attempt ended by this.
        """
        if key in self._reported:
            self._reported.remove(key)
            return False
        try:
            return self._database.retrying(lambda: self._exited(key, exit))
        except LostTransition as lost:
            # cleared or cancelled at this very moment
            log.info("%s", lost)
            return False
        except Exception as error:
            if not is_refusal(error):
                raise
            log.error("attempt %s ended, and what that means cannot be told", key.attempt_id, exc_info=error)
            why = f"{judge_exit(exit).message}; and whether it may be tried again cannot be told: {_in_words(error)}"
            return self._fail_for_good(key, presentable(why, _PROBLEM_CHARACTERS))

    def _exited(self, key: AttemptKey, exit: ProcessExit) -> bool:
        judgement, now = judge_exit(exit), self._clock.now()
        with self._database.transaction() as connection:
            row = in_flight.by_key(connection, key)
            if row is None or row.state not in (_T.QUEUED, _T.RUNNING):
                return False
            outcome = self._ends.without_outcome(connection, row, key, judgement, now)
            attempt_queries.note(
                connection,
                key.attempt_id,
                outcome=outcome,
                ended_at=now,
                problem=judgement.message,
            )
        self._on_change(AppliedChange(row.dag_run_id, ended=True, later=True))
        return True


def _in_words(error: Exception) -> str:
    """What the database, or what writes for it, says; without the statement that a person did not write."""
    if isinstance(error, StatementError) and error.orig is not None:
        error = error.orig if isinstance(error.orig, Exception) else error
    return describe(error)


def _not_running(key: AttemptKey) -> LostTransition:
    return LostTransition(f"attempt {key.attempt_id}.{key.deferral_number} does not run any more")
