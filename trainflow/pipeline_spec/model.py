"""Every key of a pipeline file: its type, unit, default and meaning.

The names inside `samples` and `split` are those of `trainflow.samples.spec`, with durations (`6h`) in place of seconds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trainflow.checkpoints.store import check_kind, protocol_of
from trainflow.errors import InputError, StoreNotExclusive
from trainflow.pipeline_spec.fields import (
    Columns,
    Count,
    Duration,
    Fraction,
    Function,
    Gate,
    Length,
    Moment,
    Name,
    Range,
    Size,
    StartFrom,
    Wait,
)
from trainflow.samples.pattern import path_pattern


class Section(BaseModel):
    """A part of a pipeline file: no key it does not know, no type it would have to guess."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, defer_build=True)


class TaskSection(Section):
    """What every task has."""

    retries: Annotated[int, Field(ge=0)] | None = None
    """How often a failed attempt is tried again; default: the pipeline's `retries`. Attempts lost to infrastructure
    (a killed worker, a lost pod) do not count."""
    retry_delay: Wait | None = None
    """Wait before the next try; default: the pipeline's `retry_delay`."""
    timeout: Duration | None = None
    """One attempt may take this long; default: no limit."""
    pool: str = "default_pool"
    """Pool whose slots the task takes."""
    queue: str = "default"
    """Queue of workers that the task is sent to."""


class FunctionSection(TaskSection):
    """A task that calls one function of the project."""

    function: Function
    """`module.path:name`, importable with the project's root on the path."""


class TrainSection(TaskSection):
    """The task that trains: a function or a command, exactly one of them."""

    function: Function | None = None
    """`module.path:name` of a function that takes a TrainContext, writes files to `ctx.output` and returns metrics."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """Program and arguments. The variable TRAINFLOW_TASK names a JSON file that tells it what the function is told; see
    `trainflow.operators.command`."""

    @model_validator(mode="after")
    def _one_of(self) -> TrainSection:
        if (self.function is None) == (self.command is None):
            raise ValueError("give either 'function' or 'command'")
        return self


class ReadySection(Section):
    """When a partition counts as completely written: every condition given here holds. With none given, a `_SUCCESS`
    marker is asked for."""

    marker: str | None = None
    """Name of a marker file in the partition's folder; may be a glob."""
    min_files: Count | None = None
    """At least this many sample files."""
    min_rows: Count | None = None
    """At least this many rows."""
    min_bytes: Size | None = None
    """At least this size of all sample files together: a number of bytes, or 512MB, 2GiB."""
    stable: Duration | None = None
    """No file of the partition was modified for this long."""


class ChecksSection(Section):
    """When a ready partition is good. Read from Parquet footers wherever they hold the answer."""

    min_rows: Count | None = None
    """Fewest rows a partition may have."""
    max_rows: Count | None = None
    """Most rows a partition may have."""
    columns: Columns = Field(default_factory=dict)
    """Columns that must be there: a list of names, or name: Arrow type (`int64`, `string`; nothing: any type)."""
    nulls: dict[str, Fraction] = Field(default_factory=dict)
    """Column: largest allowed fraction of nulls, 0 to 1."""
    ranges: dict[str, Range] = Field(default_factory=dict)
    """Column: [smallest, largest] allowed value; null leaves one side open."""


class GapsSection(Section):
    """What to do when a partition is missing while a later one is ready."""

    wait: Wait = timedelta(0)
    """Wait this long for it, from the moment the later one became ready."""
    then: Literal["skip", "fail"] = "fail"
    """Then step over it (it becomes a hole in the ledger, shown and offered for repair) or fail."""


class SamplesSection(TaskSection):
    """The sample table: where it is, how it is cut in time, when a partition of it is ready and good."""

    path: str
    """fsspec URL (or path relative to the project) of one partition's folder, with the partition's start as a time
    pattern: `data/flights/date={start:%Y-%m-%d}/`."""
    length: Length
    """Length of a partition: 1h, 1d, …"""
    start: Moment
    """Start of the first partition, UTC."""
    end: Moment | None = None
    """Exclusive end of the table, UTC; default: it goes on."""
    files: str = "*.parquet"
    """Glob of the sample files in the folder."""
    ready: ReadySection = Field(default_factory=ReadySection)
    """When a partition is completely written."""
    checks: ChecksSection | None = None
    """When a ready partition is good; default: no checks."""
    gaps: GapsSection = Field(default_factory=GapsSection)
    """What to do about a missing partition."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the fsspec file system. Credentials are better left to the environment."""
    poke_interval: Duration = timedelta(seconds=1)
    """How often the triggerer looks for the partition that is waited for."""
    wait_timeout: Duration | None = None
    """One wait for samples may take this long, then the task fails; default: no limit."""

    @model_validator(mode="after")
    def _in_order(self) -> SamplesSection:
        if self.end is not None and self.end <= self.start:
            raise ValueError("'end' must be after 'start' (it is exclusive)")
        return self

    @model_validator(mode="after")
    def _one_folder_each(self) -> SamplesSection:
        try:
            path_pattern(self.path, int(self.length.total_seconds()))
        except InputError as error:
            raise ValueError(str(error)) from None
        return self


