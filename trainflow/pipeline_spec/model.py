"""Every key of a pipeline file: its type, unit, default and meaning. The sections are modules of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from trainflow.bounds import LARGEST_INTEGER
from trainflow.pipeline_spec.fields import ExecutorConfig, ExecutorName, Name, Wait
from trainflow.pipeline_spec.samples_section import SamplesSection, SplitSection
from trainflow.pipeline_spec.sections import (
    AdoptSection,
    AfterCommitSection,
    Base,
    FunctionSection,
    Gates,
    Promotes,
    RetentionSection,
    Section,
    Store,
    TaskSection,
    TrainSection,
)


class StageSpec(Section):
    """One chain that is trained incrementally: its samples, its training function, its checkpoints."""

    description: str | None = None
    """What it trains, for people."""
    mode: Literal["backfill", "latest"] = "backfill"
    """When nothing new is there: `backfill` ends the chain, `latest` waits for the next partition."""
    store: Store | None = None
    """Where checkpoints go: an fsspec URL, a path relative to the project, or a section; default: the setting
    `checkpoints.store`."""
    init_from: Base | None = None
    """The stage whose checkpoints the runs of this one start from; default: each run starts from the one before it."""
    adopt: AdoptSection | None = None
    """An existing model that the chain begins with: the newest of a folder of dated checkpoints."""
    config: str | None = None
    """File of the model's parameters, relative to the project; laid underneath `params`."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters for the functions: `ctx.params`."""
    retries: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] = 2
    """How often a failed attempt of any task is tried again, where its section does not say."""
    retry_delay: Wait = timedelta(seconds=10)
    """Wait before the next try, where a section does not say."""
    executor: ExecutorName | None = None
    """Executor that runs the tasks, one of those in `[executors]`, where a section does not say; default: the setting
    `executor.default`."""
    executor_config: ExecutorConfig = Field(default_factory=dict)
    """What the tasks ask of their executor."""
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
    gates: Gates = Field(default_factory=list)
    """Conditions that metrics must meet for a commit: `auc >= 0.6`, `auc >= 0.98 * previous`, `loss is finite`. One
    that is not met stops the chain, or what `{require: auc >= 0.6, otherwise: skip}` says."""
    promote: Promotes = Field(default_factory=list)
    """Aliases for good checkpoints: `{alias: champion, when: [auc >= 0.65]}`, or a list of such."""
    commit: TaskSection = Field(default_factory=TaskSection)
    """Retries of the task that commits the checkpoint."""
    after_commit: list[AfterCommitSection] = Field(default_factory=list)
    """Tasks that work on the committed checkpoint, an export or a report: the next run does not wait for them."""
    retention: RetentionSection | None = None
    """Which checkpoints keep their files; default: all."""

    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def places(self) -> dict[str, str]:
        """Where each key is written that a task may have to complain about, by key; not what the file says."""
        return self._places

    @model_validator(mode="after")
    def _begins_one_way(self) -> StageSpec:
        if self.adopt is not None and self.init_from is not None:
            raise ValueError(
                "a stage that starts from another one adopts nothing: leave out 'adopt', or write 'adopt: null' in the "
                "stage where the file says it for all of them"
            )
        return self


class PipelineSpec(Section):
    """A pipeline as it is compiled: each stage with everything it inherits. One chain is one stage."""

    pipeline: Name
    """Name of the pipeline and of its chains: letters, digits, `_`, `-`, `.`"""
    tags: list[str] = Field(default_factory=list)
    """Words to find it by."""
    branch: Name = "main"
    """Branch of the chains."""
    stages: Annotated[dict[Name, StageSpec], Field(min_length=1)]
    """The stages by name, in the order in which they are declared."""


class _PipelineKeys(Section):
    """What is said of the pipeline and not of a stage."""

    pipeline: Name
    """Name of the pipeline, of its DAGs and of its chains: letters, digits, `_`, `-`, `.`"""
    tags: list[str] = Field(default_factory=list)
    """Words to find it by."""
    stage: Name = "main"
    """Name of the stage, where there is one."""
    branch: Name = "main"
    """Branch of the chains."""
    stages: dict[Name, StageSpec] = Field(default_factory=dict)
    """Stages by name, each with its own chain and DAG (`pipeline.stage`). A stage takes what it does not say from the
    keys of the file: sections key by key, anything else whole; `evaluate: null` takes nothing."""


#: what is said of the pipeline and not of a stage
PIPELINE_KEYS = tuple(_PipelineKeys.model_fields)


class PipelineFile(StageSpec, _PipelineKeys):
    """A pipeline file as it is written: the keys of one stage and those of the pipeline side by side. With `stages`,
    the keys of a stage are what every stage has that does not say otherwise."""
