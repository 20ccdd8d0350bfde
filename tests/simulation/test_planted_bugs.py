"""The simulation can fail: for each invariant a bug is planted, and must be found within a few seeds."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from tests.simulation.database import SimulatedDatabase
from tests.simulation.plan import FaultKind as F
from tests.simulation.planted_bug import SIMPLEST, PlantedBug, refuse_no_entry
from tests.simulation.table import LENGTH, START
from tests.simulation.world import World
from trainflow.checkpoints.commit import commit
from trainflow.checkpoints.ledger import ledger_writer
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.errors import LostTransition
from trainflow.execution import task_runner
from trainflow.messages.execution_api import OutcomeState, Start
from trainflow.messages.workload import AttemptKey, ProcessExit
from trainflow.metadata import attempt_claims, attempt_credentials, attempt_outcomes, run_creation
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.queries import (
    attempt_queries,
    in_flight,
    queued_run_queries,
    run_queries,
    task_queries,
)
from trainflow.metadata.retry_policy import RetryCounts, RetryDecision, after_loss
from trainflow.operators import checkpoint, trigger_dagrun
from trainflow.samples.splits import next_split
from trainflow.scheduler import loop, run_decision
from trainflow.states import EXECUTION_STATES, DagRunState, TaskInstanceState

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

#: attempts run on other hosts
REMOTE: dict[str, Any] = {**SIMPLEST, "remote": True}


# -- exactly once, atomic, fenced ------------------------------------------------------------------------------------


def skip_the_parent_check(patch: pytest.MonkeyPatch) -> None:
    """Any attempt may commit on top of anything."""
    patch.setattr(commit, "raise_unless_next", lambda *_: None)
    refuse_no_entry(patch)


def recognise_nothing(patch: pytest.MonkeyPatch) -> None:
    """A commit that is tried again does not find what it has committed."""
    steps = [(name, step if name != "recognise" else _nothing) for name, step in commit.STEPS]
    patch.setattr(commit, "STEPS", steps)


def advance_the_watermark_without_a_commit(patch: pytest.MonkeyPatch) -> None:
    """The commit says that it is done, and has created no entry."""

    def append(self: ledger_writer.Ledger, make: Callable[[ChainState], Any]) -> Any:
        return make(self.state())

    patch.setattr(ledger_writer.Ledger, "append", append)


def look_at_no_file(patch: pytest.MonkeyPatch) -> None:
    """What was damaged after the training is committed."""
    steps = [(name, step if name != "verify_artifacts" else _nothing) for name, step in commit.STEPS]
    patch.setattr(commit, "STEPS", steps)


def train_a_partition_twice(patch: pytest.MonkeyPatch) -> None:
    """A split begins a partition too early, and all believe it."""
    real = next_split.next_split

    def too_early(samples: Any, watermark: Any, *args: Any, **named: Any) -> Any:
        again = watermark is not None and watermark > START
        return real(samples, watermark - LENGTH if again else watermark, *args, **named)

    patch.setattr(next_split, "next_split", too_early)
    patch.setattr(commit, "raise_unless_next", lambda *_: None)
    refuse_no_entry(patch)


# -- guarded, legal moves --------------------------------------------------------------------------------------------


def move_without_a_guard(patch: pytest.MonkeyPatch) -> None:
    """Every message is believed."""

    real_by_key = in_flight.by_key

    def by_attempt_alone(connection: Any, key: Any) -> Any:
        task, attempt = task_queries.TASK, attempt_queries.ATTEMPT
        holder = connection.execute(
            select(task.c.attempt_id, task.c.deferral_number)
            .join(attempt, attempt.c.task_instance_id == task.c.id)
            .where(attempt.c.attempt_id == key.attempt_id)
        ).one_or_none()
        return None if holder is None else real_by_key(connection, AttemptKey(*holder))

    real = task_queries.begin_move

    def begin_move(connection: Any, number: Any, *, leaving: Any, to: Any, key: Any = None, **values: Any) -> Any:
        if number is None:
            number = row.id if (row := by_attempt_alone(connection, key)) is not None else -1
        return real(connection, number, leaving=leaving, to=to, key=None, **values)

    patch.setattr(in_flight, "by_key", by_attempt_alone)
    patch.setattr(in_flight, "ask_by_key", lambda *asked: partial(by_attempt_alone, *asked))
    patch.setattr(task_queries, "begin_move", begin_move)


def schedule_what_has_ended(patch: pytest.MonkeyPatch) -> None:
    """A look at a run starts its finished tasks again."""
    real = run_decision.decide

    def decide(document: Any, tasks: Any, **facts: Any) -> Any:
        decision = real(document, tasks, **facts)
        ended = tuple(task.id for task in tasks if task.state == TaskInstanceState.SUCCESS)
        again = run_decision.TaskMoves(TaskInstanceState.SUCCESS, TaskInstanceState.SCHEDULED, ended)
        return decision._replace(steps=(*decision.steps, again)) if ended else decision

    patch.setattr(loop, "decide", decide)
    patch.setattr(task_queries, "_check_legal", lambda *_: None)


def claim_twice(patch: pytest.MonkeyPatch) -> None:
    """A workload that is delivered twice runs twice."""
    real = task_queries.Move.check

    def check(self: task_queries.Move) -> None:
        try:
            real(self)
        except LostTransition as lost:
            if "not moved to running" not in str(lost):
                raise

    patch.setattr(task_queries.Move, "check", check)


def let_any_copy_inherit_the_claim(patch: pytest.MonkeyPatch) -> None:
    """A second delivery takes the claim from the process that runs the attempt."""
    patch.setattr(attempt_claims, "_is_claimed_for", lambda _row, _request: True)


def claim_for_one_that_is_gone(patch: pytest.MonkeyPatch) -> None:
    """An attempt that was claimed for a process which is gone is given to one that is not told for which."""
    patch.setattr(
        "tests.simulation.worker.claim_of",
        lambda workload, process, host: Start(workload.key, process.pid, process.process_started, host),
    )


def let_any_copy_claim(patch: pytest.MonkeyPatch) -> None:
    """A workload that reaches two hosts runs on both: each of them gets a token, and takes the attempt."""

    def exchange(connection: Any, key: Any, claim_secret: str, token: str) -> None:
        changed = update(attempt_credentials.CREDENTIAL).values(token_hash=attempt_credentials.digest(token))
        connection.execute(changed.where(attempt_credentials.CREDENTIAL.c.attempt_id == key.attempt_id))

    patch.setattr(attempt_credentials, "exchange", exchange)
    claim_twice(patch)


# -- one successor ---------------------------------------------------------------------------------------------------


def name_successors_at_random(patch: pytest.MonkeyPatch) -> None:
    """The successor's run id is another one at each try."""
    patch.setattr(trigger_dagrun, "triggered_run_id", lambda *_: f"operator_triggered__{os.urandom(8).hex()}")


