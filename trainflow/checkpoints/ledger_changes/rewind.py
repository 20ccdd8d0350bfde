"""Rewind: move the head back to an ancestor. Skip: step over time after the watermark. Nothing is deleted.

Each is one entry. What is decided about a head is fenced by it: a chain that has moved on since is left alone.

A rewind takes later stages with it whose line holds weights that came from what is undone. A fork is left alone: it
stands on its own line from the moment it was forked, and its fork point is kept. So is a stage of a branch that started
from where its upstream was forked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import dropwhile

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, CheckpointRef, Fork, Replayed, Rewind, Skip
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary
from trainflow.checkpoints.stages.dependents import registered_chains
from trainflow.errors import ChainMoved, InputError


def rewind(
    ledger: Ledger,
    to_checkpoint_id: str | None,
    *,
    expected_head: str | None,
    by: Author,
    now: datetime,
    reason: str = "",
    cause: str = "person",
    replayed: Sequence[Replayed] = (),
) -> Rewind:
    """Make an ancestor of the head the head (None: begin again with an empty chain). Rewinding to the head itself
    takes back the skips after it.

    `expected_head` is the head that was looked at when it was decided: a chain that has moved on since is left alone.
    `cause` is `person`, `gate` or `replay`, for which `replayed` says why. Raises ChainMoved, CheckpointError when the
    target is no kept ancestor of the head.
    """

    def make(state: ChainState) -> Rewind:
        raise_if_moved(ledger, state, expected_head, "nothing was rewound")
        return Rewind(
            **state.header(by, now),
            to_checkpoint_id=to_checkpoint_id,
            reason=reason,
            cause=cause,
            replayed=list(replayed),
            promoted=ledger.aliases_after_rewind(state, to_checkpoint_id),
        )

    return ledger.append(make)


def nearest_kept(ledger: Ledger, line: Iterable[Checkpoint], target: str | None) -> CheckpointSummary | None:
    """The checkpoint that a person's rewind to `target` goes back to: itself, or where its files were pruned the newest
    of its ancestors that is kept. None: to before the first. `line`: from the head back to the root."""
    kept = {each.id: each for each in ledger.line()} if target else {}
    ancestors = dropwhile(lambda entry: entry.id != target, line) if target else iter(())
    return next((kept[entry.id] for entry in ancestors if entry.id in kept), None)


def rewound_checkpoints(ledger: Ledger, target: CheckpointSummary | None) -> set[str]:
    """The checkpoints that a rewind to `target` (None: to before the first) takes off the line."""
    last = target.sequence if target else 0
    return {summary.id for summary in ledger.line() if summary.sequence > last}


def raise_if_moved(ledger: Ledger, state: ChainState, expected_head: str | None, outcome: str) -> None:
    """Raises ChainMoved when the head is not the one that was looked at; `outcome` says what was not done."""
    head = state.head.id if state.head else None
    if head == expected_head:
        return
    expected = state.recently(expected_head) if expected_head else None
    raise ChainMoved(
        f"chain {ledger.chain}: the head is {head or 'none'} now, not {expected_head or 'none'}; {outcome}. Look again",
        expected_sequence=expected.sequence if expected else 0,
        head_sequence=state.head_sequence,
    )


def skip(
    ledger: Ledger,
    start: datetime,
    end: datetime,
    *,
    expected_head: str | None,
    by: Author,
    now: datetime,
    reason: str,
) -> Skip | None:
    """Step over [start, end); None when just that was skipped before, so that a retry may ask again.

    `start` is where the chain ends: its watermark, or the end of the skip before. Raises ChainMoved when the head is
    not `expected_head` any more, CheckpointError for a stretch that does not begin there.
    """

    def make(state: ChainState) -> Skip | None:
        raise_if_moved(ledger, state, expected_head, "nothing was skipped")
        if any((each.start, each.end) == (start, end) for each in state.skips):
            return None
        return Skip(
            **state.header(by, now),
            parent_id=expected_head,
            start=start,
            end=end,
            reason=reason,
        )

    return ledger.append(make)


#: a checkpoint that stages of a pipeline's branch were forked from
_ForkPoint = tuple[str, str, CheckpointRef]


class ChainRewind(msgspec.Struct, frozen=True):
    """One chain that is rewound from `head_id` to `to_id` (None: to before its first checkpoint)."""

    chain: ChainKey
    head_id: str
    head_number: int
    to_id: str | None
    #: 0: to before the first checkpoint
    to_number: int
    #: up to where it is trained then; None: not at all, or to where it was forked or adopted
    watermark: datetime | None
    #: numbers of the checkpoints that leave the line, oldest first
    checkpoints: list[int]
    #: the end of what was asked for, where its files were pruned: it goes back further
    pruned_up_to: datetime | None
    #: alias that one of them has → number of the checkpoint that has it again (None: none)
    aliases: dict[str, int | None]


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
    edge = already.to_number if already else None
    for entry in reversed(line):
        if edge is not None and entry.number > edge:
            return None
        origin = entry.origin
        if origin is None or origin.chain.is_same_stage(chain) or (chain.pipeline, chain.branch, origin) in forks:
            continue
        if (origin.chain, origin.checkpoint_id) in undone:
            return entry
    return None


def _rewound_ids(
    lines: dict[ChainKey, list[Checkpoint]], found: dict[ChainKey, ChainRewind]
) -> set[tuple[ChainKey, str]]:
    return {(key, entry.id) for key, each in found.items() for entry in lines[key] if entry.number > each.to_number}


def _chain_rewind(ledger: Ledger, line: list[Checkpoint], target: str | None) -> ChainRewind:
    state = ledger.state()
    if state.head is None:
        raise InputError(f"chain {ledger.chain} in {ledger.store.url} has no checkpoint: there is nothing to rewind")
    asked = next((entry for entry in line if entry.id == target), None)
    if target and asked is None:
        raise InputError(
            f"chain {ledger.chain} cannot be rewound to checkpoint {target}: a rewind left it behind, or it was never "
            f"there; 'trainflow checkpoints list {ledger.chain.arguments}' shows what can be rewound to"
        )
    summary = nearest_kept(ledger, line, target)
    number, to_id = (summary.number, summary.id) if summary else (0, None)
    going = {entry.id: entry.number for entry in line if entry.number > number}
    back, numbers = ledger.aliases_after_rewind(state, to_id), {entry.id: entry.number for entry in line}
    return ChainRewind(
        chain=ledger.chain,
        head_id=state.head.id,
        head_number=state.head.number,
        to_id=to_id,
        to_number=number,
        watermark=summary.watermark if summary else state.start.watermark if state.start else None,
        checkpoints=sorted(going.values()),
        pruned_up_to=asked.watermark if asked and asked.id != to_id else None,
        aliases={
            alias: numbers.get(back.get(alias, "")) for alias, name in sorted(state.promoted.items()) if name in going
        },
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
