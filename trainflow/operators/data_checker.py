"""DataCheckerOperator: what this run trains on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

import msgspec

from trainflow.authoring.context import Context
from trainflow.errors import (
    FailException,
    InputError,
    RescheduleException,
    SampleBucketMissing,
    SampleCheckFailed,
    SampleDamaged,
    SampleGap,
    SamplesRefused,
    SampleUnreadable,
    SkipException,
)
from trainflow.identifiers import triggered_run_id
from trainflow.messages.execution_api import TriggeredRun
from trainflow.observability.redaction import redact_text
from trainflow.operators.chain.chain_operator import ChainOperator, author_of
from trainflow.operators.chain.head import Head, after_skips
from trainflow.operators.chain.notices import lag_after, note_bad_samples
from trainflow.operators.chain.run_conf import CONF_REPAIR, CONF_SKIPPED, REPAIR_FIRST
from trainflow.operators.chain.storage_options import sample_options, with_options, without_options
from trainflow.samples.grid import check_table, grid_of
from trainflow.samples.partitions import after_watermark, label
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.storage.drivers import load_before_fork

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.samples.splits.split import Split
    from trainflow.samples.splits.split_content import Hole
    from trainflow.samples.throughput import PastRun

Mode = Literal["backfill", "latest"]
MODES = ("backfill", "latest")
XCOM_CAUGHT_UP = "caught_up"
#: the head of a chain that is caught up, for the stage that begins then; None: it has none, or waits for its upstream
XCOM_TRAINED = "trained"
#: what the upstream let the stage train on was stepped over, without a split after it
XCOM_STEPPED_OVER = "stepped_over"
#: how often a wait that cannot be handed to the triggerer is tried again, at the most, in seconds
_RESCHEDULE_SECONDS = 5.0


class DataCheckerOperator(ChainOperator):
    """Decide the next split: what comes after the head's watermark, is ready and good, within `limits`.

    When there is nothing to train on now, it depends on why and on `mode`:

    * *Nothing at all*: no checkpoint and not a single partition. `backfill`: the task fails and says what is in the
      folder instead. `latest`: it waits, and its note says that.
    * *Nothing new.* `backfill`: history is caught up; the task ends skipped with the note "caught up …" and XCom
      `caught_up`, so everything after it is skipped and the run is a success. `latest`: it waits for the next
      partition, unless the table has an `end` and the chain has reached it: that ends the run as in a backfill.
    * *The next partition is there and not complete*, or is missing and the gap policy says to wait: it waits, in both
      modes. A person who starts a backfill while the newest partition is being written expects that partition to be in
      it, and one who gave a gap six hours expects it to get them. The note says what it waits for, and until when.
    * *The gap policy says fail*, or a check refuses a partition: the task fails, naming the partition.

    A wait holds no slot: a PartitionTrigger looks every `poke_interval` seconds, and when the wait is over the task
    resumes and decides anew. The trigger's arguments are kept in the database, so it reaches the samples with the
    project's settings and environment only; samples with `storage_options` of their own are looked at by the task
    itself, which gives its slot back in between. `timeout` (seconds or timedelta) bounds one wait; default: none.

    A run whose conf says `{"repair": true}` trains the holes of the chain that have arrived, on top of the head, and
    ends skipped when there is none; what a gate or a person skipped stays out without `"skipped": true`.

    `in_circle`: another stage of a circle waits for this one to pass what the upstream has trained on. Where all of
    that is missing and the gap policy steps over it, the ledger gets a skip at once, and not with the next split, which
    would never come; XCom `stepped_over` is true then.

    Returns the split, inline or - when it is large - by reference into the chain's store; both look the same to the
    operators that receive it.
    """

    template_fields: ClassVar[Sequence[str]] = ("checkpoint",)
    role = "samples"

    def __init__(
        self,
        *,
        task_id: str = "samples",
        samples: Samples,
        checkpoint: Any,
        limits: SplitLimits | None = None,
        mode: Mode = "backfill",
        in_circle: bool = False,
        poke_interval: float | timedelta = 1.0,
        timeout: float | timedelta | None = None,
        storage_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id=task_id, checkpoint=checkpoint, storage_options=storage_options, **kwargs)
        if mode not in MODES:
            raise InputError(f"task {self.task_id!r}: mode={mode!r}; it is one of {', '.join(MODES)}")
        if redact_text(samples.path) != samples.path:
            raise InputError(
                f"task {self.task_id!r}: samples.path {redact_text(samples.path)} has credentials in it, and paths are "
                "recorded with every checkpoint: move them to the environment (TRAINFLOW__SAMPLES__STORAGE_OPTIONS)"
            )
        try:
            check_table(samples)
        except InputError as error:
            raise InputError(f"task {self.task_id!r}: {error}") from None
        self.samples = samples
        self.limits = limits or SplitLimits()
        self.mode = mode
        self.in_circle = in_circle
        self.poke_interval = poke_interval.total_seconds() if isinstance(poke_interval, timedelta) else poke_interval
        self.timeout = timeout
        #: a wait of this attempt was over before
        self._woken = False

    def warm_up(self, project_root: Path) -> None:
        from trainflow.samples.table import readiness
        from trainflow.settings.load import load_settings
        from trainflow.settings.project import project_at

        super().warm_up(project_root)
        settings = load_settings(project_at(project_root))
        load_before_fork(self.samples.path, sample_options(self.samples.storage_options, settings))
        readiness.warm_up(self.samples)

    def chain_facts(self) -> dict[str, Any]:
        return {"samples": without_options(self.samples), "limits": self.limits, "mode": self.mode}

    def execute(self, context: Context) -> dict[str, Any]:
        """Returns the split (see `trainflow.samples.splits.split_xcom`)."""
        from trainflow.samples.splits.gap_policy import Waiting
        from trainflow.samples.splits.next_split import SplitFound, next_split

        ti = context["ti"]
        head = self.head()
        if self.in_circle:
            ti.xcom_push(XCOM_STEPPED_OVER, False)
        reachable = with_options(self.samples, ti.settings)
        conf = context["dag_run"].conf
        if conf.get(CONF_REPAIR):
            return self._repair(ti, head, conf)
        if head.waits is not None:
            self._end(ti, head, head.waits)
        limits = self._limits(ti, head)
        try:
            answer = next_split(
                reachable,
                head.edge,
                limits,
                ti.clock.now(),
                ti.project_root,
                bounds=head.bounds,
                columns=head.columns,
            )
        except (SampleGap, SampleCheckFailed, SampleDamaged) as error:
            note_bad_samples(ti, error)
            raise
        except (SamplesRefused, SampleBucketMissing) as error:
            raise FailException(f"{self.place_of('samples.path', ti)}: {error}") from error
        if isinstance(answer, SplitFound):
            return self._hand_over(ti, head, after_skips(answer.split, head.skips, head.watermark))
        if isinstance(answer, Waiting):
            note = f"waits: {answer.reason}"
            self._wait(ti, answer.partition_start, note, answer.check_again_at, answer.unfinished)
        if self.in_circle and answer.holes:
            self._step_over(ti, head, answer.holes)
        if answer.nothing and self.mode == "backfill":
            ti.set_note(answer.reason)
            raise FailException(
                f"{self.place_of('samples.path', ti)}: {answer.reason}. There is nothing to train on; a pipeline that "
                "is to wait for its first partition says 'mode: latest'"
            )
        if self.mode == "backfill" or answer.finished or answer.bounded:
            self._end(ti, head, answer.reason)
        awaited = answer.wait_for or after_watermark(self.samples, head.edge)
        return self._wait(ti, awaited, f"caught up, waits: {answer.reason}")

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Resume after the wait: decide anew. What the trigger saw is a hint, never the decision."""
        self._woken = True
        return self.execute(context)

    def _step_over(self, ti: TaskInstance, head: Head, holes: Sequence[Hole]) -> None:
        """Record it, once."""
        from trainflow.checkpoints.ledger_changes.rewind import skip

        ledger = self.open_ledger(head, ti)
        edge = ledger.state().edge
        for hole in holes:
            start = hole.start if edge is None else max(hole.start, edge)
            if start < hole.end:
                skip(
                    ledger, start, hole.end,
                    expected_head=head.id, by=author_of(ti), now=ti.clock.now(), reason=hole.reason,
                )  # fmt: skip
        ti.xcom_push(XCOM_STEPPED_OVER, True)

    def _repair(self, ti: TaskInstance, head: Head, conf: dict[str, Any]) -> dict[str, Any]:
        """The next stretch of the chain's holes that has arrived."""
        from trainflow.checkpoints.upkeep.changed_samples import open_holes
        from trainflow.samples.splits.late_partitions import next_repair
        from trainflow.samples.table.inventory import open_inventory

        if head.upstream is not None or head.waits is not None:
            # its newest checkpoint would be one that knows nothing but the hole
            why = f"each run of stage {head.stage} starts from another stage's checkpoint"
            self._end_repair(ti, conf, f"nothing is left to repair: {why}")
        holes = open_holes(self.open_ledger(head, ti).state(), skipped=bool(conf.get(CONF_SKIPPED)))
        seen = open_inventory(with_options(self.samples, ti.settings), ti.project_root, ti.clock.now())
        try:
            split = next_repair(self.samples, holes, self._limits(ti, head), seen, head.columns)
        except SampleUnreadable as error:
            if conf[CONF_REPAIR] != REPAIR_FIRST:
                raise
            # what the chain does of itself does not wait for a hole
            self._end_repair(ti, conf, f"the repair ends with holes that could not be read: {error}")
        if split is None:
            why = "none of its holes has samples that can be trained on" if holes else "the chain has no holes"
            self._end_repair(ti, conf, f"nothing is left to repair: {why}")
        return self._hand_over(ti, head, split, repair=True)

    def _end_repair(self, ti: TaskInstance, conf: dict[str, Any], note: str) -> NoReturn:
        """End a repair of which nothing is left. A run that repaired instead of its own work is followed by one that
        does that."""
        if conf[CONF_REPAIR] == REPAIR_FIRST:
            run_id = triggered_run_id(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
            own = {name: value for name, value in conf.items() if name not in (CONF_REPAIR, CONF_SKIPPED)}
            ti.trigger_dag_run(TriggeredRun(ti.dag_id, run_id, conf=own))
        ti.xcom_push(XCOM_TRAINED, None)  # a stage that begins once this one is caught up does not begin now
        ti.set_note(note)
        raise SkipException(note)

    def _limits(self, ti: TaskInstance, head: Head) -> SplitLimits:
        """The limits, with a target duration turned into a bound by what earlier runs took. The same at every try: it
        depends on the chain up to the head only."""
        if self.limits.target_seconds is None:
            return self.limits
        from trainflow.samples.throughput import limits_for_target

        return limits_for_target(self.limits, self._history(ti, head))

    def _history(self, ti: TaskInstance, head: Head) -> list[PastRun]:
        from trainflow.checkpoints.ledger.ancestors import line_from_head, past_runs

        ledger = self.open_ledger(head, ti)
        return past_runs(line_from_head(ledger, ledger.state()), head.id) if head.id is not None else []

    def _hand_over(self, ti: TaskInstance, head: Head, split: Split, *, repair: bool = False) -> dict[str, Any]:
        from trainflow.samples.splits.split import sentence_about
        from trainflow.samples.splits.split_xcom import split_to_xcom, with_context

        store = self.open_store(head, ti)
        spill = store.uri(head.chain.splits)
        xcom = split_to_xcom(split, spill_url=spill, storage_options=self.store_options(ti), root=ti.project_root)
        ti.set_note(f"repairs {sentence_about(split)}" if repair else sentence_about(split))
        beyond = head.watermark if repair and head.watermark is not None else split.end
        reachable = with_options(self.samples, ti.settings)
        lag = lag_after(beyond, reachable, head.chain, lambda: self._history(ti, head), ti)
        return with_context(xcom, ti.clock.now(), lag, repair=repair, grid=grid_of(self.samples))

    def _end(self, ti: TaskInstance, head: Head, reason: str) -> NoReturn:
        note = f"caught up at {label(head.edge)}: {reason}" if head.edge else f"caught up: {reason}"
        ti.xcom_push(XCOM_CAUGHT_UP, True)
        ti.xcom_push(XCOM_TRAINED, self._trained(ti, head) if head.waits is None else None)
        ti.set_note(note)
        raise SkipException(note)

    def _trained(self, ti: TaskInstance, head: Head) -> dict[str, Any] | None:
        """The checkpoint that a stage begins with once this one is caught up: the head, or what a branch was forked
        from that has nothing more to train."""
        found, number = head.id, head.number
        if found is None and head.candidates:
            from trainflow.checkpoints.ledger.entries import Fork

            start = self.open_ledger(head, ti).state().start
            if isinstance(start, Fork):
                found, number = start.origin.checkpoint_id, start.number
        return None if found is None else {**msgspec.to_builtins(head.chain), "id": found, "number": number}

    def _wait(
        self,
        ti: TaskInstance,
        partition_start: datetime,
        note: str,
        check_again_at: datetime | None = None,
        unfinished: str | None = None,
    ) -> NoReturn:
        from trainflow.operators.triggers.partition import LOOK_AGAIN, PartitionTrigger

        ti.set_note(note)
        ti.log.info("%s", note)
        if self.samples.storage_options:
            pause = max(self.poke_interval, _RESCHEDULE_SECONDS)
            raise RescheduleException(timedelta(seconds=pause))
        now = ti.clock.now()
        self.defer(
            trigger=PartitionTrigger(
                samples=self.samples,
                partition_start=partition_start,
                project_root=ti.project_root,
                poke_interval=self.poke_interval,
                check_again_after=None if check_again_at is None else max((check_again_at - now).total_seconds(), 0.0),
                unfinished=unfinished,
                # what a backfill waits for may be taken away again, and then the chain is caught up
                pause_first=self._woken,
                give_up_after=LOOK_AGAIN.total_seconds() if self.mode == "backfill" else None,
            ),
            method_name="execute_complete",
            timeout=self.timeout,
        )
