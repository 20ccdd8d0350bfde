"""CommitCheckpointOperator: make the trained files the next checkpoint of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from trainflow.authoring.context import Context
from trainflow.checkpoints.gates import Gate, parse_gate
from trainflow.errors import ChainMoved, CheckpointError, FailException, GateFailed, InputError
from trainflow.messages.outcome import CommittedCheckpoint
from trainflow.operators.author import author_of
from trainflow.operators.chain_operator import SplitOperator
from trainflow.operators.handover import is_repair, seconds_since_handover
from trainflow.operators.metrics import metrics_from_xcom
from trainflow.operators.parent import clear_run_scratch
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.commit import CommitRequest
    from trainflow.checkpoints.entries import Checkpoint
    from trainflow.checkpoints.followers import Follower
    from trainflow.checkpoints.ledger import Ledger
    from trainflow.checkpoints.retention import Policy
    from trainflow.operators.head import Head
    from trainflow.samples.split import Split

XCOM_MORE = "more"


class CommitCheckpointOperator(SplitOperator):
    """Commit what TrainOperator trained (`trained`) as the child of the head it was trained from.

    In this order: the head must still be the parent (ChainMoved otherwise: another run was faster, nothing is changed),
    the metrics must pass the `gates`, every file must be as it was trained, and then one ledger entry is created, which
    *is* the commit. A run that was killed anywhere and commits again gets the checkpoint it has committed already.

    `gates` are conditions such as "auc >= 0.6", "auc >= 0.98 * previous", "loss is finite"; `evaluated` (the output of
    an EvaluateOperator) goes before what the trainer says of itself. A gate that refuses fails the task for good: the
    same files would be measured again.

    `retention` (one policy of `trainflow.checkpoints.retention`, or several, of which the union is kept) deletes the
    files of older checkpoints after the commit. A deletion that fails is logged and noted, never an error: the
    checkpoint is committed, and the next commit deletes what is left. `followers` are the stages that start from
    checkpoints of this chain: those that one of them has not passed yet are kept.

    XCom `more` of a stage that starts from a base: whether there is more to start from, so that it triggers itself.

    Returns {"pipeline", "stage", "branch", "id", "sequence", "watermark", "uri"}.
    """

    template_fields: ClassVar[Sequence[str]] = ("checkpoint", "split", "trained", "evaluated")
    ui_color = "#d2f0d4"
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
        gates: Sequence[str] = (),
        retention: Policy | Sequence[Policy] | None = None,
        followers: Sequence[Follower] = (),
        storage_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id=task_id, checkpoint=checkpoint, split=split, storage_options=storage_options, **kwargs)
        if isinstance(gates, str):
            raise InputError(f"task {self.task_id!r}: gates is a list of conditions, not one string")
        self.trained = trained
        self.evaluated = evaluated
        self.gates: tuple[Gate, ...] = tuple(parse_gate(text) for text in gates)
        self.retention: tuple[Policy, ...] = _policies(retention)
        self.followers: tuple[Follower, ...] = tuple(followers)

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns what was committed (see the class)."""
        from trainflow.checkpoints.commit import commit

        ti = context["ti"]
        head = self.head()
        ledger = self.open_ledger(head, ti)
        try:
            checkpoint = commit(ledger.store, self._request(head, ti), ti.clock.now())
        except GateFailed as error:
            ti.set_note(f"refused: {'; '.join(error.failures)}")
            # whoever trains this split again must not go on from what was refused
            self._clear_saves(ledger, head.id, ti, refused=True)
            raise FailException(str(error)) from error
        except ChainMoved as error:
            # its parent will never be the head again, however often this is tried
            raise FailException(str(error)) from error
        if head.base is not None or head.again_before is not None:
            ti.xcom_push(XCOM_MORE, head.goes_on(checkpoint.watermark))
        uri = ledger.store.uri(checkpoint.artifacts.path)
        ti.record_checkpoint(
            CommittedCheckpoint(checkpoint.id, checkpoint.sequence, uri, watermark=checkpoint.watermark)
        )
        ti.set_note(self._note(checkpoint, self._prune(ledger, ti)))
        clear_run_scratch(ti)
        self._clear_saves(ledger, head.id, ti, refused=False)
        return {
            "pipeline": head.pipeline,
            "stage": head.stage,
            "branch": head.branch,
            "id": checkpoint.id,
            "sequence": checkpoint.sequence,
            "watermark": checkpoint.watermark.isoformat(),
            "uri": uri,
        }

    def _request(self, head: Head, ti: TaskInstance) -> CommitRequest:
        from trainflow.checkpoints.commit import CommitRequest
        from trainflow.checkpoints.entries import Artifacts
        from trainflow.checkpoints.summary import summary_of

        trained, split = self._trained(), self.load_split(ti)
        self._check_that_it_is_of(head, split, trained)
        return CommitRequest(
            chain=head.chain,
            parent_id=head.id,
            split=summary_of(split),
            artifacts=msgspec.convert(trained["artifacts"], Artifacts),
            by=author_of(ti),
            metrics=metrics_from_xcom(trained.get("metrics")),
            evaluation=None if self.evaluated is None else metrics_from_xcom(self.evaluated),
            params=trained.get("params") or {},
            gates=self.gates,
            origin=head.origin_of(split.start, split.end),
            fills=is_repair(self.split),
            seconds=seconds_since_handover(self.split, ti.clock.now()),
        )

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
        from trainflow.checkpoints.prune import prune

        try:
            gone = prune(
                ledger, self.retention, by=author_of(ti), now=ti.clock.now(), followers=self.followers
            )
        except Exception as error:
            ti.log.warning("retention could not be applied, the next commit tries again: %s", error)
            return "retention could not be applied"
        return f"{len(gone)} pruned" if gone else None

    def _note(self, checkpoint: Checkpoint, pruned: str | None) -> str:
        note = f"checkpoint {checkpoint.sequence}, trained up to {label(checkpoint.watermark)}"
        return f"{note}; {pruned}" if pruned else note

    def _clear_saves(self, ledger: Ledger, parent_id: str | None, ti: TaskInstance, *, refused: bool) -> None:
        """What attempts saved inside the split is of no use any more. Never raises: the next commit tries again."""
        if not self._trained().get("saves"):
            return
        from trainflow.checkpoints.partials import clear_partials, drop_training

        try:
            if refused:
                drop_training(ledger.store, ledger.chain, parent_id)
            else:
                head = ledger.state().head
                clear_partials(ledger.store, ledger.chain, head.id if head else None)
        except CheckpointError as error:
            ti.log.warning("what was saved inside the split could not be cleared away: %s", error)


def _policies(retention: Policy | Sequence[Policy] | None) -> tuple[Policy, ...]:
    if retention is None:
        return ()
    return tuple(retention) if isinstance(retention, list | tuple) else (retention,)  # type: ignore[return-value]
