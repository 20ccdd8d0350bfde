"""The sample table of a pipeline file, and how much of it one run takes.

The names are those of `trainflow.samples.spec`, with durations (`6h`) in place of seconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from trainflow.pipeline_spec.fields import (
    Columns,
    Count,
    Duration,
    Fraction,
    PartitionLength,
    Range,
    Size,
    UtcDatetime,
    Wait,
    checked,
    text_as,
)
from trainflow.pipeline_spec.quantities import Length
from trainflow.pipeline_spec.sections import Section, TaskSection
from trainflow.samples.grid import Grid, file_problem, length_problem, start_problem
from trainflow.samples.pattern import path_pattern
from trainflow.samples.spec import Checks, GapPolicy, Ready, Republished, Samples, SplitLimits

_ANY = datetime(1970, 1, 1, tzinfo=UTC)


class ReadySection(Section):
    """When a partition counts as completely written: every condition given here holds. With none given, a `_SUCCESS`
    marker is asked for; where the path names a file, that it is there."""

    marker: str | None = None
    """Name of a marker file in the partition's folder; may be a glob, and hold the partition's start as the path does:
    `events-{start:%Y%m%d}.parquet.done`."""
    min_files: Count | None = None
    """At least this many sample files."""
    min_rows: Count | None = None
    """At least this many rows."""
    min_bytes: Size | None = None
    """At least this size of all sample files together: a number of bytes, or 512MB, 2GiB."""
    stable: Duration | None = None
    """No file of the partition was written for this long: on a disk by the time that the system sets, which a copy
    cannot keep; on an object store by that of the upload."""
    unfinished: Wait = timedelta(minutes=10)
    """A file that cannot be read yet (behind a marker that came too early, say) is waited for until nothing in the
    partition has changed for this long; then it is damaged, and the partition is refused."""


class ChecksSection(Section):
    """When a ready partition is good. Read from Parquet footers wherever they hold the answer."""

    min_rows: Count | None = None
    """Fewest rows a partition may have."""
    max_rows: Count | None = None
    """Most rows a partition may have."""
    columns: Columns = Field(default_factory=dict)
    """Columns that must be there: a list of names, or name: Arrow type (`int64`, `string`; nothing: any type)."""
    nulls: dict[str, Fraction] = Field(default_factory=dict)
    """Column: largest allowed fraction of nulls (NaN counts as one), 0 to 1."""
    ranges: dict[str, Range] = Field(default_factory=dict)
    """Column: [smallest, largest] allowed value; null leaves one side open."""


class GapsSection(Section):
    """What to do when a partition is missing while a later one is ready."""

    wait: Wait = timedelta(0)
    """Wait this long for it, from the moment the later one became ready."""
    then: Literal["skip", "fail"] = "fail"
    """Then step over it (it becomes a hole in the ledger, shown and offered for repair) or fail."""


class RepublishedSection(Section):
    """What to do when a partition that was trained on is published again, or grows."""

    policy: Literal["ignore", "alert", "replay"] = "alert"
    """`alert` says so; `replay` rewinds to before it and trains forward again, and says why where it cannot."""
    window: Duration | None = None
    """How far before the watermark partitions are compared each time the head advances (one listing each); default: the
    last 24 partitions. `trainflow audit` compares all of them."""


Republish = Annotated[
    RepublishedSection,
    BeforeValidator(
        text_as("policy"), json_schema_input_type=Literal["ignore", "alert", "replay"] | RepublishedSection
    ),
]


class CatchUpSection(Section):
    """How far back to go after an outage."""

    newer_than: Duration
    """Step over what is older than this, counted back from the newest partition that is ready and not empty (it becomes
    a hole in the ledger, shown and offered for repair)."""


class SamplesSection(TaskSection):
    """The sample table: where it is, how it is cut in time, when a partition of it is ready and good."""

    path: Annotated[str, AfterValidator(checked(path_pattern))]
    """fsspec URL (or path relative to the project) of one partition's folder, with the partition's start as a time
    pattern: `data/flights/date={start:%Y-%m-%d}/`; `%-m` and the like are without leading zeros. Without a slash and
    with a suffix at its end it is the partition's one file: `data/events-{start:%Y%m%d}.parquet`."""
    length: PartitionLength
    """Length of a partition: 15m, 1h, 1d, …, or of the calendar: 1mo, 3mo, 1y."""
    start: UtcDatetime
    """Start of the first partition, UTC."""
    end: UtcDatetime | None = None
    """Exclusive end of the table, UTC; default: it goes on."""
    files: str = "*.parquet"
    """Glob of the sample files in the folder."""
    ready: ReadySection = Field(default_factory=ReadySection)
    """When a partition is completely written."""
    checks: ChecksSection | None = None
    """When a ready partition is good; default: no checks."""
    columns: Literal["strict", "fill"] = "strict"
    """`strict`: every file has the same columns, those of the splits before included, else the partition is refused.
    `fill`: what a file lacks is null."""
    gaps: GapsSection = Field(default_factory=GapsSection)
    """What to do about a missing partition."""
    republished: Republish = Field(default_factory=RepublishedSection)
    """What to do when a partition that was trained on is published again, or grows: `ignore`, `alert` or `replay`, or
    a section."""
    lag: Annotated[int, Field(ge=0)] = 0
    """A partition counts only when the one so many later is ready too: for labels that come late. The last ones of a
    table with an `end` never count."""
    catch_up: Literal["all"] | CatchUpSection = "all"
    """When the chain is far behind: train on `all` of it, or step over what is too old: `{newer_than: 3d}`."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the fsspec file system, and `driver` (obstore, fsspec). Credentials are better left to the
    environment."""
    poke_interval: Duration = timedelta(seconds=1)
    """How often the triggerer looks for the partition that is waited for."""
    wait_timeout: Duration | None = None
    """One wait for samples may take this long, then the task fails; default: no limit."""

    @model_validator(mode="after")
    def _in_order(self) -> SamplesSection:
        if self.end is not None and self.end <= self.start:
            raise ValueError("'end' must be after 'start' (it is exclusive)")
        return self

    @field_validator("length")
    @classmethod
    def _can_be_told_apart(cls, length: Length, info: ValidationInfo) -> Length:
        if "path" in info.data:
            _refuse(length_problem(path_pattern(info.data["path"]), _cut(length)))
        return length

    @field_validator("start")
    @classmethod
    def _has_a_name(cls, start: datetime, info: ValidationInfo) -> datetime:
        if "path" in info.data and "length" in info.data:
            _refuse(start_problem(path_pattern(info.data["path"]), _cut(info.data["length"], start)))
        return start

    @model_validator(mode="after")
    def _of_one_kind(self) -> SamplesSection:
        check = samples_of(self)
        _refuse(file_problem(path_pattern(self.path), check.files, check.ready))
        return self


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise ValueError(problem)


