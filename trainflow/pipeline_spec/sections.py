"""Sections of a pipeline file, each with what it becomes: single tasks, the store, gates and promotions, retention, and
what a chain starts from: another stage, or an existing model that it adopts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from trainflow.bounds import LARGEST_INTEGER
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.gates import STOP, Gate, parse_condition, rewind_of
from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.checkpoints.ledger_changes.promote import Promote, check_alias
from trainflow.checkpoints.upkeep.retention import KeepBest, KeepDaily, KeepEvery, KeepLatest, KeepWeekly, Policy
from trainflow.errors import InputError
from trainflow.operators.chain.start_weights import parse_init_from, parse_pin
from trainflow.pipeline_spec.fields import (
    Count,
    Duration,
    ExecutorConfig,
    ExecutorName,
    Function,
    Name,
    Size,
    UtcDatetime,
    Wait,
    checked,
    refusals,
    text_as,
)
from trainflow.samples.spec import Ready
from trainflow.settings.executors import MOST_NODES
from trainflow.storage.drivers import check_no_credentials, protocol_of
from trainflow.storage.exclusive_creation import check_kind

_Task = TypeVar("_Task", "TrainSection", "AfterCommitSection")


class Section(BaseModel):
    """A part of a pipeline file: no key it does not know, no type it would have to guess."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class TaskSection(Section):
    """What every task has."""

    retries: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] | None = None
    """How often a failed attempt is tried again; default: the pipeline's `retries`. Attempts lost to infrastructure
    (a killed worker, a lost pod) do not count, nor does one that saved more of its split than any before it."""
    retry_delay: Wait | None = None
    """Wait before the next try; default: the pipeline's `retry_delay`."""
    timeout: Duration | None = None
    """One attempt may take this long; default: no limit."""
    pool: str = "default_pool"
    """Pool whose slots the task takes."""
    queue: str = "default"
    """Queue of workers that the task is sent to."""
    executor: ExecutorName | None = None
    """Executor that runs the task, one of those in `[executors]`; default: the pipeline's `executor`."""
    executor_config: ExecutorConfig = Field(default_factory=dict)
    """What the task asks of its executor, laid over the pipeline's `executor_config`. For `kubernetes`: `image`,
    `namespace`, `pod_template` (a YAML file with a pod, relative to the project). For `ray`: `num_cpus`, `num_gpus`,
    `memory`, `resources`."""


class FunctionSection(TaskSection):
    """A task that calls one function of the project."""

    function: Function
    """`module.path:name`, importable with the project's root on the path."""


def _function_or_command(section: _Task) -> _Task:
    if (section.function is None) == (section.command is None):
        raise ValueError("give either 'function' or 'command'")
    return section


class TrainSection(TaskSection):
    """The task that trains: a function or a command, exactly one of them."""

    function: Function | None = None
    """`module.path:name` of a function that takes a TrainContext, writes files to `ctx.output` and returns metrics."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """Program and arguments. The variable TRAINFLOW_TASK names a JSON file that tells it what the function is told; see
    `trainflow.operators.training.training_task`."""
    nodes: Annotated[int, Field(ge=1, le=MOST_NODES)] = 1
    """How many processes train the split together, as one attempt: each reads its share of the rows, the first one
    saves and reports. On `kubernetes` and `ray` each has a
    place of its own, elsewhere all are processes of one host."""

    _one_of = model_validator(mode="after")(_function_or_command)


class AfterCommitSection(TaskSection):
    """A task after the commit, which the next run does not wait for: a function or a command, exactly one of them."""

    name: Name
    """Id of the task."""
    function: Function | None = None
    """`module.path:name` of a function that takes an AfterCommitContext."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """Program and arguments. The variable TRAINFLOW_CHECKPOINT names the folder with the checkpoint's files."""

    _one_of = model_validator(mode="after")(_function_or_command)


