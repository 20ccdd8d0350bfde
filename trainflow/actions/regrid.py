"""Have a chain go on with another grid of its samples: what that comes to, and doing it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from trainflow.checkpoints.actions.regrid import Compared, change_of, compare, regrid
from trainflow.checkpoints.ledger.entries import Author, Regrid
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.upkeep.republished import comparable
from trainflow.errors import InputError
from trainflow.samples.grid import grid_of
from trainflow.samples.grid_change import GridChange
from trainflow.samples.inventory import open_inventory
from trainflow.samples.partitions import label, length_label
from trainflow.samples.spec import Samples


class Regridding(msgspec.Struct, frozen=True):
    """How the samples differ from what the chain was trained on; `compared`: where they are somewhere else."""

    head_id: str | None
    change: GridChange
    compared: Compared | None = None
    #: what the table has a folder (or file) for, although no partition of the new grid begins then
    stray: datetime | None = None


def regridding(ledger: Ledger, samples: Samples, root: Path | None, now: datetime) -> Regridding | None:
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
        return Regridding(head_id, change, stray=stray)

    def fingerprints(starts: Sequence[datetime]) -> list[str | None]:
        inventory.states(starts)
        return [inventory.fingerprint(start) for start in starts]

    return Regridding(head_id, change, compare(ledger, fingerprints), stray)


def go_on(ledger: Ledger, found: Regridding, *, by: Author, now: datetime, reason: str) -> Regrid | None:
    """Record it. Raises InputError where it would not be exact, ChainMoved."""
    if found.stray is not None and found.change.fits:
        raise InputError(
            f"chain {ledger.chain} cannot go on with {found.change.new}: there is something for {label(found.stray)}, "
            f"too, inside of a partition of {length_label(found.change.new)}, so it would never be trained on. "
            "Give the samples the length that they are written in"
        )
    return regrid(
        ledger,
        found.change.new,
        expected_head=found.head_id,
        compared=found.compared,
        by=by,
        now=now,
        reason=reason,
    )
