"""What a person says about the checkpoints of an existing model that a chain is to begin with. Pure data."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from trainflow.errors import InputError
from trainflow.observability.redaction import redact_text
from trainflow.samples.grid import outside_problem
from trainflow.samples.pattern import PathPattern, path_pattern
from trainflow.samples.spec import Ready


class Adopt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the checkpoints of an existing model are. `path` is an fsspec URL, or a path relative to the project, with
    the watermark in it: `s3://models/ranker/{watermark:%Y%m%d}/`. Raises InputError for one that cannot be."""

    path: str
    #: which one; None: the newest that is ready
    watermark: datetime | None = None
    #: added to the date in the name to get the watermark: a day, where folders are named by the last day trained
    offset_seconds: float = 0.0
    #: when a folder counts as completely written
    ready: Ready = msgspec.field(default_factory=lambda: Ready(min_files=1))
    #: glob of the files that are the checkpoint
    files: str = "**"
    storage_options: dict[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if redact_text(self.path) != self.path:
            raise InputError(
                f"adopt.path {redact_text(self.path)} has credentials in it, and paths are recorded: move them to "
                "storage_options or to the environment"
            )
        for what, glob in (("adopt.files", self.files), ("adopt.ready.marker", self.ready.marker)):
            problem = outside_problem(what, glob)
            if problem is not None:
                raise InputError(problem)
        self.pattern()

    def pattern(self) -> PathPattern:
        """The path as a pattern of dates. Raises InputError."""
        if "{start" in self.path:
            raise InputError(f"adopt.path {self.path!r}: write {{watermark:%Y%m%d}} where the checkpoint's date goes")
        try:
            pattern = path_pattern(self.path.replace("{watermark:", "{start:"))
            if pattern.names_a_year:
                return pattern
            problem = InputError(f"samples.path {self.path!r} names no year; add {{start:%Y}}")
        except InputError as error:
            problem = error
        said = str(problem).replace("samples.path", "adopt.path").replace("{start:", "{watermark:")
        said = said.replace("partition's start", "watermark").replace("every partition", "every checkpoint")
        raise InputError(said.replace("table/date=", "models/"))
