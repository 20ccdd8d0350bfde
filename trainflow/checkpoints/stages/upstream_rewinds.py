"""What a stage's upstream has undone after the stage had gone on from it, and how far the stage goes back for that.

No chain stands on weights that its upstream has taken back. A rewind of an upstream - by a replay, a gate, a person -
is one entry, in the upstream's own ledger; each stage that started from what was undone goes back by an entry of its
own when it looks next. So there is no order in which a kill could come between them, and a run that was training all
the while is found out at the run after it.

A checkpoint records how often its upstream had been rewound when the stage looked (`UpstreamSeen`): as long as it was
not since, looking costs the newest state of the upstream. Who asks about an upstream that has itself to go back yet
gets the answer that will hold when it has: in a circle no chain goes on from what is about to be undone.
"""

from __future__ import annotations

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import Checkpoint, Loss, Rewind, Stop
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary


class UpstreamRewind(msgspec.Struct, frozen=True):
    """A chain holds what came from undone checkpoints of `upstream`: it goes back to `to` (None: to before its
    first)."""

    upstream: ChainKey
    #: the number of the first checkpoint that did
    first: int
    to: CheckpointSummary | None = None
    #: it cannot: the files of the one before were pruned
    pruned: bool = False

    @property
    def to_id(self) -> str | None:
        """The checkpoint that becomes the head; None: none."""
        return self.to.id if self.to else None


def upstream_rewind(ledger: Ledger) -> UpstreamRewind | None:
    """How far the chain has to go back; None: it stands on what its upstream stands for. Raises LedgerCorrupt,
    StoreFailure."""
    return _upstream_rewind(ledger, frozenset())


def state_after_rewind(ledger: Ledger) -> ChainState:
    """The state of the chain, once it has gone back if it has to. Raises LedgerCorrupt, StoreFailure."""
    back = upstream_rewind(ledger)
    return ledger.state() if back is None or back.pruned else ledger.if_rewound(back.to_id)


def trained_from_rewound(ledger: Ledger, stop: Stop) -> bool:
    """Whether what gates refused was trained from a checkpoint that the upstream has undone since."""
    if stop.upstream is None or stop.origin is None or stop.origin.chain != stop.upstream.chain:
        return False
    upstream = ledger.other(stop.upstream.chain)
    return upstream.state().generation > stop.upstream.rewinds and stop.origin.checkpoint_id in _rewound_since(
        upstream, stop.upstream.rewinds
    )


def _upstream_rewind(ledger: Ledger, asking: frozenset[ChainKey]) -> UpstreamRewind | None:
    state = ledger.state()
    seen = state.head.upstream if state.head else None
    if seen is None:
        return None
    upstream = ledger.other(seen.chain)
    gone = _rewound_since(upstream, seen.rewinds) if upstream.state().generation > seen.rewinds else set()
    if seen.chain not in asking:
        gone |= _about_to_be_rewound(upstream, asking | {ledger.chain})
    if not gone:
        return None
    first = None
    for entry in line_from_head(ledger, state):
        if entry.origin and entry.origin.chain == seen.chain and entry.origin.checkpoint_id in gone:
            first = entry
    if first is None:
        return None
    to = ledger.find(first.parent_id) if first.parent_id else None
    return UpstreamRewind(seen.chain, first.number, to, pruned=to is None and first.parent_id is not None)


def _about_to_be_rewound(ledger: Ledger, asking: frozenset[ChainKey]) -> set[str]:
    back = _upstream_rewind(ledger, asking)
    if back is None or back.pruned:
        return set()
    last = back.to.sequence if back.to else 0
    return {entry.id for entry in line_from_head(ledger, ledger.state()) if entry.sequence > last}


def _rewound_since(ledger: Ledger, rewinds: int) -> set[str]:
    """The checkpoints that all rewinds but the first `rewinds` took off the line, or that were lost since. Reads every
    entry."""
    line: list[str] = []
    gone: set[str] = set()
    for entry in ledger.entries():
        if isinstance(entry, Checkpoint):
            line.append(entry.id)
            gone.discard(entry.id)
        elif isinstance(entry, Rewind):
            length = line.index(entry.to_checkpoint_id) + 1 if entry.to_checkpoint_id else 0
            gone |= set(line[length:]) if rewinds <= 0 else set()
            line, rewinds = line[:length], rewinds - 1
        elif isinstance(entry, Loss):
            rewinds -= entry.rewinds
            gone |= set(entry.checkpoint_ids) if rewinds < 0 else set()
    return gone
