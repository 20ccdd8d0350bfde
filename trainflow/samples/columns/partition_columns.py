"""The columns of the partitions of a table, and of the chain that they go on with, as one schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trainflow.errors import SampleCheckFailed
from trainflow.samples.files.footers import Footer, check_values
from trainflow.samples.partitions import label
from trainflow.samples.spec import Samples
from trainflow.samples.splits.split_content import Columns
from trainflow.storage.store import Storage

if TYPE_CHECKING:
    from trainflow.samples.columns.unify import UnifiedColumns


class PartitionColumns:
    """Partitions are added in turn. `footers`: path → footer of the Parquet files of the partition that starts then."""

    def __init__(
        self,
        samples: Samples,
        storage: Storage,
        chain: Columns,
        footers: Callable[[datetime], Mapping[str, Footer]],
        folder: Callable[[datetime], str],
    ) -> None:
        self._samples = samples
        self._storage = storage
        self._chain = chain
        self._footers = footers
        self._folder = folder
        self._added: dict[str, Footer] = {}
        self._unified: UnifiedColumns | None = None

    @property
    def columns(self) -> Columns:
        """Columns as a split records them."""
        return () if self._unified is None else self._unified.columns

    def add(self, start: datetime) -> None:
        """A partition that goes together with those before it. Raises SampleCheckFailed, SampleUnreadable."""
        footers = self._footers(start)
        if not footers:
            return
        from trainflow.samples.columns.unify import ColumnConflict, FileColumns, UnifiedColumns

        if wrong := problems_of(footers):
            raise check_failed(start, self._folder(start), wrong, "Have it written again")
        if self._unified is None:
            self._unified = UnifiedColumns(self._samples.columns, self._chain, self._check_values)
        self._added.update(footers)
        try:
            self._unified.add([FileColumns(path, footer.schema) for path, footer in footers.items()])
        except ColumnConflict as error:
            raise check_failed(start, self._folder(start), (str(error),), error.remedy) from error

    def _check_values(self, path: str, wanted: Mapping[str, Any]) -> None:
        check_values(self._storage, path, wanted, self._added[path])


def problems_of(footers: Mapping[str, Footer]) -> tuple[str, ...]:
    """What cannot be read as it was written, of files by their names."""
    return tuple(f"{name}: {problem}" for name, footer in footers.items() for problem in footer.problems)


def check_failed(start: datetime, folder: str, found: tuple[str, ...], remedy: str) -> SampleCheckFailed:
    """The refusal of a partition, with what to do besides leaving it out."""
    shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
    return SampleCheckFailed(
        f"the partition {label(start)} ({folder}) is there and is not good: {shown}. "
        f"{remedy}, or leave it out: 'trainflow resume PIPELINE --skip'",
        partition=start,
        problems=found,
    )
