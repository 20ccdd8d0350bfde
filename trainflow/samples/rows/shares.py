"""Which rows each of several ranks reads: steps that all ranks take together, and a share of each step for every rank.

A step is `batch_size` rows for each rank, next to each other in the stream: rank 0 the first ones. All ranks take the
same number of steps, so none waits in a collective operation for one that has nothing left. The last steps are shared
out so that no rank is without rows: what is left over is less than a row for each rank, it is taken from the step
before. Only where that cannot be (fewer rows than ranks, or batches of one row) a rank gets a batch without rows. No
row is left out and none is read twice.

A step depends on how many rows are left and on nothing else: reading goes on from a position as if it had not stopped.
"""

from __future__ import annotations

from typing import NamedTuple

from trainflow.samples.rows.order import Window


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
