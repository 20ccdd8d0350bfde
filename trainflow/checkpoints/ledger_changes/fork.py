"""How a chain begins when it does not begin with nothing: as a fork of another one, or with adopted files.

The stages of a pipeline are forked so that they fit together in a branch. Each goes on from its newest checkpoint that
is trained up to a date, or from its head. But a stage that starts from another one has weights that came from there: it
is forked far enough back that these came from a checkpoint that is in the branch too. A stage that has no such
checkpoint begins with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import (
    Adoption,
    ArtifactFile,
    Author,
    Checkpoint,
    CheckpointRef,
    Fork,
    ForkedStage,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.stages.dependents import register_origin
from trainflow.errors import CheckpointError
from trainflow.humanize import counted

_Beginning = TypeVar("_Beginning", Fork, Adoption)
_NOT_SAID = ("sequence", "previous", "at", "by", "format", "seal", "stages", "asked", "number")


def fork(
    ledger: Ledger,
    origin: CheckpointRef,
    watermark: datetime,
    *,
    number: int = 0,
    overrides: Mapping[str, str] | None = None,
    stages: Sequence[ForkedStage] = (),
    asked: str = "",
    by: Author,
    now: datetime,
) -> Fork:
    """Begin a branch at a checkpoint of another chain of the same store, where that one was at `watermark`.

    `number` is the checkpoint's there, from which the branch counts on (0: not known, it begins with 1). `stages` are
    all that are forked together, `asked` how. Asking for the same fork again returns it. Raises CheckpointError when
    the branch has begun otherwise.
    """

    def first(state: ChainState) -> Fork:
        return Fork(
            **state.header(by, now),
            origin=origin,
            watermark=watermark,
            overrides=dict(overrides or {}),
            stages=list(stages),
            asked=asked,
            number=number,
        )

    register_origin(ledger.store, origin.chain, ledger.chain)
    return _begin(ledger, first)


def adopt(
    ledger: Ledger, uri: str, watermark: datetime, files: Sequence[ArtifactFile], *, by: Author, now: datetime
) -> Adoption:
    """Begin a chain with the files of a foreign folder, trained up to `watermark`.

    Asking for the same adoption again returns it. Raises CheckpointError when the chain has begun otherwise.
    """

    def first(state: ChainState) -> Adoption:
        return Adoption(**state.header(by, now), uri=uri, watermark=watermark, files=list(files))

    return _begin(ledger, first)


def _begin(ledger: Ledger, first: Callable[[ChainState], _Beginning]) -> _Beginning:
    begun: list[_Beginning] = []

    def make(state: ChainState) -> _Beginning | None:
        entry = first(state)
        if isinstance(state.start, type(entry)) and _says_the_same(state.start, entry):
            begun.append(state.start)
            return None
        if state.sequence:
            raise CheckpointError(
                f"chain {ledger.chain} in {ledger.store.url} has begun already "
                f"({counted(state.sequence, 'entry')}): only an "
                "empty chain can be forked or adopted into; name another branch"
            )
        return entry

    return ledger.append(make) or begun[0]


def _says_the_same(there: _Beginning, wanted: _Beginning) -> bool:
    """The author, the moment and what it was forked together with."""
    placed = {name: getattr(there, name) for name in _NOT_SAID if hasattr(there, name)}
    return msgspec.structs.replace(wanted, **placed) == there


_NOTHING = -1


class LineCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint on a line."""

    id: str
    number: int
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
    return LineCheckpoint(entry.id, entry.number, entry.watermark, entry.id in kept, entry.origin)


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
