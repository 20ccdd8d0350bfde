"""CommitCheckpointOperator: make the trained files the next checkpoint of the chain."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from trainflow.authoring.context import Context
from trainflow.authoring.xcom_arg import XComArg
from trainflow.checkpoints.commit.gates import Gate, gate_of
from trainflow.checkpoints.ledger_changes.promote import Promote
from trainflow.errors import ChainMoved, ChainStopped, CheckpointError, FailException, LedgerCorrupt, describe
from trainflow.messages.notice import XCOM_MORE
from trainflow.observability.redaction import presentable
from trainflow.operators.chain.chain_operator import SplitOperator, author_of, restart_or_fail, superseded_by
from trainflow.operators.chain.notices import note_gate_stop, note_split_given_up, promotion_notice, push_moved_aliases
from trainflow.operators.chain.parent import clear_run_scratch
from trainflow.operators.training.training_context import metrics_from_xcom
from trainflow.samples.partitions import label
from trainflow.samples.splits.split_xcom import grid_of_xcom, is_repair, seconds_since
from trainflow.states import AFTER_COMMIT, MOST_AHEAD

if TYPE_CHECKING:
    from datetime import datetime

    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.commit.commit import Done
    from trainflow.checkpoints.commit.commit_decision import CommitRequest, NamedMetric
    from trainflow.checkpoints.ledger.entries import Artifacts, Checkpoint, SupersededAttempt
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.stages.init_from import Dependent
    from trainflow.checkpoints.upkeep.retention import Policy
    from trainflow.operators.chain.head import Head
    from trainflow.samples.splits.split import Split

#: the head once this run's split is passed: committed, or stepped over
XCOM_PASSED = "passed"
#: this run's split was stepped over
XCOM_SKIPPED = "skipped"


class CommitCheckpointOperator(SplitOperator):
    """Commit what TrainOperator trained (`trained`) as the child of the head it was trained from.

    In this order: the head must still be the parent (ChainMoved otherwise: another run was faster, nothing is changed),
    the metrics must pass the `gates`, every file must be as it was trained, the samples must be those that were trained
    on (otherwise the split is made again, see TrainOperator), and then one ledger entry is created, which *is* the
    commit. A run that was killed anywhere and commits again gets the checkpoint it has committed already.

    `gates` are conditions such as "auc >= 0.6", "auc >= 0.98 * previous", "loss is finite"; `evaluated` (the output of
    an EvaluateOperator) goes before what the trainer says of itself. What happens when one is not met is for the gate
    to say: `Gate("auc >= 0.6", "skip")` leaves the split out, `Gate(…, "rewind 2")` goes back two checkpoints and
    trains forward again, both with success; a condition alone stops the chain: the task fails for good, and nothing is
    committed until a person has decided (`trainflow resume`).

    `promote` gives the new checkpoint an alias when its metrics are good: `Promote("champion", ("auc >= 0.65",))`.

    `retention` (one policy of `trainflow.checkpoints.upkeep.retention`, or several, of which the union is kept) deletes
    the files of older checkpoints after the commit. A deletion that fails is logged and noted, never an error: the
    checkpoint is committed, and the next commit deletes what is left. `dependents` are the stages that start from
    checkpoints of this chain: those that one of them has not passed yet are kept.

    XComs of a stage that starts from an upstream: `more` says whether there is more to start from, so that it triggers
    itself; `passed` names the head, also when the split was skipped (None: the chain was rewound), and in a circle the
    stage that waits for this one is triggered with it; `skipped` is true when the split was skipped.

    Returns {"pipeline", "stage", "branch", "id", "number", "watermark", "uri", "promoted"}; None when a gate skipped
    the split or rewound the chain (XCom `gate` says which).
    """

    template_fields: ClassVar[Sequence[str]] = ("checkpoint", "split", "trained", "evaluated")
    role = "commit"
    shielded = True

    def __init__(
        self,
        *,
        task_id: str = "commit",
        checkpoint: Any,
        split: Any,
        trained: Any,
        evaluated: Any = None,
        gates: Sequence[str | Gate] = (),
        promote: Promote | Sequence[Promote] = (),
        retention: Policy | Sequence[Policy] | None = None,
        dependents: Sequence[Dependent] = (),
        storage_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id=task_id, checkpoint=checkpoint, split=split, storage_options=storage_options, **kwargs)
        self.trained = trained
        self._trained_by: str | None = trained.operator.task_id if isinstance(trained, XComArg) else None
        self.evaluated = evaluated
        #: once rendered, a task that had nothing to score is like none
        self._has_evaluator = evaluated is not None
        self.gates: tuple[Gate, ...] = tuple(gate_of(gate) for gate in gates)
        self.promote: tuple[Promote, ...] = (promote,) if isinstance(promote, Promote) else tuple(promote)
        self.retention: tuple[Policy, ...] = _policies(retention)
        self.dependents: tuple[Dependent, ...] = tuple(dependents)

    def chain_facts(self) -> dict[str, Any]:
        return {"gates": [gate.require for gate in self.gates]}

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Returns what was committed (see the class)."""
        from trainflow.checkpoints.ledger.entries import Checkpoint, Skip

        ti = context["ti"]
        head = self.head()
        ledger = self.open_ledger(head, ti)
        done = self._commit(ledger, head, ti)
        if isinstance(done, Checkpoint):
            return self._committed(done, ledger, head, ti)
        note_split_given_up(ti, done)
        push_moved_aliases(ledger, ledger.state(), ti)
        # a split that was stepped over is passed, which counts where the upstream says how far to go; else there is
        # more
        self._push_more(head, done.end if isinstance(done, Skip) and head.bounded else None, ti)
        skipped = isinstance(done, Skip)
        self._push_passed(head, (head.id, head.number) if skipped else None, ti, skipped=skipped)
        clear_run_scratch(ti)
        self._clear_saves(ledger, head.id, ti, refused=True)
        return None

    def _commit(self, ledger: Ledger, head: Head, ti: TaskInstance) -> Done:
        from trainflow.checkpoints.commit.commit import commit
        from trainflow.samples.files.file_binding import changes

        split = self.load_split(ti)
        request = self._request(head, split, ti)
        try:
            return commit(ledger, request, ti.clock.now(), check_samples=lambda: self.check(changes(split)))
        except ChainStopped as error:
            stop = ledger.state().stopped
            if stop is not None:
                note_gate_stop(ti, ledger.chain, stop)
            # an attempt that trains this split again must not go on from what was refused
            self._clear_saves(ledger, head.id, ti, refused=True)
            raise FailException(str(error)) from error
        except ChainMoved as error:
            # its parent will never be the head again, however often this is tried
            raise FailException(str(error)) from error

    def _committed(self, checkpoint: Checkpoint, ledger: Ledger, head: Head, ti: TaskInstance) -> dict[str, Any]:
        self._push_more(head, checkpoint.watermark, ti)
        self._push_passed(head, (checkpoint.id, checkpoint.number), ti)
        uri = ledger.store.uri(checkpoint.artifacts.path)
        known = ledger.state().recently(checkpoint.id)
        promoted = self._promoted(checkpoint, uri, ledger, head, ti)
        ti.set_note(self._note(checkpoint, promoted, self._prune(ledger, ti)))
        clear_run_scratch(ti)
        self._clear_saves(ledger, head.id, ti, refused=False)
        self._clear_splits(ledger, ti)
        return {
            "pipeline": head.pipeline,
            "stage": head.stage,
            "branch": head.branch,
            "id": checkpoint.id,
            "number": checkpoint.number,
            "partitions": known.partitions if known is not None else 0,
            "watermark": checkpoint.watermark.isoformat(),
            "uri": uri,
            "promoted": promoted,
        }

    @staticmethod
    def _push_more(head: Head, trained: datetime | None, ti: TaskInstance) -> None:
        if head.upstream is not None or head.retrigger_before is not None:
            ti.xcom_push(XCOM_MORE, trained is None or head.retriggers_at(trained))

    @staticmethod
    def _push_passed(
        head: Head, newest: tuple[str | None, int] | None, ti: TaskInstance, *, skipped: bool = False
    ) -> None:
        if head.upstream is not None or head.retrigger_before is not None:
            named = newest and {**msgspec.to_builtins(head.chain), "id": newest[0], "number": newest[1]}
            ti.xcom_push(XCOM_PASSED, named)
            ti.xcom_push(XCOM_SKIPPED, skipped)

    def _promoted(self, checkpoint: Checkpoint, uri: str, ledger: Ledger, head: Head, ti: TaskInstance) -> list[str]:
        """The aliases that the checkpoint has got; a notice tells of each."""
        if not self.promote:
            return []
        aliases = sorted(alias for alias, name in ledger.state().promoted.items() if name == checkpoint.id)
        for alias in aliases:
            ti.notify(promotion_notice(head.chain, checkpoint, alias, uri, dag_id=ti.dag_id, run_id=ti.run_id))
        return aliases

    def _request(self, head: Head, split: Split, ti: TaskInstance) -> CommitRequest:
        from trainflow.checkpoints.commit.commit_decision import CommitRequest, summary_of

        trained = self._trained()
        self._check_that_it_is_of(head, split, trained)
        return CommitRequest(
            chain=head.chain,
            parent_id=head.id,
            split=summary_of(split),
            artifacts=self._artifacts(trained),
            by=author_of(ti),
            metrics=metrics_from_xcom(trained.get("metrics")),
            evaluation=None if self.evaluated is None else metrics_from_xcom(self.evaluated),
            evaluated=self._has_evaluator,
            params=trained.get("params") or {},
            gates=self.gates,
            promotes=self.promote,
            named=self._named_metrics(ti),
            origin=head.origin_of(split.start, split.end),
            upstream=head.seen,
            generation=head.generation,
            fills=is_repair(self.split),
            seconds=seconds_since(self.split, ti.clock.now()),
            grid=grid_of_xcom(self.split),
            superseded=self._superseded(trained, ti),
        )

    def _artifacts(self, trained: Mapping[str, Any]) -> Artifacts:
        from trainflow.checkpoints.ledger.entries import Artifacts

        try:
            return msgspec.convert(trained["artifacts"], Artifacts)
        except msgspec.ValidationError as error:
            why = f"what was trained was handed over by another version of trainflow, and cannot be read ({error})"
            raise restart_or_fail(why, self._trained_by) from None

    @staticmethod
    def _superseded(trained: Mapping[str, Any], ti: TaskInstance) -> tuple[SupersededAttempt, ...]:
        """The attempts at training and commit that others took the place of: not the one whose files these are, which
        may have ended its training before it was lost."""
        from trainflow.checkpoints.ledger.entries import SupersededAttempt

        at_training = msgspec.convert(trained.get("superseded") or [], list[SupersededAttempt])
        owner = trained["artifacts"]["path"].rpartition("/")[2]
        return tuple(each for each in (*at_training, *superseded_by(ti)) if each.attempt_id != owner)

    def _named_metrics(self, ti: TaskInstance) -> tuple[NamedMetric, ...]:
        from trainflow.checkpoints.commit.commit_decision import named_metrics

        found = named_metrics(self.gates, self.promote, self.retention)
        return tuple(msgspec.structs.replace(each, place=self.place_of(each.key, ti)) for each in found)

    def _trained(self) -> dict[str, Any]:
        if not isinstance(self.trained, dict) or "artifacts" not in self.trained:
            raise FailException(
                f"task {self.task_id!r}: 'trained' is not what a TrainOperator hands over: "
                "give it the output of that task"
            )
        return self.trained

    def _check_that_it_is_of(self, head: Head, split: Split, trained: dict[str, Any]) -> None:
        """Tasks of a run can be cleared one by one: the ledger must not say of one training what is true of another."""
        origin = msgspec.to_builtins(head.origin_of(split.start, split.end))
        expected = {"parent": head.id, "origin": origin, "split": split.digest}
        if any(trained.get(name, value) != value for name, value in expected.items()):
            raise FailException(
                f"task {self.task_id!r}: what was trained is not of this split and this parent: an earlier task of the "
                "run was run again and the training was not. Nothing was committed; clear the whole run"
            )

    def _prune(self, ledger: Ledger, ti: TaskInstance) -> str | None:
        """Apply the retention. Returns a clause for the note; never raises: the commit has happened."""
        if not self.retention:
            return None
        from trainflow.checkpoints.ledger_changes.prune import prune
        from trainflow.checkpoints.upkeep.retention import KeepLatest

        # what tasks after the commit work on, this run's and those of runs that are still at it
        tails = any(task.role == AFTER_COMMIT for task in self.dag.tasks)
        kept = (*self.retention, KeepLatest(MOST_AHEAD + 1)) if tails else self.retention

        try:
            gone = prune(ledger, kept, by=author_of(ti), now=ti.clock.now(), dependents=self.dependents)
        except Exception as error:  # whatever it is, the checkpoint is committed, and the chain goes on
            if isinstance(error, LedgerCorrupt) and error.location.startswith(ledger.store.uri(ledger.chain.ledger)):
                # its own, and not that of a chain that goes on from it: the next run would tell it no sooner
                raise
            ti.log.warning("retention could not be applied, the next commit tries again: %s", error, exc_info=error)
            return f"retention could not be applied: {presentable(describe(error), 200)}"
        return f"{len(gone)} pruned" if gone else None

    def _note(self, checkpoint: Checkpoint, promoted: Sequence[str], pruned: str | None) -> str:
        note = f"checkpoint {checkpoint.number}, trained up to {label(checkpoint.watermark)}"
        aliases = f"promoted to {', '.join(promoted)}" if promoted else None
        return "; ".join(filter(None, (note, aliases, pruned)))

    def _clear_splits(self, ledger: Ledger, ti: TaskInstance) -> None:
        """Splits in files, of runs that are over. Never raises: the next commit tries again."""
        if "uri" not in self.split:
            return
        from trainflow.checkpoints.upkeep.garbage import clear_splits

        try:
            clear_splits(ledger, ti.clock.now())
        except CheckpointError as error:
            ti.log.warning("splits of earlier runs could not be deleted, the next commit tries again: %s", error)

    def _clear_saves(self, ledger: Ledger, parent_id: str | None, ti: TaskInstance, *, refused: bool) -> None:
        """What attempts saved inside the split is of no use any more. Never raises: the next commit tries again."""
        local = self._trained().get("local_saves")
        if local:
            shutil.rmtree(ti.home.local_saves / str(local).rpartition("/")[2], ignore_errors=True)
        if not self._trained().get("saves"):
            return
        from trainflow.checkpoints.saves.intermediate_saves import clear_saves, drop_training

        try:
            if refused:
                drop_training(ledger.store, ledger.chain, parent_id)
            else:
                head = ledger.state().head
                clear_saves(ledger.store, ledger.chain, head.id if head else None)
        except CheckpointError as error:
            ti.log.warning("what was saved inside the split could not be cleared away: %s", error)


def _policies(retention: Policy | Sequence[Policy] | None) -> tuple[Policy, ...]:
    if retention is None:
        return ()
    return tuple(retention) if isinstance(retention, list | tuple) else (retention,)  # type: ignore[return-value]
