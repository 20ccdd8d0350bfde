"""Every key of a pipeline file: its type, unit, default and meaning. The sections are modules of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from trainflow.pipeline_spec.fields import Gate, Name, StartFrom, Wait
from trainflow.pipeline_spec.retention_section import RetentionSection
from trainflow.pipeline_spec.samples_section import SamplesSection, SplitSection
from trainflow.pipeline_spec.section import FunctionSection, Section, TaskSection, TrainSection
from trainflow.pipeline_spec.store_section import Store


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
