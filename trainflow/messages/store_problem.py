"""What is wrong with a place that a pipeline names: an answer of the process that asked it."""

from __future__ import annotations

import msgspec


class StoreProblem(msgspec.Struct, frozen=True):
    """`message`: what refused, why, and what to do. `stage` and `key` (`store`, `samples.path`, `adopt.path`) say which
    line of the pipeline names the place; an empty key: the settings do."""

    message: str
    stage: str = ""
    key: str = ""
