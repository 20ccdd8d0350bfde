"""What must be true after each step: every change of a row is looked at, with what was reported in that step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.database import Observed, SimulatedDatabase
from tests.simulation.ledger_check import LedgerCheck
from tests.simulation.pipeline import MAX_ACTIVE_RUNS, RETRIES, Pipeline
from tests.simulation.violation import Violation
from trainflow.clock import Clock
from trainflow.identifiers import triggered_run_id
from trainflow.messages.execution_api import Done, Outcome, OutcomeState, Reply, Request, RowsSaved, Start, Started
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.metadata.queries import in_flight
from trainflow.states import RUN_MOVES, TASK_MOVES, DagRunState, TaskInstanceState

_T = TaskInstanceState
#: errors of an attempt that only a person or a deleted database can be the cause of
_AFTER_INTERFERENCE = {"ChainMoved", "CheckpointError", "CheckpointNotFound", "FailException"}
#: where an outcome may lead; a failure leads to either of two
_LEADS_TO = {
    OutcomeState.SUCCESS: {_T.SUCCESS},
    OutcomeState.SKIPPED: {_T.SKIPPED},
    OutcomeState.DEFERRED: {_T.DEFERRED},
    OutcomeState.PREEMPTED: {_T.SCHEDULED},
    OutcomeState.PART_LOST: {_T.SCHEDULED, _T.FAILED},
    OutcomeState.FAILED: {_T.UP_FOR_RETRY, _T.FAILED},
    OutcomeState.RESTARTED: {_T.SCHEDULED, _T.FAILED},
}


@dataclass
class Reports:
    """What attempts and executors reported in one step."""

    outcomes: dict[AttemptKey, Outcome] = field(default_factory=dict)
    exits: dict[AttemptKey, ProcessExit] = field(default_factory=dict)
    #: a person did this step
    by_person: bool = False


class Invariants:
    """Checks each step of one history. Raises Violation."""

    def __init__(
        self,
        database: SimulatedDatabase,
        ledger: LedgerCheck,
        pipeline: Pipeline,
        clock: Clock,
        expected_errors: set[str],
    ) -> None:
        self._database = database
        self._clock = clock
        self._pipeline = pipeline
        self._ledger = ledger
        self.reports = Reports()
        #: errors that attempts may fail with, because the plan has caused them
        self.expected_errors = expected_errors
        #: runs of which a person let one task run again and nothing after it: how they end says little
        self.partly_cleared: set[str] = set()
        #: runs that a person has cancelled: what had not run by then is skipped
        self.cancelled: set[str] = set()
        self.workloads: dict[AttemptKey, ExecuteTask] = {}
        self._claims: dict[AttemptKey, int] = {}
        #: attempts that have said how far they are
        self._saved: set[AttemptKey] = set()
        self._claimed_at: dict[AttemptKey, float] = {}
        #: DAG → since when its newest checkpoint task that succeeded had been running
        self.looked_at: dict[str, float] = {}

    def interfered(self) -> None:
        """A person or a deleted database came between: attempts may lose races from now on."""
        self.expected_errors |= _AFTER_INTERFERENCE

    # -- observer ---------------------------------------------------------------------------------------------------

    def saw_answer(self, request: Request, reply: Reply) -> None:
        """See `EntryEvidence`."""
        if isinstance(request, Outcome) and isinstance(reply, Done):
            self.reports.outcomes[request.key] = request
            workload = self.workloads[request.key]
            if workload.task_id == "checkpoint" and request.state is OutcomeState.SUCCESS:
                self.looked_at[workload.dag_id] = self._claimed_at[request.key]
            if request.state is OutcomeState.RESTARTED:
                self._ledger.saw_restart()
            self._check_error(request)
        if isinstance(request, RowsSaved):
            self._saved.add(request.key)
        if isinstance(request, Start) and isinstance(reply, Started):
            self._claimed_at.setdefault(request.key, self._clock.monotonic())
            holder = self._claims.setdefault(request.key, request.pid)
            if holder != request.pid:
                raise Violation("one claim", f"{request.key} is run by process {holder} and by process {request.pid}")

    def saw_stop(self, told: bool, request: Request, reply: Reply) -> None:
        """What a process says that was told to stop, or was not."""
        if told and isinstance(request, Outcome) and request.state is OutcomeState.SUCCESS and isinstance(reply, Done):
            raise Violation("success means done", f"{request.key} was told to stop, and ends as a success")

    def saw_exit(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `EntryEvidence`."""
        self.reports.exits[key] = exit
        if exit.code == 0 and key not in self._claims:
            row = self._database.read(lambda connection: in_flight.by_key(connection, key))
            if row is not None and row.state == _T.RUNNING:
                raise Violation("one claim", f"{key} is claimed for process {row.pid}, and another one was given it")

    def _check_error(self, outcome: Outcome) -> None:
        if outcome.state is not OutcomeState.FAILED:
            return
        kind = outcome.problem.kind if outcome.problem else ""
        if kind not in self.expected_errors:
            why = outcome.problem.message if outcome.problem else "no reason"
            raise Violation("nothing fails without a cause", f"{outcome.key} failed: {kind}: {why}")

    # -- after each step -------------------------------------------------------------------------------------------

    def has_changed(self, pipeline: Pipeline) -> None:
        """The pipeline's file is another one now."""
        self._pipeline = pipeline

    def check(self) -> None:
        """Look at everything that changed since the last time."""
        self._ledger.follow()
        for change in self._database.observed():
            _CHECKS[change.kind](self, change)
        if self.reports.exits or self.reports.outcomes or self.reports.by_person:
            self.reports = Reports()

    def _check_task(self, change: Observed) -> None:
        old = _T(change.old) if change.old else None
        new = _T(change.new) if change.new else None
        if new is not old:
            if new not in TASK_MOVES[old]:
                raise Violation("legal moves only", f"{_describe(change)}")
            self._check_author(change, old, new)
        if change.failures != change.old_failures:
            self._check_failures(change)
        if new is _T.FAILED and not self.reports.by_person:
            self._check_failed(change)

    def _check_author(self, change: Observed, old: _T | None, new: _T | None) -> None:
        """A move away from an attempt is made by what this very attempt reported, or its executor of it."""
        if old not in (_T.RUNNING, _T.QUEUED) or new is _T.RUNNING or self.reports.by_person:
            return
        key = AttemptKey(change.attempt or "", change.deferral or 0)
        outcome, exit = self.reports.outcomes.get(key), self.reports.exits.get(key)
        if outcome is not None and old is _T.RUNNING and new in _LEADS_TO[outcome.state]:
            return
        if exit is not None and new in (_T.SCHEDULED, _T.UP_FOR_RETRY, _T.FAILED):
            return
        invariant = "success means done" if new is _T.SUCCESS else "fenced"
        raise Violation(invariant, f"{_describe(change)}: nothing that {key} reported says so")

    def _check_failures(self, change: Observed) -> None:
        key = AttemptKey(change.attempt or "", change.deferral or 0)
        outcome, exit = self.reports.outcomes.get(key), self.reports.exits.get(key)
        # a run that began anew too often is given up
        own_fault = outcome is not None and outcome.state in (OutcomeState.FAILED, OutcomeState.RESTARTED)
        own_fault = own_fault or (exit is not None and exit.reason is None and exit.signal is None)
        once = (change.failures or 0) == (change.old_failures or 0) + 1
        # who has come further begins to count anew
        anew = change.failures in ((0, 1) if own_fault else (0,)) and (self.reports.by_person or self._has_saved(key))
        # what is done again from an earlier task on begins to count anew as well
        again = any(each.state is OutcomeState.RESTARTED for each in self.reports.outcomes.values())
        anew = anew or (again and change.failures == 0)
        if not (own_fault and once) and not anew:
            raise Violation("infrastructure consumes no tries", f"{_describe(change)}: {change.failures} failures")

    def _has_saved(self, key: AttemptKey) -> bool:
        """It has said so, or it has not lived to."""
        return key in self._saved or self._ledger.has_save_of(key.attempt_id)

    def _check_failed(self, change: Observed) -> None:
        outcome = self.reports.outcomes.get(AttemptKey(change.attempt or "", change.deferral or 0))
        for_good = outcome is not None and outcome.problem is not None and not outcome.problem.retryable
        if not for_good and (change.failures or 0) <= RETRIES:
            raise Violation("infrastructure consumes no tries", f"{_describe(change)} after {change.failures} failures")

    def _check_run(self, change: Observed) -> None:
        old, new = DagRunState(change.old or ""), DagRunState(change.new or "")
        if new not in RUN_MOVES[old]:
            raise Violation("legal moves only", _describe(change))
        if new is DagRunState.RUNNING:
            self._check_started(change)
        if change.name in self.partly_cleared:
            return
        if new is DagRunState.SUCCESS:
            self._check_success(change)
        if new is DagRunState.FAILED and not self.reports.by_person and "failed" not in self._states(change).values():
            raise Violation("nothing fails without a cause", f"{_describe(change)}: {self._states(change)}")

    def _check_started(self, change: Observed) -> None:
        rows = self._database.rows(
            "SELECT other.state, other.number FROM dag_run JOIN dag_run AS other ON other.dag_id = dag_run.dag_id "
            "WHERE dag_run.id = ? AND (other.state = 'running' OR other.state = 'queued' AND other.run_after <= ?)",
            *(change.id, f"{self._clock.now():%Y-%m-%d %H:%M:%S.%f}"),
        )
        running = [number for state, number in rows if state == "running"]
        if len(running) > MAX_ACTIVE_RUNS:
            raise Violation("max_active_runs", f"{_describe(change)}: runs {running} are running")
        if any(state == "queued" and number < change.run for state, number in rows):
            raise Violation("chain order", f"run {change.run} has started before a queued run with a lower number")

    def _check_success(self, change: Observed) -> None:
        states = self._states(change)
        self._check_successors(change, states)
        if states["samples"] == "skipped":
            return
        if any(states[name] != "success" for name in ("checkpoint", "samples", "train", "commit")):
            raise Violation("success means done", f"{_describe(change)}: {states}")
        if not self._ledger.has_concluded(change.name):
            raise Violation("success means done", f"{_describe(change)}, and nothing of it is in the ledger")

    def _check_successors(self, change: Observed, states: dict[str, str | None]) -> None:
        [(dag_id,)] = self._database.rows("SELECT dag_id FROM dag_run WHERE id = ?", change.id)
        for task in self._pipeline.triggering(dag_id):
            rows = self._database.rows(
                "SELECT count(*) FROM dag_run WHERE parent_id = ? AND parent_task_id = ?", change.id, task.task_id
            )
            # each checkpoint is followed by the next run, and by those of the stages that start from it
            follows = task.task_id.startswith("next_") and task.trigger_rule == "all_success"
            always = task.when is True or follows
            is_due = always and self._ledger.has_committed(change.name) and states["commit"] == "success"
            state = states[task.task_id]
            # one that was cleared may have triggered before
            wrong = rows != [(1,)] if state == "success" else rows not in ([(0,)], [(1,)])
            if wrong or (is_due and state != "success"):
                what = f"{_describe(change)}: {rows[0][0]} runs of {task.task_id}, which is {state}"
                raise Violation("one successor", what)

    def _check_new_run(self, change: Observed) -> None:
        [(parent, task)] = self._database.rows("SELECT parent_id, parent_task_id FROM dag_run WHERE id = ?", change.id)
        if parent is None:
            return
        [(dag_id, name, children)] = self._database.rows(
            "SELECT dag_id, run_id, (SELECT count(*) FROM dag_run WHERE parent_id = ? AND parent_task_id = ?) "
            "FROM dag_run WHERE id = ?",
            *(parent, task, parent),
        )
        if children != 1 or change.name != triggered_run_id(dag_id, name, task):
            raise Violation("one successor", f"run {change.name} is one of {children} successors of {name}")

    def _check_xcom(self, change: Observed) -> None:
        authors = [self.workloads[key].task_id for key in self.reports.outcomes]
        if change.name not in authors:
            raise Violation("fenced", f"an XCom of {change.name} was written by {authors or 'no attempt'}")

    def _states(self, change: Observed) -> dict[str, str | None]:
        rows = self._database.rows("SELECT task_id, state FROM task_instance WHERE dag_run_id = ?", change.id)
        return dict(rows)


_CHECKS: dict[str, Callable[[Invariants, Observed], None]] = {
    "task": Invariants._check_task,
    "run": Invariants._check_run,
    "new run": Invariants._check_new_run,
    "xcom": Invariants._check_xcom,
}


def _describe(change: Observed) -> str:
    return f"{change.kind} {change.name} ({change.id}) goes from {change.old or 'none'} to {change.new or 'none'}"
