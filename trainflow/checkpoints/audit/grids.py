"""What an audit says of grids: each partition lies on the one that its checkpoint names, and no grid changed unsaid.

Pure, over the raw entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainflow.checkpoints.audit.raw_chain import RawChain
from trainflow.checkpoints.audit.raw_ledger import RawCheckpoint, RawEntry, RawGrid, RawPiece
from trainflow.pluralize import agreeing, counted
from trainflow.samples.grid import Grid, grid_of
from trainflow.samples.grid_change import grid_change, what_changed
from trainflow.samples.partitions import Partitioning, end_of, is_boundary, label, length_label
from trainflow.samples.spec import Samples


def alignment_problems(line: Sequence[RawCheckpoint], samples: Samples | None) -> list[str]:
    """Partitions that are none of the grid that was recorded with them, or, where nothing was, of the table's."""
    odd = [(each, cut) for entry in line for each, cut in _cut(entry, samples) if not _is_one(each, cut)]
    if not odd:
        return []
    first, cut = odd[0]
    return [
        f"{counted(len(odd), 'trained partition')} {agreeing(len(odd), 'is none', 'are none')} of these samples "
        f"(length {length_label(cut)}, from {label(cut.start)}), the first is {first}: were the samples' start or "
        "length changed?"
    ]


def regrid_problems(line: Sequence[RawCheckpoint], regrids: Sequence[RawEntry]) -> list[str]:
    """Checkpoints that were trained on another grid than the one before, although no entry says so."""
    return list(_unsaid(line, list(regrids)))


def change_problems(line: Sequence[RawCheckpoint], chain: RawChain, samples: Samples, name: str) -> list[str]:
    """What the table has become, where the chain cannot simply go on with that."""
    grid, edge = _last_grid(line, chain), line[-1].watermark if line else None
    if grid is None or edge is None:
        return []
    if chain.skips:
        edge = chain.skips[-1].end
    change = grid_change(grid, grid_of(samples), edge)
    return [f"{what_changed(change)}: 'trainflow plan {name}' names the ways out"] if change.refused else []


def _cut(entry: RawCheckpoint, samples: Samples | None) -> Iterator[tuple[RawPiece, Partitioning]]:
    cut: Partitioning | None = entry.grid or samples
    return iter(()) if cut is None else ((each, cut) for each in entry.split.partitions)


def _is_one(piece: RawPiece, cut: Partitioning) -> bool:
    return is_boundary(cut, piece.start) and end_of(cut, piece.start) == piece.end


def _unsaid(line: Sequence[RawCheckpoint], regrids: list[RawEntry]) -> Iterator[str]:
    known: Grid | None = None
    edge = None
    for entry in line:
        while regrids and regrids[0].sequence < entry.sequence:
            known = _grid(regrids.pop(0).grid)
        found = _grid(entry.grid)
        if known is not None and found is not None and edge is not None and found != known:
            change = grid_change(known, found, edge)
            if change.elsewhere or change.recut:
                yield f"checkpoint {entry.id} (entry {entry.sequence}): {what_changed(change)}, and no entry says so"
        known, edge = found or known, entry.watermark


def _last_grid(line: Sequence[RawCheckpoint], chain: RawChain) -> Grid | None:
    newest = line[-1] if line else None
    if chain.regrids and (newest is None or chain.regrids[-1].sequence > newest.sequence):
        return _grid(chain.regrids[-1].grid)
    return _grid(newest.grid) if newest else None


def _grid(raw: RawGrid | None) -> Grid | None:
    return None if raw is None else Grid(raw.path, raw.start, raw.length_seconds, raw.length_months, raw.zone)
