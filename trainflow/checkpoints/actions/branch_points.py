"""Where the stages of a pipeline are forked, so that they fit together in a branch. Pure.

Each goes on from its newest checkpoint that is trained up to a date, or from its head. But a stage that starts from
another one has weights that came from there: it is forked far enough back that these came from a checkpoint that is in
the branch too. A stage that has no such checkpoint begins with nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import Checkpoint, CheckpointRef
from trainflow.checkpoints.ledger.ledger import Ledger

_NOTHING = -1


class LineCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint on a line."""

    id: str
    sequence: int
    watermark: datetime
    #: its files are there
    kept: bool = True
    #: the checkpoint of another chain that its weights came from; None: from the one before it, or from nothing
    origin: CheckpointRef | None = None


def line_checkpoints(ledger: Ledger) -> list[LineCheckpoint]:
    """A chain's line, from the root to the head. Raises LedgerCorrupt, StoreFailure."""
    kept = {summary.id for summary in ledger.line()}
    return [_line_checkpoint(entry, kept) for entry in line_from_head(ledger, ledger.state())][::-1]


def _line_checkpoint(entry: Checkpoint, kept: set[str]) -> LineCheckpoint:
    return LineCheckpoint(entry.id, entry.sequence, entry.watermark, entry.id in kept, entry.origin)


def fork_points(
    lines: Mapping[ChainKey, Sequence[LineCheckpoint]],
    before: datetime | None = None,
    begun: Mapping[ChainKey, str] | None = None,
) -> dict[ChainKey, LineCheckpoint | None]:
    """Where each chain goes on in the branch; None: it begins with nothing.

    `before`: no checkpoint that has trained more than up to then. `begun`: chains that were forked already, by the
    checkpoint they were forked from; they stay where they are.
    """
    begun = begun or {}
    numbers = {key: {place.id: number for number, place in enumerate(line)} for key, line in lines.items()}
    fixed = {key: numbers[key].get(begun[key], _NOTHING) for key in begun if key in lines}
    chosen = {key: fixed.get(key, _last(line, before)) for key, line in lines.items()}
    moved = True
    while moved:
        moved = False
        for key in [key for key in lines if key not in fixed]:
            while chosen[key] != _NOTHING and not _fits(lines[key], chosen[key], chosen, numbers):
                chosen[key] = _kept_up_to(lines[key], chosen[key] - 1)
                moved = True
    return {key: None if at == _NOTHING else lines[key][at] for key, at in chosen.items()}


def _last(line: Sequence[LineCheckpoint], before: datetime | None) -> int:
    allowed = (number for number, place in enumerate(line) if before is None or place.watermark <= before)
    return _kept_up_to(line, max(allowed, default=_NOTHING))


def _kept_up_to(line: Sequence[LineCheckpoint], last: int) -> int:
    return next((number for number in range(last, _NOTHING, -1) if line[number].kept), _NOTHING)


def _fits(
    line: Sequence[LineCheckpoint],
    at: int,
    chosen: Mapping[ChainKey, int],
    numbers: Mapping[ChainKey, Mapping[str, int]],
) -> bool:
    """Whether the weights came from what is in the branch, or from somewhere that is not forked with it."""
    came = next((place.origin for place in reversed(line[: at + 1]) if place.origin), None)
    if came is None or came.chain not in chosen:
        return True
    found = numbers[came.chain].get(came.checkpoint_id)
    # not on the line: committed since that was read, or left behind by a rewind
    return found is not None and found <= chosen[came.chain]
