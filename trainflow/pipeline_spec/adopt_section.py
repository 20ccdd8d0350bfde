"""The checkpoints of an existing model that a chain begins with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from trainflow.checkpoints.actions.import_spec import Adopt
from trainflow.errors import InputError
from trainflow.pipeline_spec.fields import Count, Size, UtcDatetime, Wait
from trainflow.pipeline_spec.section import Section
from trainflow.samples.spec import Ready


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
        try:
            adopt_of(self)
        except InputError as error:
            raise ValueError(str(error)) from None
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
