"""What a person says about a sample table: where it is, how it is cut in time, when a partition is ready and good.

Pure data, JSON both ways: travels in DAG documents, trigger arguments and XComs. Durations are seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from trainflow.errors import InputError

Count = Annotated[int, Meta(ge=1)]
_SHORTEST = 60
DEFAULT_FILES = "*.parquet"
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a partition counts as completely written. Every condition that is given must hold; with none given, a
    `_SUCCESS` marker is asked for, and where the path names a file that this is there."""

    #: name of a marker file in the partition's folder; may be a glob, and hold the partition's start as the path does:
    #: `events-{start:%Y%m%d}.parquet.done`
    marker: str | None = None
    min_files: Count | None = None
    min_rows: Count | None = None
    min_bytes: Count | None = None
    #: no file of the partition was modified for this long
    stable_seconds: Annotated[float, Meta(gt=0)] | None = None
    #: a file that cannot be read is still being written until the partition has stayed the same for this long; then it
    #: is damaged, and refused
    unfinished_seconds: Annotated[float, Meta(ge=0)] = 600.0


class Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a ready partition is good. Read from Parquet footers wherever they hold the answer."""

    min_rows: Count | None = None
    max_rows: Count | None = None
    #: column → Arrow type name (`int64`, `string`, `timestamp[us, tz=UTC]`); None: any type
    columns: dict[str, str | None] = msgspec.field(default_factory=dict)
    #: column → largest allowed fraction of nulls; NaN counts as one
    nulls: dict[str, Fraction] = msgspec.field(default_factory=dict)
    #: column → (smallest, largest) allowed value; None: open
    ranges: dict[str, tuple[float | str | None, float | str | None]] = msgspec.field(default_factory=dict)


class GapPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to do when a partition is missing while a later one is ready: wait this long (from the moment the later one
    became ready), then skip it (it becomes a hole) or fail."""

    wait_seconds: Annotated[float, Meta(ge=0)] = 0.0
    then: Literal["skip", "fail"] = "fail"


class Republished(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to do when a partition that was trained on has another content now: it was published again, or grew."""

    #: `alert`: say so. `replay`: rewind to before it and train forward again
    policy: Literal["ignore", "alert", "replay"] = "alert"
    #: how far before the watermark partitions are compared each time the head advances; None: the last 24 of them
    window_seconds: Annotated[float, Meta(gt=0)] | None = None


class SplitLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much one run trains on; the first limit reached ends the split, which has at least one partition."""

    partitions: Count | None = None
    rows: Count | None = None
    bytes: Count | None = None
    #: how long a run should take: turned into one of the others by what earlier runs took
    #: (`trainflow.samples.throughput`)
    target_seconds: Annotated[float, Meta(gt=0)] | None = None


class Samples(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A sample table, cut into partitions of one length: of seconds, or of calendar months (one of the two is given).

    `path` is an fsspec URL (or a path relative to the project) of one partition's folder, with the partition's start as
    a time pattern: `s3://bucket/table/date={start:%Y-%m-%d}/hour={start:%H}/`. Where it ends with a suffix and without
    a slash it is the partition's one file: `data/events-{start:%Y%m%d}.parquet`.

    Raises InputError for a length that is none.
    """

    path: str
    #: the first partition; aware UTC
    start: datetime
    #: fixed length, at least a minute; 0: the length is calendar months
    length_seconds: int = 0
    #: 1: a month, 3: a quarter, 12: a year; 0: the length is fixed
    length_months: int = 0
    #: exclusive end; None: the table goes on
    end: datetime | None = None
    #: glob of the sample files in the folder
    files: str = DEFAULT_FILES
    ready: Ready = msgspec.field(default_factory=Ready)
    checks: Checks | None = None
    #: `strict`: every file of a split, and of the splits before it, has the same columns. `fill`: what a file lacks is
    #: null
    columns: Literal["strict", "fill"] = "strict"
    gaps: GapPolicy = msgspec.field(default_factory=GapPolicy)
    republished: Republished = msgspec.field(default_factory=Republished)
    #: a partition counts only when the one so many later is ready too: labels that come late
    lag: Annotated[int, Meta(ge=0)] = 0
    #: step over what is older than this, counted back from the end of the newest partition that is ready and not
    #: empty; None: train on everything
    catch_up_seconds: Annotated[float, Meta(gt=0)] | None = None
    storage_options: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.length_seconds < _SHORTEST or self.length_months) and (self.length_months < 1 or self.length_seconds):
            raise InputError(
                f"samples of {self.path} need one length: length_seconds (at least {_SHORTEST}) or length_months; got "
                f"{self.length_seconds} and {self.length_months}"
            )