class StoreSection(Section):
    """Where the ledger and the checkpoints are."""

    url: str
    """fsspec URL, or path relative to the project."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the fsspec file system, and `driver` (obstore, fsspec). Credentials are better left to the
    environment."""

    @field_validator("url")
    @classmethod
    def _can_fence(cls, url: str) -> str:
        with refusals():
            check_no_credentials(url)
            check_kind(url)
        if protocol_of(url) == "memory":
            raise ValueError("each task is a process of its own: what one of them keeps in memory, no other sees")
        return url


Store = Annotated[StoreSection, BeforeValidator(text_as("url"), json_schema_input_type=str | StoreSection)]


_condition = checked(parse_condition)
Condition = Annotated[
    str, AfterValidator(_condition), WithJsonSchema({"type": "string", "examples": ["auc >= 0.6", "loss is finite"]})
]
Action = Annotated[
    str,
    AfterValidator(checked(rewind_of)),
    WithJsonSchema({"type": "string", "pattern": r"^(stop|skip|rewind\s+[1-9]\d*)$", "examples": ["skip", "rewind 2"]}),
]


class GateSection(Section):
    """A condition, and what happens when the metrics do not meet it."""

    require: Condition
    """`auc >= 0.6`, `auc >= 0.98 * previous` (the parent's), `loss <= previous + 0.01`, `loss is finite`."""
    otherwise: Action = STOP
    """`stop`: nothing is committed until a person decides (`trainflow resume`). `skip`: this split is left out and
    recorded as a hole. `rewind N`: go back N checkpoints and train forward again, once for a split. When several gates
    refuse, the most severe is done: stop, rewind, skip."""


class PromoteSection(Section):
    """An alias for good checkpoints, in the ledger and in the MLflow model registry."""

    alias: Annotated[
        str, AfterValidator(checked(check_alias)), WithJsonSchema({"type": "string", "examples": ["champion"]})
    ]
    """The alias: letters, digits, `_`, `-`."""
    when: Annotated[
        list[Condition],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=Any),
        Field(default_factory=list),
    ]
    """Conditions as those of gates, all of which must be met; none: every checkpoint gets it."""


def _text_as_gate(value: Any) -> Any:
    return {"require": _condition(value)} if isinstance(value, str) else value


def _one_as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


#: a condition alone stops
Gates = list[Annotated[GateSection, BeforeValidator(_text_as_gate, json_schema_input_type=Condition | GateSection)]]
Promotes = Annotated[
    list[PromoteSection], BeforeValidator(_one_as_list, json_schema_input_type=PromoteSection | list[PromoteSection])
]


def gates_of(sections: list[GateSection]) -> list[Gate]:
    """The gates that sections describe."""
    return [Gate(section.require, section.otherwise) for section in sections]


def promotes_of(sections: list[PromoteSection]) -> list[Promote]:
    """The promotions that sections describe."""
    return [Promote(section.alias, tuple(section.when)) for section in sections]


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
    keep_daily: Count | None = None
    """One for each of the newest days that were trained, this many: the last of the day."""
    keep_weekly: Count | None = None
    """One for each of the newest weeks that were trained, this many."""
    keep_best: KeepBestSection | None = None
    """The best ones by a metric."""


def policies_of(section: RetentionSection | None) -> tuple[Policy, ...]:
    """The retention policies a section describes."""
    if section is None:
        return ()
    best = section.keep_best
    policies = (
        KeepLatest(section.keep_latest) if section.keep_latest else None,
        KeepEvery(section.keep_every) if section.keep_every else None,
        KeepDaily(section.keep_daily) if section.keep_daily else None,
        KeepWeekly(section.keep_weekly) if section.keep_weekly else None,
        KeepBest(best.metric, best.mode, best.count) if best else None,
    )
    return tuple(policy for policy in policies if policy)


