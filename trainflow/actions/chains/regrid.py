"""Have a chain go on with another grid of its samples: what that comes to, and doing it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from trainflow.checkpoints.chain import OfChain
from trainflow.checkpoints.ledger.entries import Author, Regrid
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.rules import change_of
from trainflow.checkpoints.ledger_changes.regrid import RegridComparison, compare
from trainflow.checkpoints.ledger_changes.regrid import regrid as record
from trainflow.checkpoints.upkeep.changed_samples import comparable
from trainflow.errors import InputError
from trainflow.samples.grid import Grid, grid_of
from trainflow.samples.grid_change import GridChange
from trainflow.samples.partitions import label, length_label
from trainflow.samples.spec import Samples
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.inventory import open_inventory
from trainflow.workspace.pipelines import PipelineChain


class GridSummary(msgspec.Struct, frozen=True):
    """Path, start and length of a sample table, as people read them."""

    path: str
    start: datetime
    length: str


class RegridDone(OfChain, frozen=True, kw_only=True):
    """What was recorded, or with `dry_run` would be. `old`, `new`: None where nothing differs; `at`: the end of the
    chain, from which on the new grid holds; `same`, `other`, `missing`: of a table with another path, how many trained
    partitions have the same content there, have another, are not there; `entry`: its number in the ledger,
    None where none was written."""

    dry_run: bool
    old: GridSummary | None = None
    new: GridSummary | None = None
    at: datetime | None = None
    same: int | None = None
    other: int | None = None
    missing: int | None = None
    hole: Hole | None = None
    entry: int | None = None


class GridComparison(msgspec.Struct, frozen=True):
    """How the samples differ from what the chain was trained on; `compared`: where they are somewhere else."""

    head_id: str | None
    change: GridChange
    compared: RegridComparison | None = None
    #: what the table has a folder (or file) for, although no partition of the new grid begins then
    stray: datetime | None = None


class RegridPlan(NamedTuple):
    """How the samples of a chain differ from what it was trained on; `found`: None where nothing matters."""

    chain: PipelineChain
    found: GridComparison | None

    def outcome(self, written: Regrid | None, *, dry_run: bool) -> RegridDone:
        """What people and programs are told of it."""
        if self.found is None:
            return RegridDone(**self.chain.key.names, dry_run=dry_run)
        change, compared = self.found.change, self.found.compared
        return RegridDone(
            **self.chain.key.names,
            dry_run=dry_run,
            old=_described(change.old),
            new=_described(change.new),
            at=change.edge,
            same=compared.same if compared else None,
            other=len(compared.other) if compared else None,
            missing=compared.missing if compared else None,
            hole=change.untrained,
            entry=written.sequence if written else None,
        )


def plan_regrid(chain: PipelineChain, *, now: datetime) -> RegridPlan:
    """Compare the samples as they are now with those that the chain was trained on. Raises SampleUnreadable,
    LedgerCorrupt, StoreFailure, InputError."""
    return RegridPlan(chain, compare_grids(chain.ledger(), chain.existing_samples(), chain.root, now))


def regrid(plan: RegridPlan, *, who: Author, now: datetime, reason: str = "") -> RegridDone:
    """Record it. Raises InputError while a run of the chain goes on and where it would not be exact, ChainMoved."""
    written = None
    if plan.found is not None:
        chain = plan.chain
        _refuse_while_running(chain)
        written = record_regrid(chain.ledger(), plan.found, by=chain.by(who), now=now, reason=reason)
    return plan.outcome(written, dry_run=False)


def _refuse_while_running(chain: PipelineChain) -> None:
    runs = chain.workspace.active_runs(chain.dag_id)
    if runs:
        raise InputError(
            f"run {runs[0]} of {chain.dag_id} has not ended, and keeps the samples that it began with. Nothing was "
            f"recorded; wait for it, or end it with 'trainflow runs cancel {chain.dag_id} {runs[0]}'"
        )


def _described(grid: Grid) -> GridSummary:
    return GridSummary(grid.path, grid.start, length_label(grid))


def compare_grids(ledger: Ledger, samples: Samples, root: Path | None, now: datetime) -> GridComparison | None:
    """What a new grid comes to; None: the chain can go on with it as it is.

    A table that is somewhere else is compared with what was trained. Raises SampleUnreadable, LedgerCorrupt,
    StoreFailure, InputError.
    """
    state = ledger.state()
    change = change_of(state, grid_of(samples))
    if change is None:
        return None
    head_id = state.head.id if state.head else None
    inventory = open_inventory(comparable(samples), root, now)
    stray = inventory.between(change.untrained.start if change.untrained else change.edge) if change.recut else None
    if not change.elsewhere:
        return GridComparison(head_id, change, stray=stray)

    def fingerprints(starts: Sequence[datetime]) -> list[str | None]:
        inventory.states(starts)
        return [inventory.fingerprint(start) for start in starts]

    return GridComparison(head_id, change, compare(ledger, fingerprints), stray)


def record_regrid(ledger: Ledger, found: GridComparison, *, by: Author, now: datetime, reason: str) -> Regrid | None:
    """Record it. Raises InputError where it would not be exact, ChainMoved."""
    if found.stray is not None and found.change.fits:
        raise InputError(
            f"chain {ledger.chain} cannot go on with {found.change.new}: there is something for {label(found.stray)}, "
            f"too, inside of a partition of {length_label(found.change.new)}, so it would never be trained on. "
            "Give the samples the length that they are written in"
        )
    return record(
        ledger,
        found.change.new,
        expected_head=found.head_id,
        compared=found.compared,
        by=by,
        now=now,
        reason=reason,
    )