class SplitSection(Section):
    """How much one run trains on; the first limit reached ends the split, which has at least one partition. With no
    limit, a run trains on everything that is ready."""

    partitions: Count | None = None
    """Most partitions of one split."""
    rows: Count | None = None
    """Most rows of one split."""
    bytes: Size | None = None
    """Largest size of one split's files: a number of bytes, or 512MB, 2GiB."""


class StoreSection(Section):
    """Where the ledger and the checkpoints are."""

    url: str
    """fsspec URL, or path relative to the project."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the fsspec file system. Credentials are better left to the environment."""

    @field_validator("url")
    @classmethod
    def _can_fence(cls, url: str) -> str:
        try:
            check_kind(url)
        except StoreNotExclusive as error:
            raise ValueError(str(error)) from None
        if protocol_of(url) == "memory":
            raise ValueError("each task is a process of its own: what one of them keeps in memory, no other sees")
        return url


class KeepBestSection(Section):
    """Keep the best checkpoints by one metric."""

    metric: str
    """Name of the metric."""
    mode: Literal["max", "min"] = "max"
    """Whether larger or smaller is better."""
    count: Count = 1
    """How many to keep."""


class RetentionSection(Section):
    """Which checkpoints keep their files: whatever any line keeps stays. The ledger itself is never shortened, and the
    head always stays."""

    keep_latest: Count | None = None
    """The newest ones, this many."""
    keep_every: Count | None = None
    """Every n-th one, counted from the first."""
    keep_best: KeepBestSection | None = None
    """The best ones by a metric."""


def _url_as_store(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


Store = Annotated[
    StoreSection,
    BeforeValidator(_url_as_store, json_schema_input_type=str | StoreSection),
]


class PipelineSpec(Section):
    """One model that is trained incrementally: its samples, its training function, its chain of checkpoints."""

    pipeline: Name
    """Name of the pipeline, of its DAG and of its chain: letters, digits, `_`, `-`, `.`"""
    description: str | None = None
    """What it trains, for people."""
    tags: list[str] = Field(default_factory=list)
    """Words to find it by."""
    stage: Name = "main"
    """Stage of a model that is trained in several."""
    branch: Name = "main"
    """Branch of the chain."""
    mode: Literal["backfill", "latest"] = "backfill"
    """When nothing new is there: `backfill` ends the chain, `latest` waits for the next partition."""
    store: Store | None = None
    """Where checkpoints go: an fsspec URL, a path relative to the project, or a section; default: the setting
    `checkpoints.store`."""
    start_from: StartFrom | None = None
    """Where a chain without a checkpoint begins: the head of another chain in the same store (`pipeline/stage/branch`),
    or one checkpoint of it (`pipeline/stage/branch@checkpoint`); default: from nothing."""
    config: str | None = None
    """File of the model's parameters, relative to the project; laid underneath `params`."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters for the functions: `ctx.params`."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a failed attempt of any task is tried again, where its section does not say."""
    retry_delay: Wait = timedelta(seconds=10)
    """Wait before the next try, where a section does not say."""
    prepare: FunctionSection | None = None
    """A task before the chain, for example one that brings the samples. It runs in every run: make it idempotent. The
    function is called as PythonOperator calls it: parameters named like keys of the context (`ti`, `params`, …)."""
    samples: SamplesSection
    """The sample table."""
    split: SplitSection = Field(default_factory=SplitSection)
    """How much one run trains on."""
    evaluate: FunctionSection | None = None
    """Scores the newest checkpoint on the new split before it is trained on; default: no evaluation."""
    train: TrainSection
    """Trains on the split, starting from the newest checkpoint."""
    gates: list[Gate] = Field(default_factory=list)
    """Conditions that metrics must meet for a commit: `auc >= 0.6`, `auc >= 0.98 * previous`, `loss is finite`."""
    commit: TaskSection = Field(default_factory=TaskSection)
    """Retries of the task that commits the checkpoint."""
    retention: RetentionSection | None = None
    """Which checkpoints keep their files; default: all."""
    next_stage: Name | None = None
    """Id of a DAG that is triggered when this one has caught up, with the newest checkpoint as its starting point."""

    @field_validator("next_stage")
    @classmethod
    def _comes_to_an_end(cls, name: str | None, info: ValidationInfo) -> str | None:
        samples: SamplesSection | None = info.data.get("samples")
        if name and info.data.get("mode") == "latest" and samples and samples.end is None:
            raise ValueError("never triggered: mode is 'latest' and the samples have no 'end'")
        return name