class InitFromSection(Section):
    """The upstream: the chain whose checkpoints the runs of this stage start from."""

    stage: Name | None = None
    """Name of the stage."""
    at: Literal["same_watermark", "latest", "promoted"] | None = None
    """`same_watermark` (the default): from the upstream's next checkpoint that has trained more, on what lies
    between. Of an upstream that is declared further down: from its checkpoint at this stage's own watermark, so that
    day D starts from the upstream's day D-1. `latest`: from the newest one. `promoted`: from the newest one that a
    gate promoted."""
    once: bool = False
    """Only the first run starts from the upstream, once that is caught up; the stage goes on from its own checkpoints.
    """
    alias: Name | None = None
    """With `at: promoted`: the alias that is meant; default: any."""
    pipeline: Name | None = None
    """Pipeline of the upstream, in the same store; default: this one."""
    branch: Name | None = None
    """Branch of the upstream; default: this one, and of another pipeline `main`."""
    checkpoint: str | None = None
    """In place of all others: `pipeline/stage/branch@checkpoint` (its number or id), or without `@checkpoint` the head
    of that chain; the first run starts from it. May be written without the key."""

    @model_validator(mode="after")
    def _possible(self) -> InitFromSection:
        others = [name for name in type(self).model_fields if name != "checkpoint" and getattr(self, name)]
        if self.checkpoint is not None and others:
            raise ValueError(f"'checkpoint' says all: leave out {', '.join(others)}")
        if self.alias and self.at != "promoted":
            raise ValueError("'alias' belongs to at: promoted")
        try:
            if self.checkpoint is not None:
                parse_pin(self.checkpoint)
            else:
                parse_init_from(self.as_argument(), ChainKey("any", "a-name-that-is-not-known-here"))
        except InputError as error:
            raise ValueError(str(error).removeprefix("init_from: ")) from None
        return self

    def as_argument(self, *, feedback: bool = False, through: Sequence[str] = ()) -> dict[str, Any] | str:
        """What CheckpointOperator takes as `init_from`."""
        if self.checkpoint is not None:
            return self.checkpoint
        given = self.model_dump(exclude_none=True, exclude_defaults=True)
        back = {"feedback": True, **({"through": list(through)} if through else {})}
        return {**given, **back} if feedback else given


Base = Annotated[InitFromSection, BeforeValidator(text_as("checkpoint"), json_schema_input_type=str | InitFromSection)]


class AdoptReadySection(Section):
    """When a folder counts as completely written: every condition given here holds. With none given, one file is
    enough."""

    marker: str | None = None
    """Name of a marker file in the folder; may be a glob."""
    min_files: Count | None = None
    """At least this many files."""
    min_bytes: Size | None = None
    """At least this size of all files together: a number of bytes, or 512MB, 2GiB."""
    stable: Wait | None = None
    """No file of the folder was modified for this long."""


class AdoptSection(Section):
    """A chain without entries begins with a checkpoint that trainflow did not write. It is only ever read."""

    path: str
    """fsspec URL (or path relative to the project) of one checkpoint's folder, with its watermark in it:
    `models/{watermark:%Y%m%d}/`."""
    watermark: UtcDatetime | Literal["newest"] = "newest"
    """Which one: up to where it was trained, UTC (exclusive); default: the newest that is ready."""
    offset: Wait = timedelta(0)
    """Added to the date in the name to get the watermark: 1d where folders are named by the last day trained."""
    ready: AdoptReadySection = Field(default_factory=AdoptReadySection)
    """When a folder is completely written."""
    files: str = "**"
    """Glob of the files that are the checkpoint."""
    storage_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the fsspec file system, and `driver` (obstore, fsspec). Credentials are better left to the
    environment."""

    @model_validator(mode="after")
    def _can_be_found(self) -> AdoptSection:
        with refusals():
            adopt_of(self)
        return self


def adopt_of(section: AdoptSection) -> Adopt:
    """What a section describes. Raises InputError for a path that names no date."""
    ready = section.ready
    conditions = Ready(
        marker=ready.marker,
        min_files=ready.min_files,
        min_bytes=ready.min_bytes,
        stable_seconds=ready.stable.total_seconds() if ready.stable else None,
    )
    return Adopt(
        path=section.path,
        watermark=None if section.watermark == "newest" else section.watermark,
        offset_seconds=section.offset.total_seconds(),
        ready=Ready(min_files=1) if conditions == Ready() else conditions,
        files=section.files,
        storage_options=section.storage_options,
    )
