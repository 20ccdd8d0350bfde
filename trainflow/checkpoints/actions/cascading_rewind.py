"""What a rewind takes with it: later stages whose line holds weights that came from what is undone.

A fork is left alone: it stands on its own line from the moment it was forked, and its fork point is kept. So is a
stage of a branch that started from where its base was forked.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from trainflow.checkpoints.actions.rewind import nearest_kept
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import Checkpoint, CheckpointRef, Fork
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.stages.dependents_registry import registered_chains
from trainflow.errors import InputError

#: a checkpoint that stages of a pipeline's branch were forked from
_ForkPoint = tuple[str, str, CheckpointRef]


class ChainRewind(msgspec.Struct, frozen=True):
    """One chain that is rewound from `head_id` to `to_id` (None: to before its first checkpoint)."""

    chain: ChainKey
    head_id: str
    head_sequence: int
    to_id: str | None
    #: 0: to before the first checkpoint
    to_sequence: int
    #: up to where it is trained then; None: not at all, or to where it was forked or adopted
    watermark: datetime | None
    #: checkpoints that leave the line
    undone: int
    #: the end of what was asked for, where its files were pruned: it goes back further
    pruned_up_to: datetime | None
    #: alias that one of them has → the checkpoint that has it again (None: none)
    aliases: dict[str, str | None]


def cascading_rewinds(ledger: Ledger, target: str | None) -> list[ChainRewind]:
    """The rewind of a chain and all that follows from it, in the order to do it: who depends on another goes first.

    Where the files of a checkpoint to go back to were pruned, it goes back to the nearest one that is kept before it;
    to before the first where none is. Raises InputError where the target is no ancestor of the head; LedgerCorrupt,
    StoreFailure.
    """
    lines = {ledger.chain: list(line_from_head(ledger, ledger.state()))}
    found = {ledger.chain: _chain_rewind(ledger, lines[ledger.chain], target)}
    ledgers = {key: Ledger(ledger.store, key) for key in _aliases_by_checkpoint(ledger)}
    forks: set[_ForkPoint] = set()
    for key, other in ledgers.items():
        state = other.state()
        if isinstance(state.start, Fork):
            forks.add((key.pipeline, key.branch, state.start.origin))
        lines[key] = list(line_from_head(other, state))
    moved = True
    while moved:
        moved = False
        for key in lines:
            undone = _rewound_ids(lines, found)
            first = _first_tainted(key, lines[key], undone, forks, found.get(key))
            if first is not None:
                found[key] = _chain_rewind(ledgers.get(key, ledger), lines[key], first.parent_id)
                moved = True
    return [found[key] for key in reversed(list(found))]


def _first_tainted(
    chain: ChainKey,
    line: list[Checkpoint],
    undone: set[tuple[ChainKey, str]],
    forks: Collection[_ForkPoint],
    already: ChainRewind | None,
) -> Checkpoint | None:
    """The first checkpoint of a line, if it is not undone anyway, whose weights came from what is undone."""
    edge = already.to_sequence if already else None
    for entry in reversed(line):
        if edge is not None and entry.sequence > edge:
            return None
        origin = entry.origin
        if origin is None or _is_fork(origin.chain, chain) or (chain.pipeline, chain.branch, origin) in forks:
            continue
        if (origin.chain, origin.checkpoint_id) in undone:
            return entry
    return None


def _is_fork(origin: ChainKey, chain: ChainKey) -> bool:
    return (origin.pipeline, origin.stage) == (chain.pipeline, chain.stage)


def _rewound_ids(
    lines: dict[ChainKey, list[Checkpoint]], found: dict[ChainKey, ChainRewind]
) -> set[tuple[ChainKey, str]]:
    return {(key, entry.id) for key, each in found.items() for entry in lines[key] if entry.sequence > each.to_sequence}


def _chain_rewind(ledger: Ledger, line: list[Checkpoint], target: str | None) -> ChainRewind:
    state = ledger.state()
    if state.head is None:
        raise InputError(f"chain {ledger.chain} in {ledger.store.url} has no checkpoint: there is nothing to rewind")
    asked = next((entry for entry in line if entry.id == target), None)
    if target and asked is None:
        raise InputError(
            f"chain {ledger.chain} cannot be rewound to checkpoint {target}: a rewind left it behind, or it was never "
            f"there; 'trainflow checkpoints list {ledger.chain.pipeline}' shows what can be rewound to"
        )
    summary = nearest_kept(ledger, line, target)
    sequence, to_id = (summary.sequence, summary.id) if summary else (0, None)
    going = {entry.id for entry in line if entry.sequence > sequence}
    back = ledger.aliases_after_rewind(state, to_id)
    return ChainRewind(
        chain=ledger.chain,
        head_id=state.head.id,
        head_sequence=state.head.sequence,
        to_id=to_id,
        to_sequence=sequence,
        watermark=summary.watermark if summary else state.start.watermark if state.start else None,
        undone=len(going),
        pruned_up_to=asked.watermark if asked and asked.id != to_id else None,
        aliases={alias: back.get(alias) for alias, name in sorted(state.promoted.items()) if name in going},
    )


def _aliases_by_checkpoint(ledger: Ledger) -> list[ChainKey]:
    """Every chain that ever went on from a checkpoint of this one, of one of those, and so on; of other pipelines,
    too."""
    found: list[ChainKey] = []
    asked = [ledger.chain]
    while asked:
        for key in registered_chains(ledger.store, asked.pop()):
            if key != ledger.chain and key not in found:
                found.append(key)
                asked.append(key)
    return found
