"""What the next run of a chain finds: where it begins, how far it may go, and whether its base lets it go at all.

The rule is that of the runs themselves, asked of the ledgers, so it holds where no database is left.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from trainflow.checkpoints.actions.import_external import find
from trainflow.checkpoints.actions.import_spec import Adopt
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.stages.init_from import InitFrom
from trainflow.checkpoints.stages.start_checkpoint import (
    StartFromOwn,
    StartRefused,
    WaitForUpstream,
    read_upstream_chain,
)
from trainflow.checkpoints.stages.upstream_rewinds import state_after_rewind
from trainflow.errors import CheckpointNotFound
from trainflow.operators.init_from import is_fork
from trainflow.operators.start_weights import choose_for
from trainflow.serialization.document import ChainDocument


class NextRun(msgspec.Struct, frozen=True):
    """`watermark`: where the next split begins (None: with the first partition). `bounds`: see
    `trainflow.samples.next_split`. `waits`: why there is nothing to start from. `pin`: the newest checkpoint of the
    base, as a run's conf names it."""

    watermark: datetime | None
    #: the end of what was skipped after the head; None: nothing was
    edge: datetime | None = None
    bounds: tuple[datetime, ...] = ()
    waits: str | None = None
    pin: dict[str, Any] | None = None
    #: a stage that starts from its base once has a checkpoint of its own
    begun: bool = False
    #: the run that committed that checkpoint
    pinned_run: str | None = None
    #: the chain stands on what its base has undone: before anything else it goes back
    goes_back: bool = False
    #: of the split that the chain was trained on last, see `trainflow.samples.split`
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def begins(self) -> datetime | None:
        """Where the next run begins to look for samples."""
        return self.edge if self.edge is not None else self.watermark


def adopting(ahead: NextRun, adopt: Adopt, root: Path, now: datetime) -> NextRun:
    """The same for a chain that has not begun, and begins with what it adopts. Raises SampleUnreadable."""
    try:
        return msgspec.structs.replace(ahead, watermark=find(adopt, root, now).watermark)
    except CheckpointNotFound as error:
        return msgspec.structs.replace(ahead, waits=str(error))


def next_run_of(chain: ChainDocument, ledger: Ledger) -> NextRun:
    """What the next run of the chain finds. Raises LedgerCorrupt, StoreFailure, InputError for a watermark that is
    inside a partition."""
    state, init = state_after_rewind(ledger), chain.init_from
    found = _next_run(chain, ledger, state, init)
    return msgspec.structs.replace(
        found,
        goes_back=state.generation > ledger.state().generation,
        columns=state.head.split.columns if state.head else (),
    )


def _next_run(chain: ChainDocument, ledger: Ledger, state: ChainState, init: InitFrom | None) -> NextRun:
    skipped_to = state.skips[-1].end if state.skips else None
    if init is None or (init.once and (state.head or state.start)):
        return NextRun(state.watermark, skipped_to, begun=True)
    base = read_upstream_chain(Ledger(ledger.store, init.chain), state.watermark, through=init.through)
    choice = choose_for(init, base, state.watermark, state.edge, chain.samples)
    if isinstance(choice, WaitForUpstream | StartRefused):
        return NextRun(state.watermark, skipped_to, waits=choice.reason)
    if isinstance(choice, StartFromOwn):
        return NextRun(state.watermark, skipped_to)
    forked = state.watermark is None and is_fork(init.chain, ledger.chain)
    found = base.find(choice.last.id)
    return NextRun(
        watermark=choice.bases[-1].watermark if forked else state.watermark,
        edge=skipped_to,
        bounds=tuple(each.watermark for each in choice.bases) if choice.bounded else (),
        pin={**msgspec.to_builtins(init.chain), "id": choice.last.id, "sequence": choice.last.sequence},
        pinned_run=found.run_id if found else None,
    )
