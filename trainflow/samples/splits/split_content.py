"""What one run trains on: partitions with their files, and the holes policy stepped over.

Plain values, JSON both ways. A split names content and not only paths: every file carries a fingerprint, and `digest`
is the digest of all of it, so two splits with one digest are the same training data, wherever their files are. What
reads a split takes its content; `trainflow.samples.splits.split.Split` is the content that can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import msgspec

from trainflow.identifiers import canonical_json, digest
from trainflow.samples.files.fingerprint import partition_fingerprint

#: name and Arrow type of each column, the type as `trainflow.samples.columns.types` writes it
Columns = tuple[tuple[str, str], ...]


class SampleFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file. `path` as the samples name it: a URL, an absolute path, or relative to the project."""

    path: str
    size_bytes: int
    #: None when the file is not Parquet
    rows: int | None
    #: of its content (see `trainflow.samples.files.fingerprint`)
    fingerprint: str
    #: rows of each row group, in the file's order
    row_groups: tuple[int, ...] = ()
    #: the columns that stand in its path and not in the file (`region=eu/`), with their text; None: null
    path_columns: tuple[tuple[str, str | None], ...] = ()
    #: what a listing says of it while its content is this one; empty: nothing that could be relied on
    hint: str = ""


class SplitPartition(msgspec.Struct, frozen=True, omit_defaults=True):
    """One partition of a split."""

    start: datetime
    #: exclusive
    end: datetime
    files: tuple[SampleFile, ...]
    rows: int | None
    bytes: int
    #: digest over names and fingerprints of its files: another one for the same partition means it was published again
    fingerprint: str
    #: digest of its listing while its content is this one; empty: nothing that could be relied on
    hint: str = ""


class Hole(msgspec.Struct, frozen=True):
    """Time without samples that policy allowed to step over."""

    start: datetime
    #: exclusive
    end: datetime
    reason: str


class Reading(msgspec.Struct, frozen=True):
    """How this process reaches the files of a split. Never serialized or printed: it may hold secrets."""

    root: Path | None = None
    storage_options: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"Reading(root={self.root!r})"


class SplitContent(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
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
        return _total([partition.rows for partition in self.partitions])

    @cached_property
    def bytes(self) -> int:
        """Bytes of all files as they are stored."""
        return sum(partition.bytes for partition in self.partitions)

    @cached_property
    def digest(self) -> str:
        """`sha256:…` over what is trained on: time and content. Where the files are and when they were written is no
        part of it."""
        trained = [[each.start, each.end, each.rows, each.fingerprint] for each in self.partitions]
        holes = [[hole.start, hole.end] for hole in self.holes]
        content = [self.start, self.end, trained, holes, self.columns]
        return digest(canonical_json(msgspec.to_builtins(content)))

    @property
    def reading(self) -> Reading:
        """How the files are reached; set by `reached_by`."""
        return self.__dict__.get("_reading") or Reading()

    def reached_by(self, *, root: Path | None = None, storage_options: Mapping[str, Any] | None = None) -> Self:
        """The same split, whose `batches` resolve relative paths against `root` and open storage with these options."""
        copy = msgspec.structs.replace(self)
        copy.__dict__["_reading"] = Reading(root, dict(storage_options or {}))
        return copy


def partition_of(
    start: datetime, end: datetime, files: tuple[SampleFile, ...], *, fingerprint: str = "", hint: str = ""
) -> SplitPartition:
    """A partition with the totals of its files. `fingerprint`: where a file lies in a folder below the partition's."""
    named = ((file.path.rpartition("/")[2], file.fingerprint) for file in files)
    return SplitPartition(
        start=start,
        end=end,
        files=files,
        rows=_total([file.rows for file in files]),
        bytes=sum(file.size_bytes for file in files),
        fingerprint=fingerprint or partition_fingerprint(named),
        hint=hint,
    )


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
