"""CheckpointOperator: where the chain stands, and what its next run starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from trainflow.authoring.context import Context
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.xcom_arg import XComArg, holds_xcom_arg
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Fork
from trainflow.errors import FailException, InputError, StoreDenied, StoreMissing, StoreNotExclusive
from trainflow.messages.notice import XCOM_LATE_DATA
from trainflow.operators.chain.automatic_rewinds import check_late_data, observe_upstream, rewind_after_upstream
from trainflow.operators.chain.chain_operator import author_of
from trainflow.operators.chain.head import Head, head_to_xcom
from trainflow.operators.chain.notices import note_gate_stop, promotion_notice, push_moved_aliases
from trainflow.operators.chain.run_conf import CONF_INIT_FROM
from trainflow.operators.chain.start_weights import (
    adopt_checkpoint,
    first_start,
    parse_init_from,
    parse_pin,
    with_fork_point,
    with_upstream,
)
from trainflow.operators.chain.storage_options import (
    checkpoint_options,
    open_chain_store,
    probe_store,
    store_url,
)
from trainflow.samples.grid import grid_of
from trainflow.samples.partitions import label
from trainflow.samples.spec import Samples
from trainflow.storage.drivers import check_no_credentials, load_before_fork
from trainflow.storage.exclusive_creation import check_kind

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.ledger_writer import Ledger
    from trainflow.checkpoints.ledger.state import ChainState
    from trainflow.checkpoints.ledger_changes.import_spec import Adopt
    from trainflow.checkpoints.stages.init_from import InitFrom, Pin
    from trainflow.storage.store import Store

#: the checkpoint of the upstream that the run was told of, or found: what the stage hands on when it triggers itself
#: again
XCOM_PIN = "pin"


class CheckpointOperator(BaseOperator):
    """Read the head of a chain from its ledger, and hand it to the tasks that train on from there.

    The chain is `pipeline` (default: the DAG's id), `stage` and `branch`, in the checkpoint store `store` (default: the
    project's; an fsspec URL, or a path relative to the project). `storage_options` are for that store, on top of the
    project's; the operators that receive this one's output use them too.

    `init_from` says that the weights come from another chain in the same store, the *upstream*:

    * `{"stage": "base"}`: each run starts from the upstream's next checkpoint that has trained more than this chain,
    and
      trains on what lies between (`at: same_watermark`). With `"feedback": True` the upstream comes after this stage in
      a circle, and each run starts from the upstream's checkpoint at this chain's own watermark; where the upstream has
      skipped the split that led there, from the one before, or from this chain's own while the upstream has none. In a
      circle of more stages `"through": ["b", …]` names those behind the upstream, in turn: what they step over it
      cannot make up for.
    * `{"stage": "base", "at": "latest"}` or `"promoted"`: each run starts from the upstream's newest (promoted)
    checkpoint. * with `"once": True` only the first run does; the chain then goes on from its own checkpoints. *
    `"pipeline/stage/branch"` (that chain's head) or `"pipeline/stage/branch@checkpoint"`: once, from that one.
      Another branch of the same stage goes on at that checkpoint's watermark; another stage begins with the first of
      its own samples.

    The run's conf may name a checkpoint too (`{"init_from": …}`, text as above or what a CommitCheckpointOperator
    returned): nothing of the upstream that is newer than that is used. The XCom `pin` is what to hand on in the conf of
    the run that this DAG triggers of itself. When there is nothing to start from yet, the samples task ends the run.

    `adopt`: a chain without entries begins with a checkpoint that trainflow did not write, the newest (or the one
    named) in a folder of dated ones. The ledger's first entry says which, with the digest of every file; the first run
    trains on from it and from its watermark on. Such a folder is only ever read.

    Where the upstream was rewound to before what this chain was trained from, this chain goes back, too, before
    anything else: to before its first checkpoint that came from what was undone.

    Before the first entry of a chain the store is tried: one that cannot create a file only if it is absent is refused.

    The ledger is read anew at every try: it is the truth, and nothing else knows what the newest checkpoint is.
    """

    template_fields: ClassVar[Sequence[str]] = ("pipeline", "stage", "branch", "store", "init_from")
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
        init_from: Any = None,
        adopt: Adopt | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id=task_id, **kwargs)
        self.pipeline = pipeline
        self.stage = stage
        self.branch = branch
        self.store = _possible(store)
        self.storage_options = storage_options
        self.init_from = init_from
        self.adopt = adopt
        if adopt is not None and init_from:
            raise InputError(f"task {self.task_id!r}: give 'adopt' or 'init_from': a chain begins with one of them")

    def warm_up(self, project_root: Path) -> None:
        from trainflow.settings.load import load_settings
        from trainflow.settings.project import project_at

        super().warm_up(project_root)
        settings = load_settings(project_at(project_root))
        # all tasks of the chain use that store
        load_before_fork(self.store or settings.checkpoints.store, checkpoint_options(self.storage_options, settings))

    def chain_facts(self) -> dict[str, Any]:
        pipeline = self.pipeline or self.dag_id
        facts: dict[str, Any] = {"pipeline": pipeline, "stage": self.stage, "branch": self.branch}
        facts["store"] = self.store
        if self.adopt is not None:
            facts["adopt"] = msgspec.structs.replace(self.adopt, storage_options={})
        written = [pipeline, self.stage, self.branch, *_texts(self.init_from)]
        if not self.init_from or holds_xcom_arg(self.init_from) or any("{" in text for text in written):
            return facts  # known only when a run renders it
        init = parse_init_from(self.init_from, ChainKey(pipeline, self.stage, self.branch))
        return {**facts, "init_from": msgspec.to_builtins(init)}

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns the head (see `trainflow.operators.chain.head`)."""
        try:
            return head_to_xcom(self._head(context))
        except (StoreNotExclusive, StoreMissing, InputError) as error:
            # neither will be another one at the next try
            raise FailException(str(error)) from error

    def _probe(self, store: Store, url: str, ti: TaskInstance) -> None:
        """Try the store. Who begins a chain is told at once what it does not allow, and not after all retries."""
        try:
            probe_store(store, url, self.storage_options, ti)
        except StoreDenied as error:
            raise FailException(str(error)) from error

    def _head(self, context: Context) -> Head:
        from trainflow.checkpoints.commit.commit_decision import stopped_error
        from trainflow.checkpoints.ledger.ledger_writer import Ledger
        from trainflow.checkpoints.ledger.missing_checkpoints import raise_if_short
        from trainflow.checkpoints.ledger_changes.regrid import refuse_change

        ti = context["ti"]
        chain = ChainKey(self.pipeline or ti.dag_id, self.stage, self.branch)
        url = store_url(self.store, ti.settings)
        store = open_chain_store(
            url, given=self.storage_options, settings=ti.settings, root=ti.project_root, home=ti.home
        )
        ledger = Ledger(store, chain, of_one_task=True)
        raise_if_short(ledger)
        if ledger.state().sequence == 0:
            self._probe(store, url, ti)
            if self.adopt is not None:
                adopt_checkpoint(ledger, self.adopt, ti)
        if (stop := ledger.state().stopped) is not None:
            note_gate_stop(ti, chain, stop)
            raise FailException(str(stopped_error(ledger, stop)))
        self._promote_what_was_left_out(ledger, ti)
        declared = parse_init_from(self.init_from, chain) if self.init_from else None
        seen = observe_upstream(ledger, declared)
        back, samples = rewind_after_upstream(ledger, ti), self._samples()
        if samples is not None:
            refuse_change(ledger, grid_of(samples))
        changed = "; ".join(filter(None, (back, "" if samples is None else check_late_data(ledger, samples, ti))))
        if changed:
            ti.xcom_push(XCOM_LATE_DATA, changed)
            if samples is not None:
                # going back may have taken back what was recorded of its grid
                refuse_change(ledger, grid_of(samples))
        state = ledger.state()
        push_moved_aliases(ledger, state, ti)
        pinned = context["dag_run"].conf.get(CONF_INIT_FROM)
        head = msgspec.structs.replace(_own(chain, url, ledger, state), seen=seen, **_looked_at(ledger))
        head = self._with_base(head, declared, parse_pin(pinned) if pinned else None, ledger)
        if self.init_from or pinned:
            ti.xcom_push(XCOM_PIN, pinned or _found(head))
        ti.set_note(f"{_note(head)}; {changed}" if changed else _note(head))
        return head

    def _promote_what_was_left_out(self, ledger: Ledger, ti: TaskInstance) -> None:
        """What the commit of this chain promotes, if the last one was killed before it did."""
        from trainflow.operators.commit import CommitCheckpointOperator

        commits = [task for task in self.dag.tasks if isinstance(task, CommitCheckpointOperator)]
        of_this = [
            promote
            for task in commits
            if isinstance(task.checkpoint, XComArg) and task.checkpoint.operator.task_id == self.task_id
            for promote in task.promote
        ]
        if not of_this:
            return
        from trainflow.checkpoints.ledger_changes.promote import promote_what_was_left_out

        for alias in promote_what_was_left_out(ledger, of_this, by=author_of(ti), now=ti.clock.now()):
            made = ledger.checkpoint()
            uri = ledger.store.uri(made.artifacts.path)
            ti.notify(promotion_notice(ledger.chain, made, alias, uri, dag_id=ti.dag_id, run_id=ti.run_id))

    def _with_base(self, head: Head, declared: InitFrom | None, pin: Pin | None, ledger: Ledger) -> Head:
        from trainflow.checkpoints.stages.dependents import add_dependent
        from trainflow.checkpoints.stages.init_from import Dependent

        if declared is None and pin is None:
            return head
        init = declared or parse_init_from(pin, head.chain)
        if declared is not None and declared.checkpoint_id is None and declared.chain.pipeline != head.pipeline:
            # the upstream's own file does not know of this stage
            add_dependent(ledger.store, declared.chain, Dependent(head.chain, declared.at, declared.once))
        if pin is not None and pin.chain != init.chain:
            raise FailException(f"conf names a checkpoint of {pin.chain}, and this stage starts from {init.chain}")
        if init.once and (head.id is not None or head.candidates):
            again = declared is not None and pin is not None
            return msgspec.structs.replace(head, waits="it has begun, and triggers itself") if again else head
        if init.once and pin is None:
            pin = first_start(ledger, init)
        return with_upstream(head, init, ledger, pin, self._samples())

    def _samples(self) -> Samples | None:
        """The sample table of the DAG."""
        tables = (getattr(task, "samples", None) for task in self.dag.tasks)
        return next((table for table in tables if isinstance(table, Samples)), None)


def _own(chain: ChainKey, url: str, ledger: Ledger, state: ChainState) -> Head:
    """Where the chain itself stands."""
    newest = state.head
    head = Head(
        pipeline=chain.pipeline,
        stage=chain.stage,
        branch=chain.branch,
        store=url,
        id=newest.id if newest else None,
        number=state.head_number,
        watermark=state.watermark,
        uri=ledger.store.uri(newest.artifacts.path) if newest else None,
        metrics=newest.metrics if newest else {},
        generation=state.generation,
        columns=newest.split.columns if newest else (),
        skips=state.skips,
        entry=state.head_sequence,
        digest=_digest_of_head(state),
    )
    return with_fork_point(head, state.start) if newest is None and isinstance(state.start, Fork) else head


def _digest_of_head(state: ChainState) -> str:
    line = state.recently(state.head.id) if state.head is not None else None
    return "" if line is None else line.digest


def _looked_at(ledger: Ledger) -> dict[str, Any]:
    """What the look at the chain has shown, for the tasks that follow: only a commit looks again."""
    seen, chain = ledger.last_listing, ledger.chain
    names = None if seen is None else tuple(sorted({path.partition("/")[0] for path in seen.below(chain.partials)}))
    return {"trainings": names, "has_few_files": ledger.has_few_files}


def _found(head: Head) -> dict[str, Any] | None:
    """The newest checkpoint of the upstream there was, for who triggers itself. Another pipeline's commits trigger
    nothing here, so what it commits meanwhile is found at each run."""
    if head.last is None or head.upstream is None or head.upstream.pipeline != head.pipeline:
        return None
    last = msgspec.structs.replace(head.last, chain=None)
    return {**msgspec.to_builtins(head.upstream), **msgspec.to_builtins(last)}


def _note(head: Head) -> str:
    own = "none yet" if head.watermark is None else f"none yet, begins at {label(head.watermark)}"
    if head.id is not None and head.watermark is not None:
        own = f"checkpoint {head.number}, trained up to {label(head.watermark)}"
    if head.waits:
        return f"{own}; {head.waits}"
    if not head.candidates:
        return own
    first, last = head.candidates[0], head.candidates[-1]
    if last.entry == 0:
        where = f"checkpoint {last.number or last.id} of {last.chain or head.upstream}"
        return f"{own}, starts from {where}, where the branch was forked"
    which = f"checkpoint {first.number}" if first.entry else "where it was forked"
    return f"{own}, starts from {which}{f' to {last.number}' if first != last else ''} of {head.upstream}"


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [each for each in dict(value or {}).values() if isinstance(each, str)]


def _possible(store: str | None) -> str | None:
    """The store. Raises InputError for a kind that cannot be one: that is said when the pipeline is read."""
    if isinstance(store, str) and "{{" not in store:
        check_no_credentials(store)
        try:
            check_kind(store)
        except StoreNotExclusive as error:
            raise InputError(str(error)) from None
    return store
