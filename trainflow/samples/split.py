"""What one run trains on: partitions with their files, and the holes policy stepped over.

Plain values, JSON both ways. A split names content and not only paths: every file carries a fingerprint, and `digest`
is the digest of all of it, so two splits with one digest are the same training data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.identifiers import canonical_json, digest

if TYPE_CHECKING:
    from trainflow.samples.batches import Batches

#: name and Arrow type of each column, the type as `trainflow.samples.columns.types` writes it
Columns = tuple[tuple[str, str], ...]
DEFAULT_BATCH_ROWS = 65_536


class SampleFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file. `path` as the samples name it: a URL, an absolute path, or relative to the project."""

    path: str
    size_bytes: int
    #: None when the file is not Parquet
    rows: int | None
    #: digest over name, size and version in the store (etag or modification time): a listing is enough to know it
    fingerprint: str
    #: rows of each row group, in the file's order
    row_groups: tuple[int, ...] = ()
    #: the columns that stand in its path and not in the file (`region=eu/`), with their text; None: null
    path_columns: tuple[tuple[str, str | None], ...] = ()


class SplitPartition(msgspec.Struct, frozen=True, omit_defaults=True):
    """One partition of a split."""

    start: datetime
    #: exclusive
    end: datetime
    files: tuple[SampleFile, ...]
    rows: int | None
    bytes: int
    #: digest over the fingerprints of its files: another one for the same partition means it was published again
    fingerprint: str


class Hole(msgspec.Struct, frozen=True):
    """Time without samples that policy allowed to step over."""

    start: datetime
    #: exclusive
    end: datetime
    reason: str


@dataclass(frozen=True)
class Reading:
    """How this process reaches the files of a split. Never serialized or printed: it may hold secrets."""

    root: Path | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Split(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The contiguous run of partitions that one run trains on.

    `[start, end)` is covered without an overlap by `partitions` and `holes`. `start` is the watermark the split was
    made for (the table's start for the first), `end` the watermark after training on it: the splits of a chain tile
    time.
    """

    start: datetime
    end: datetime
    #: 0: the partitions are `length_months` calendar months long
    length_seconds: int
    partitions: tuple[SplitPartition, ...]
    holes: tuple[Hole, ...] = ()
    length_months: int = 0
    #: of all files together, as types that hold every value; () when the files are not Parquet
    columns: Columns = ()

    @property
    def files(self) -> tuple[SampleFile, ...]:
        """All files, in chronological order."""
        return tuple(file for partition in self.partitions for file in partition.files)

    @cached_property
    def rows(self) -> int | None:
        """Rows of all partitions; None when a file does not say."""
        counts = [partition.rows for partition in self.partitions]
        return None if None in counts else sum(count for count in counts if count is not None)

    @cached_property
    def bytes(self) -> int:
        """Bytes of all files as they are stored."""
        return sum(partition.bytes for partition in self.partitions)

    @cached_property
    def digest(self) -> str:
        """`sha256:…` over the canonical JSON of the split."""
        return digest(canonical_json(msgspec.to_builtins(self)))

    @property
    def reading(self) -> Reading:
        """How the files are reached; set by `reached_by`."""
        return self.__dict__.get("_reading") or Reading()

    def reached_by(self, *, root: Path | None = None, storage_options: Mapping[str, Any] | None = None) -> Split:
        """The same split, whose `batches` resolve relative paths against `root` and open storage with these options."""
        copy = msgspec.structs.replace(self)
        copy.__dict__["_reading"] = Reading(root, dict(storage_options or {}))
        return copy

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
        another order in each of the `epochs`. Batches are dealt to the ranks in turn; over all ranks every row comes
        exactly once an epoch. `.position` of the returned
        iterator (JSON, the same on every rank after the same number of batches) resumes exactly, also with another
        `world_size` or `batch_size`.

        Raises InputError for a position of another split or seed, SampleUnreadable for a file that cannot be read or
        is no longer what the split says.
        """
        from trainflow.samples.batches import Batches

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


def file_fingerprint(name: str, size_bytes: int, version: str) -> str:
    """Content-like identity of a file: its name inside the partition, size and version in the store. All of it is in
    a listing, so that whether a partition was published again is known without opening a file."""
    return digest(canonical_json([name, size_bytes, version]))


def partition_fingerprint(files: Iterable[str]) -> str:
    """Of a partition, from the fingerprints of its files in order of their names."""
    return digest(canonical_json(list(files)))


def partition_of(start: datetime, end: datetime, files: tuple[SampleFile, ...]) -> SplitPartition:
    """A partition with the totals of its files."""
    counts = [file.rows for file in files]
    return SplitPartition(
        start=start,
        end=end,
        files=files,
        rows=None if None in counts else sum(count for count in counts if count is not None),
        bytes=sum(file.size_bytes for file in files),
        fingerprint=partition_fingerprint(file.fingerprint for file in files),
    )
