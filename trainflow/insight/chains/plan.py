"""What would be trained from the head on, run by run. Asks the rule that the runs ask, and changes nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from trainflow.checkpoints.chain import ChainKey, OfChain
from trainflow.checkpoints.ledger.ancestors import line_from_head, past_runs
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.rules import change_of
from trainflow.checkpoints.upkeep.changed_samples import open_holes
from trainflow.errors import SampleError
from trainflow.insight.chains.next_run import NextRun, adopting, next_run_of
from trainflow.samples.grid import grid_of
from trainflow.samples.grid_change import GridChange, sentence_about
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.gap_policy import TableView
from trainflow.samples.splits.late_partitions import arrived
from trainflow.samples.splits.next_split import CaughtUp, SplitFound, decide
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.inventory import open_inventory
from trainflow.samples.throughput import Throughput, estimate_catch_up, lag_behind, limits_for_target, throughput_of
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain

Outcome = Literal["caught_up", "waiting", "more", "stopped"]


class PlannedSplit(msgspec.Struct, frozen=True, kw_only=True):
    """What one run to come trains on, between `start` and `end` (exclusive). `number` counts the runs from 1."""

    number: int
    start: datetime
    end: datetime
    partitions: int
    rows: int | None
    bytes: int
    estimated_seconds: float | None


class PlannedRun(PlannedSplit, frozen=True, kw_only=True):
    """One run to come, and what it steps over."""

    holes: list[Hole]


class Plan(msgspec.Struct, frozen=True):
    """`outcome` says what comes after the last of `runs`: nothing (`caught_up`), a wait, `more` runs than were asked
    for, or a failure (`stopped`); `reason` says it in a sentence. `estimated_seconds`: None without a history."""

    runs: list[PlannedRun]
    outcome: Outcome
    reason: str
    partitions: int
    rows: int | None
    bytes: int
    estimated_seconds: float | None


class ChainPlan(OfChain, frozen=True, kw_only=True):
    """The plan of one chain, and where it is. `finish_at`: when runs follow each other from now on; `holes_arrived`:
    partitions that were stepped over and are there now; `stopped`: what gates have against the checkpoint that they
    refused."""

    head_number: int
    watermark: datetime | None
    stopped: list[str]
    finish_at: datetime | None = None
    never_catches_up: bool = False
    holes_arrived: int = 0
    runs: list[PlannedRun]
    outcome: Outcome
    reason: str
    partitions: int
    rows: int | None
    bytes: int
    estimated_seconds: float | None


class PipelinePlan(msgspec.Struct, frozen=True):
    """The plans of all chains that were asked for."""

    chains: list[ChainPlan]

    @property
    def fails(self) -> bool:
        """Whether a run of any of them would fail."""
        return any(each.outcome == "stopped" for each in self.chains)


def plan_pipeline(
    file: OpenedPipeline, stage: str | None, branch: str | None, now: datetime, *, most: int
) -> PipelinePlan:
    """The next `most` runs of each chain that is meant, as far as the samples are there now. Raises InputError,
    SampleUnreadable, LedgerCorrupt, StoreFailure."""
    return PipelinePlan([_of_chain(chain, most, now) for chain in file.chosen(stage, branch)])


def _of_chain(chain: PipelineChain, most: int, now: datetime) -> ChainPlan:
    samples, ledger = chain.existing_samples(), chain.ledger()
    state = ledger.state()
    change = change_of(state, grid_of(samples))
    if change is not None:
        return _described(ledger, state.watermark, refused(change, ledger.chain))
    ahead = next_run_of(chain.document, ledger)
    if not ledger.state().sequence and chain.adopt is not None:
        ahead = adopting(ahead, chain.adopt, chain.root, now)
    inventory = open_inventory(samples, chain.root, now)
    history = past_runs(line_from_head(ledger, ledger.state()))
    limits, pace = limits_for_target(chain.document.limits or SplitLimits(), history), throughput_of(history)
    made = plan(samples, limits, ahead, inventory, most=most, pace=pace)
    lag = lag_behind(samples, ahead.watermark, inventory.is_ready, inventory.now)
    seconds = made.estimated_seconds
    return _described(
        ledger,
        ahead.watermark,
        made,
        finish_at=None if seconds is None else inventory.now + timedelta(seconds=round(seconds)),
        never_catches_up=estimate_catch_up(samples, lag.partitions, pace.seconds_a_partition, inventory.now).never,
        holes_arrived=sum(1 for _ in arrived(samples, open_holes(ledger.state()), inventory)),
    )


def _described(ledger: Ledger, watermark: datetime | None, made: Plan, **prospects: Any) -> ChainPlan:
    state = ledger.state()
    return ChainPlan(
        **ledger.chain.names,
        head_number=state.head_number,
        watermark=watermark,
        stopped=state.stopped.reasons if state.stopped else [],
        **prospects,
        **msgspec.structs.asdict(made),
    )


def plan(
    samples: Samples, limits: SplitLimits | None, ahead: NextRun, seen: TableView, *, most: int, pace: Throughput
) -> Plan:
    """The next `most` runs, as far as the samples are there now. Raises InputError for samples that cannot be."""
    runs: list[PlannedRun] = []
    watermark, columns = ahead.begins, ahead.columns
    if ahead.waits is not None:
        return _plan(runs, "waiting", ahead.waits)
    while len(runs) < most:
        try:
            answer = decide(samples, watermark, limits or SplitLimits(), seen, ahead.bounds, columns)
        except SampleError as error:
            return _plan(runs, "stopped", str(error))
        if not isinstance(answer, SplitFound):
            return _plan(runs, "caught_up" if isinstance(answer, CaughtUp) else "waiting", answer.reason)
        split = planned_split(len(runs) + 1, answer.split, pace)
        runs.append(PlannedRun(**msgspec.structs.asdict(split), holes=list(answer.split.holes)))
        watermark, columns = answer.split.end, answer.split.columns
    return _plan(runs, "more", f"only the next {most} runs were looked at")


def refused(change: GridChange, chain: ChainKey) -> Plan:
    """Plan of a chain whose samples are not those that it was trained on: no run until that is decided."""
    return _plan([], "stopped", sentence_about(change, chain.arguments, chain.fork_arguments))


def planned_split(number: int, split: Split, pace: Throughput) -> PlannedSplit:
    """What the run that takes this split comes to."""
    return PlannedSplit(
        number=number,
        start=split.start,
        end=split.end,
        partitions=len(split.partitions),
        rows=split.rows,
        bytes=split.bytes,
        estimated_seconds=pace.estimate(len(split.partitions), split.rows),
    )


def _plan(runs: list[PlannedRun], outcome: Outcome, reason: str) -> Plan:
    rows = [run.rows for run in runs]
    seconds = [run.estimated_seconds for run in runs]
    return Plan(
        runs=runs,
        outcome=outcome,
        reason=reason,
        partitions=sum(run.partitions for run in runs),
        rows=None if None in rows else sum(each for each in rows if each is not None),
        bytes=sum(run.bytes for run in runs),
        estimated_seconds=None if None in seconds else sum(each for each in seconds if each is not None),
    )
