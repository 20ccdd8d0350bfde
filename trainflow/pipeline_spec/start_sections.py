"""Sections of a pipeline file that say what a chain starts from: another stage, or an existing model that it adopts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.errors import InputError
from trainflow.operators.chain.init_from import parse_init_from, parse_pin
from trainflow.pipeline_spec.fields import Count, Name, Size, UtcDatetime, Wait, refusals, text_as
from trainflow.pipeline_spec.sections import Section
from trainflow.samples.spec import Ready


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
    """In place of all others: `pipeline/stage/branch@checkpoint`, or without `@checkpoint` the head of that chain; the
    first run starts from it. May be written without the key."""

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
    """Options of the fsspec file system. Credentials are better left to the environment."""

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