def trigger_nothing(patch: pytest.MonkeyPatch) -> None:
    """The triggered run is forgotten."""
    patch.setattr(run_creation, "trigger", lambda *_: 0)


# -- success means done ----------------------------------------------------------------------------------------------


def believe_exit_codes(patch: pytest.MonkeyPatch) -> None:
    """Exit code 0 is a success."""
    real = ExecutionService.exited

    def exited(self: ExecutionService, key: Any, exit: ProcessExit) -> bool:
        if exit.code == 0:
            with self._database.transaction() as connection:
                row = in_flight.by_key(connection, key)
                if row is not None and row.state == TaskInstanceState.RUNNING:
                    task_queries.move(
                        connection, row.id, leaving={TaskInstanceState.RUNNING}, to=TaskInstanceState.SUCCESS
                    )
        return real(self, key, exit)

    patch.setattr(ExecutionService, "exited", exited)


def end_a_run_too_early(patch: pytest.MonkeyPatch) -> None:
    """A run is over when nothing of it is in the hands of an executor."""

    def end(document: Any, states: Any) -> Any:
        under_way = [state for state in states.values() if state in EXECUTION_STATES]
        return (None, None) if under_way else (DagRunState.SUCCESS, None)

    patch.setattr(run_decision, "_end", end)


def say_that_all_is_done_when_told_to_stop(patch: pytest.MonkeyPatch) -> None:
    """Being told to stop is taken for having finished."""
    patch.setattr(task_runner._Attempt, "_judged", lambda self, _error: self._ended(OutcomeState.SUCCESS))
    patch.setattr(task_runner._Attempt, "outcome", _believed)


def _believed(self: Any, files: Any) -> Any:
    try:
        with self._stop.interrupting():
            return self._executed(files)
    except BaseException as error:
        return self._judged(error)


# -- infrastructure is not your fault --------------------------------------------------------------------------------


def count_losses_as_failures(patch: pytest.MonkeyPatch) -> None:
    """A killed worker consumes a try."""

    def loss(standing: RetryCounts, limit: int) -> RetryDecision:
        return after_loss(standing, limit)._replace(failures=standing.failures + 1)

    patch.setattr(attempt_outcomes.retry_policy, "after_loss", loss)


