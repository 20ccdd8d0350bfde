"""What every section of a pipeline file is, and the sections of single tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainflow.bounds import LARGEST_INTEGER
from trainflow.pipeline_spec.fields import Duration, Function, Name, Wait


class Section(BaseModel):
    """A part of a pipeline file: no key it does not know, no type it would have to guess."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, defer_build=True)


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


class AfterCommitSection(TaskSection):
    """A task after the commit, which the next run does not wait for: a function or a command, exactly one of them."""

    name: Name
    """Id of the task."""
    function: Function | None = None
    """`module.path:name` of a function that takes an AfterCommitContext."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """Program and arguments. The variable TRAINFLOW_CHECKPOINT names the folder with the checkpoint's files."""

    @model_validator(mode="after")
    def _one_of(self) -> AfterCommitSection:
        if (self.function is None) == (self.command is None):
            raise ValueError("give either 'function' or 'command'")
        return self