def _cut(length: Length, start: datetime = _ANY) -> Grid:
    return Grid("", start, length.seconds, length.months)


class SplitSection(Section):
    """How much one run trains on; the first limit reached ends the split, which has at least one partition. With no
    limit, a run trains on everything that is ready."""

    partitions: Count | None = None
    """Most partitions of one split."""
    rows: Count | None = None
    """Most rows of one split."""
    bytes: Size | None = None
    """Largest size of one split's files: a number of bytes, or 512MB, 2GiB."""
    target: Duration | None = None
    """How long one run should take, from its split to its commit: what earlier runs took decides how much fits. The
    first run takes one partition."""


def samples_of(section: SamplesSection) -> Samples:
    """The sample table a section describes."""
    ready, checks, republished = section.ready, section.checks, section.republished
    return Samples(
        path=section.path,
        length_seconds=section.length.seconds,
        length_months=section.length.months,
        start=section.start,
        end=section.end,
        files=section.files,
        ready=Ready(
            marker=ready.marker,
            min_files=ready.min_files,
            min_rows=ready.min_rows,
            min_bytes=ready.min_bytes,
            stable_seconds=ready.stable.total_seconds() if ready.stable else None,
            unfinished_seconds=ready.unfinished.total_seconds(),
        ),
        checks=Checks(**checks.model_dump()) if checks else None,
        columns=section.columns,
        gaps=GapPolicy(wait_seconds=section.gaps.wait.total_seconds(), then=section.gaps.then),
        republished=Republished(
            policy=republished.policy, window_seconds=republished.window.total_seconds() if republished.window else None
        ),
        lag=section.lag,
        catch_up_seconds=None if section.catch_up == "all" else section.catch_up.newer_than.total_seconds(),
        storage_options=section.storage_options,
    )


def limits_of(section: SplitSection) -> SplitLimits:
    """The limits a section describes."""
    return SplitLimits(
        partitions=section.partitions,
        rows=section.rows,
        bytes=section.bytes,
        target_seconds=section.target.total_seconds() if section.target else None,
    )