def give_up_at_the_first_loss(patch: pytest.MonkeyPatch) -> None:
    """A killed worker fails its task."""
    patch.setattr(
        attempt_outcomes.retry_policy,
        "after_loss",
        lambda standing, _limit: RetryDecision(TaskInstanceState.FAILED, standing.failures, 1),
    )


# -- the ledger outlives the database --------------------------------------------------------------------------------


def begin_anew_with_a_new_database(patch: pytest.MonkeyPatch) -> None:
    """Where the chain stands is forgotten with the database."""
    wiped: list[int] = []
    wipe, own = SimulatedDatabase.wipe, checkpoint._own
    patch.setattr(World, "__init__", _then(World.__init__, wiped.clear))

    def noticed(self: SimulatedDatabase) -> None:
        wiped.append(1)
        wipe(self)

    patch.setattr(SimulatedDatabase, "wipe", noticed)

    def nothing_is_known(*given: Any) -> Any:
        head = own(*given)
        return msgspec.structs.replace(head, id=None, watermark=None) if wiped else head

    patch.setattr(checkpoint, "_own", nothing_is_known)


def _then(first: Callable[..., None], second: Callable[[], None]) -> Callable[..., None]:
    def both(*given: Any) -> None:
        first(*given)
        second()

    return both


# -- limits and order ------------------------------------------------------------------------------------------------


def start_every_run(patch: pytest.MonkeyPatch) -> None:
    """`max_active_runs` is ignored."""
    patch.setattr(queued_run_queries, "startable", lambda connection, _now: _queued(connection))


def start_the_newest_run_first(patch: pytest.MonkeyPatch) -> None:
    """Queued runs do not start in the order of the chain."""

    def startable(connection: Any, _now: Any) -> Any:
        return [] if run_queries.running(connection) else _queued(connection)[-1:]

    patch.setattr(queued_run_queries, "startable", startable)


RACES = (F.DELETE_DATABASE, F.CLEAR_RUN, F.STALL, F.REWIND)
LOSSES = (F.CRASH, F.KILL, F.GIVE_UP, F.REBOOT)

PLANTED = [
    PlantedBug(skip_the_parent_check, RACES, {"fenced", "exactly once"}, {**SIMPLEST, "homes": 2}),
    PlantedBug(recognise_nothing, LOSSES, {"nothing fails without a cause"}),
    PlantedBug(advance_the_watermark_without_a_commit, (), {"success means done"}),
    PlantedBug(look_at_no_file, (F.TEAR,), {"atomic"}),
    PlantedBug(train_a_partition_twice, (), {"exactly once"}),
    PlantedBug(move_without_a_guard, (F.GIVE_UP,), {"fenced", "success means done"}),
    PlantedBug(schedule_what_has_ended, (), {"legal moves only"}),
    PlantedBug(claim_twice, (F.DELIVER_TWICE,), {"one claim"}),
    PlantedBug(let_any_copy_inherit_the_claim, (F.DELIVER_TWICE,), {"one claim"}),
    PlantedBug(claim_for_one_that_is_gone, (), {"one claim"}),
    PlantedBug(let_any_copy_claim, (F.DELIVER_TWICE,), {"one claim"}, REMOTE),
    PlantedBug(move_without_a_guard, (F.MESSAGE_LATE,), {"fenced", "success means done"}, REMOTE),
    PlantedBug(name_successors_at_random, (), {"one successor"}),
    PlantedBug(trigger_nothing, (), {"one successor"}),
    PlantedBug(believe_exit_codes, (F.SILENCE,), {"success means done"}),
    PlantedBug(end_a_run_too_early, (), {"success means done"}),
    PlantedBug(count_losses_as_failures, LOSSES, {"infrastructure consumes no tries"}),
    PlantedBug(give_up_at_the_first_loss, LOSSES, {"infrastructure consumes no tries"}),
    PlantedBug(start_every_run, (F.TRIGGER,), {"max_active_runs"}),
    PlantedBug(start_the_newest_run_first, (F.TRIGGER,), {"chain order"}),
    PlantedBug(say_that_all_is_done_when_told_to_stop, (F.PREEMPT,), {"success means done", "one successor"}),
    PlantedBug(begin_anew_with_a_new_database, (F.DELETE_DATABASE,), {"progress"}),
]


@pytest.mark.parametrize("planted", PLANTED, ids=[planted.plant.__name__ for planted in PLANTED])
def test_planted_bug_is_found(planted: PlantedBug, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.assert_found(monkeypatch)


def _nothing(_work: Any) -> None:
    return None


def _queued(connection: Any) -> list[Any]:
    run, columns = run_queries.RUN, queued_run_queries.STARTABLE
    return list(connection.execute(select(*columns).where(run.c.state == DagRunState.QUEUED).order_by(run.c.number)))
