"""What one run trains on, as it is handed to a training function: the content of a split and its rows; and one in the
making: what is taken, what is stepped over, and when it is full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from trainflow.errors import SampleUnreadable
from trainflow.humanize import counted
from trainflow.samples.partitions import label
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.split_content import Columns, Hole, SplitContent, SplitPartition

if TYPE_CHECKING:
    from trainflow.samples.rows.batches import Batches

DEFAULT_BATCH_ROWS = 65_536


class Split(SplitContent, frozen=True, omit_defaults=True, dict=True):
    """The contiguous run of partitions that one run trains on, and a way to read its rows."""

    def batches(
        self,
        columns: list[str] | None = None,
        batch_size: int = DEFAULT_BATCH_ROWS,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        position: Mapping[str, Any] | None = None,
        epochs: int = 1,
    ) -> Batches:
        """Arrow record batches over the Parquet files, `batch_size` rows each.

        The order of the rows depends only on the split and `seed`: chronological for None, shuffled otherwise, in
        another order in each of the `epochs`. At each step every rank gets a batch, and all ranks take as many steps:
        the rows that are left at the end are shared out, so the last two batches may be smaller, and one has no rows
        where fewer are left than there are ranks. Over all ranks every row comes exactly once an epoch. `.position` of
        the returned iterator (JSON, the same on every rank after the same number of batches) resumes exactly, also
        with another `world_size` or `batch_size`.

        Raises InputError for a position of another split or seed, SampleUnreadable for a file that cannot be read or
        is no longer what the split says.
        """
        from trainflow.samples.rows.batches import Batches

        return Batches(
            self,
            columns=columns,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            position=position,
            epochs=epochs,
        )


class ColumnUnifier(Protocol):
    """The columns of the partitions that were added, as one schema."""

    @property
    def columns(self) -> Columns:
        """The columns so far, as types that hold every value."""
        ...

    def add(self, start: datetime) -> None:
        """Raises SampleCheckFailed for a partition whose columns do not go together with the others'."""


class SplitBuilder(msgspec.Struct):
    """A split in the making, from `start` on. Holes count only when a partition follows them."""

    samples: Samples
    start: datetime
    unified: ColumnUnifier
    taken: list[SplitPartition] = []
    holes: list[Hole] = []
    pending: list[Hole] = []
    rows: int = 0
    bytes: int = 0

    @property
    def end(self) -> datetime:
        """Where it ends so far."""
        return self.taken[-1].end if self.taken else self.start

    @property
    def has_files(self) -> bool:
        """Whether there is something to train on."""
        return any(partition.files for partition in self.taken)

    def full(self, limits: SplitLimits) -> bool:
        """Whether a limit is reached."""
        if not self.has_files:
            return False
        totals = ((limits.partitions, len(self.taken)), (limits.rows, self.rows), (limits.bytes, self.bytes))
        return any(most is not None and total >= most for most, total in totals)

    def fits(self, end: datetime, bounds: Sequence[datetime]) -> bool:
        """Whether a partition that ends then may be added. Empty ones bind to no bound: nothing is trained on them."""
        anchor = next((partition.end for partition in self.taken if partition.files), end)
        bound = next((bound for bound in bounds if bound >= anchor), None)
        return bound is not None and end <= bound

    def take(self, content: SplitPartition, limits: SplitLimits) -> bool:
        """Add a partition; False, and nothing added, when that would pass a limit and there is one with a file. Raises
        SampleCheckFailed, SampleUnreadable, and adds nothing."""
        if limits.rows is not None and content.rows is None:
            raise SampleUnreadable(f"split.rows needs Parquet files; {content.files[0].path} is none: use split.bytes")
        rows, size = self.rows + (content.rows or 0), self.bytes + content.bytes
        totals = ((limits.rows, rows), (limits.bytes, size))
        if self.has_files and any(most is not None and total > most for most, total in totals):
            return False
        self.unified.add(content.start)
        self.taken.append(content)
        self.holes += self.pending
        self.pending, self.rows, self.bytes = [], rows, size
        return True

    def step_over(self, start: datetime, end: datetime, reason: str) -> None:
        """Add a hole."""
        last = self.pending[-1] if self.pending else None
        if last is not None and last.reason == reason:
            self.pending[-1] = Hole(last.start, end, reason)
        else:
            self.pending.append(Hole(start, end, reason))

    def split(self) -> Split:
        """What was taken."""
        return Split(
            start=self.start,
            end=self.taken[-1].end,
            length_seconds=self.samples.length_seconds,
            partitions=tuple(self.taken),
            holes=tuple(self.holes),
            length_months=self.samples.length_months,
            columns=self.unified.columns,
        )


def sentence_about(split: Split) -> str:
    """One sentence about a split, for people."""
    number = len(split.partitions)
    stretch = f"{label(split.partitions[0].start)} to {label(split.partitions[-1].end)}"
    which = (
        f"partition {label(split.partitions[0].start)}" if number == 1 else f"{counted(number, 'partition')}, {stretch}"
    )
    rows = f", {counted(split.rows, 'row')}" if split.rows is not None else ""
    holes = f", stepping over {counted(len(split.holes), 'hole')}" if split.holes else ""
    return f"{which}{rows}{holes}"
