"""The order in which the rows of a split are read, and by which of several ranks: pure arithmetic over its row groups.

The stream of rows is a sequence of windows, each small enough for memory. Chronological: a window is one row group.
Shuffled: row groups in a shuffled order are put together until a window has `SHUFFLE_ROWS`, and the rows of a window
are shuffled. Hashes decide, not a random generator of a library, whose stream may change with its version: an order is
part of what a saved position means.

Several ranks take steps together, of which each reads its share. A step is `batch_size` rows for each rank, next to
each other in the stream: rank 0 the first ones. All ranks take the same number of steps, so none waits in a collective
operation for one that has nothing left. The last steps are shared out so that no rank is without rows: what is left
over is less than a row for each rank, it is taken from the step before. Only where that cannot be (fewer rows than
ranks, or batches of one row) a rank gets a batch without rows. No row is left out and none is read twice.

A step depends on how many rows are left and on nothing else: reading goes on from a position as if it had not stopped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainflow.errors import SamplesRefused
from trainflow.samples.splits.split_content import SplitContent

#: rows that are shuffled together; changing it changes every shuffled order
SHUFFLE_ROWS = 65_536
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group: number of the file in `split.files`, number of the group in it."""

    file: int
    group: int
    rows: int


@dataclass(frozen=True, slots=True)
class Window:
    """Row groups that are in memory together."""

    #: of its first row in the stream
    offset: int
    rows: int
    groups: tuple[RowGroup, ...]
    #: decides the order of its rows; None: as stored
    key: int | None = None

    @property
    def end(self) -> int:
        """Offset of the row after its last."""
        return self.offset + self.rows


def windows(split: SplitContent, seed: int | None, epoch: int = 0) -> list[Window]:
    """One pass over a split; shuffled, each epoch has an order of its own. Offsets count from the pass's first row.

    Raises SamplesRefused for a file whose row groups are not known.
    """
    groups = []
    for number, file in enumerate(split.files):
        if file.rows is None:
            raise SamplesRefused(
                f"batches reads Parquet; {file.path} is none: read the files of ctx.split.files in your own code (docs/"
                "training.md: Samples that are not Parquet)"
            )
        groups += [RowGroup(number, group, rows) for group, rows in enumerate(file.row_groups) if rows]
    if seed is None:
        return _windows([[group] for group in groups], None)
    named = f"{split.digest}/{seed}/{epoch}" if epoch else f"{split.digest}/{seed}"
    key = int.from_bytes(hashlib.sha256(named.encode()).digest()[:8])
    order = sorted(range(len(groups)), key=lambda number: mix(key + number))
    return _windows(_gather([groups[number] for number in order]), key)


def permutation(window: Window) -> Any:
    """Where each row of a window comes from, as a NumPy array of indices into its row groups put together."""
    import numpy as np

    if window.key is None:
        return np.arange(window.rows)
    # each step maps the numbers of so many bits onto themselves one to one; leaving out those that are too large
    # makes it a permutation of the rows, in a fraction of the time that sorting takes
    bits = max(4, (window.rows - 1).bit_length())
    mask, half = np.uint64((1 << bits) - 1), np.uint64(bits // 2)
    values = np.arange(1 << bits, dtype=np.uint64)
    for turn in range(4):
        key = mix(window.key + turn)
        values = (values * np.uint64(mix(key) | 1) + np.uint64(key)) & mask
        values ^= values >> half
    return values[values < window.rows].astype(np.int64)


def mix(value: int) -> int:
    """SplitMix64's finishing step: numbers next to each other come out unrelated."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _gather(groups: list[RowGroup]) -> list[list[RowGroup]]:
    gathered: list[list[RowGroup]] = []
    rows = SHUFFLE_ROWS
    for group in groups:
        if rows >= SHUFFLE_ROWS:
            gathered.append([])
            rows = 0
        gathered[-1].append(group)
        rows += group.rows
    return gathered


def _windows(gathered: list[list[RowGroup]], key: int | None) -> list[Window]:
    made, offset = [], 0
    for number, groups in enumerate(gathered):
        rows = sum(group.rows for group in groups)
        # in the order of the files, so that neighbours are read together: their rows are shuffled anyway
        together = tuple(sorted(groups, key=lambda group: (group.file, group.group)))
        made.append(Window(offset, rows, together, None if key is None else mix(key ^ mix(number + 1))))
        offset += rows
    return made


def rows_of_step(left: int, batch_size: int, ranks: int) -> int:
    """How many of the rows that are left all ranks together read at the next step."""
    whole = batch_size * ranks
    if left <= whole:
        return left
    if left - whole < ranks and batch_size > 1:
        return left - ranks  # one row for each rank is left for the last step
    return whole


def share(rows: int, rank: int, ranks: int) -> tuple[int, int]:
    """The part `[low, high)` of a step's rows that a rank reads. Parts differ by a row at most."""
    return rows * rank // ranks, rows * (rank + 1) // ranks


class _Step(NamedTuple):
    """Rows of one rank."""

    low: int
    high: int


class RankRows:
    """The rows of one rank from `first` to the end of a stream of `total` rows."""

    def __init__(self, first: int, total: int, batch_size: int, rank: int, ranks: int) -> None:
        self._first = first + rank * batch_size
        self._batch_size = batch_size
        self._step = batch_size * ranks
        left = total - first
        #: steps of `batch_size` rows for each rank; the others, two at most, are in `_last`
        self._whole = max(left // self._step - 1, 0)
        self._last: list[_Step] = []
        row = first + self._whole * self._step
        while row < total:
            rows = rows_of_step(total - row, batch_size, ranks)
            low, high = share(rows, rank, ranks)
            self._last.append(_Step(row + low, row + high))
            row += rows

    def overlaps(self, window: Window) -> bool:
        """Whether a window has rows of this rank."""
        number = max(0, (window.offset - self._batch_size - self._first) // self._step + 1)
        if number < self._whole and self._first + number * self._step < window.end:
            return True
        return any(max(step.low, window.offset) < min(step.high, window.end) for step in self._last)
