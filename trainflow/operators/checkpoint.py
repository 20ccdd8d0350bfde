"""CheckpointOperator: where the chain stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from trainflow.authoring.context import Context
from trainflow.authoring.operator import BaseOperator
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.store import check_kind
from trainflow.errors import FailException, InputError, StoreNotExclusive
from trainflow.operators.head import Head, head_to_xcom
from trainflow.operators.late_data import look_back
from trainflow.operators.start_from import is_fork, origin_of, parse_start_from
from trainflow.operators.storage import open_chain_store, store_url
from trainflow.samples.partitions import label
from trainflow.samples.spec import Samples

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.store import Store


class CheckpointOperator(BaseOperator):
    """Read the head of a chain from its ledger, and hand it to the tasks that train on from there.

    The chain is `pipeline` (default: the DAG's id), `stage` and `branch`, in the checkpoint store `store` (default: the
    project's; an fsspec URL, or a path relative to the project). `storage_options` are for that store, on top of the
    project's; the operators that receive this one's output use them too.

    A chain that has no checkpoint yet may start from one of another chain in the same store: `start_from` is
    `"pipeline/stage/branch"` (its head), `"pipeline/stage/branch@checkpoint"`, or the output of the CheckpointOperator
    or CommitCheckpointOperator of that chain; the run's conf may say it too (`{"start_from": …}`). Another branch of
    the same stage goes on at that checkpoint's watermark; another stage begins with the first of its own samples.

    Before the first entry of a chain the store is tried: one that cannot create a file only if it is absent is refused.

    The ledger is read anew at every try: it is the truth, and nothing else knows what the newest checkpoint is.
    """

    template_fields: ClassVar[Sequence[str]] = ("pipeline", "stage", "branch", "store", "start_from")
    ui_color = "#dbe9ff"
    role = "checkpoint"

    def __init__(
        self,
        *,
        task_id: str = "checkpoint",
        pipeline: str | None = None,
        stage: str = "main",
        branch: str = "main",
        store: str | None = None,
        storage_options: dict[str, Any] | None = None,
        start_from: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id=task_id, **kwargs)
        self.pipeline = pipeline
        self.stage = stage
        self.branch = branch
        self.store = _possible(store)
        self.storage_options = storage_options
        self.start_from = start_from

    def chain_facts(self) -> dict[str, Any]:
        chain = {"stage": self.stage, "branch": self.branch, "store": self.store}
        return {"pipeline": self.pipeline or self.dag_id, **chain}

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns the head (see `trainflow.operators.head`)."""
        try:
            return self._head(context)
        except StoreNotExclusive as error:
            # it will not learn to before the next try
            raise FailException(str(error)) from error

    def _head(self, context: Context) -> dict[str, Any]:
        from trainflow.checkpoints.ledger import Ledger

        ti = context["ti"]
        chain = ChainKey(self.pipeline or ti.dag_id, self.stage, self.branch)
        url = store_url(self.store, ti.settings)
        store = open_chain_store(url, given=self.storage_options, settings=ti.settings, root=ti.project_root)
        ledger = Ledger(store, chain)
        if ledger.state().sequence == 0:
            store.probe()
        samples = self._samples()
        changed = "" if samples is None else look_back(ledger, samples, ti)
        state = ledger.state()
        if state.head is None and (start := self.start_from or context["dag_run"].conf.get("start_from")):
            return head_to_xcom(self._started_from(start, chain, store, url, ti))
        newest = state.head
        note = f"checkpoint {newest.sequence}, trained up to {label(newest.watermark)}" if newest else "none yet"
        ti.set_note(f"{note}; {changed}" if changed else note)
        return head_to_xcom(
            Head(
                pipeline=chain.pipeline,
                stage=chain.stage,
                branch=chain.branch,
                store=url,
                id=newest.id if newest else None,
                sequence=state.head_sequence,
                watermark=state.watermark,
                uri=store.uri(newest.artifacts.path) if newest else None,
                metrics=newest.metrics if newest else {},
            )
        )

    def _samples(self) -> Samples | None:
        """The sample table of the DAG."""
        tables = (getattr(task, "samples", None) for task in self.dag.tasks)
        return next((table for table in tables if isinstance(table, Samples)), None)

    def _started_from(self, start: Any, chain: ChainKey, store: Store, url: str, ti: TaskInstance) -> Head:
        origin, checkpoint = origin_of(parse_start_from(start), store, chain)
        ti.set_note(f"none yet, starts from checkpoint {checkpoint.sequence} of {origin.chain}")
        return Head(
            pipeline=chain.pipeline,
            stage=chain.stage,
            branch=chain.branch,
            store=url,
            id=None,
            sequence=0,
            watermark=checkpoint.watermark if is_fork(origin, chain) else None,
            origin=origin,
        )


def _possible(store: str | None) -> str | None:
    """The store. Raises InputError for a kind that cannot be one: that is said when the pipeline is read."""
    if isinstance(store, str) and "{{" not in store:
        try:
            check_kind(store)
        except StoreNotExclusive as error:
            raise InputError(str(error)) from None
    return store
