"""Answers of the processes in which a command has a pipeline file read: documents, what these must not hold, and what
is wrong with the places that it names."""

from __future__ import annotations

from typing import Any

import msgspec

from trainflow.checkpoints.stages.init_from import Dependent
from trainflow.checkpoints.upkeep.retention import Policy
from trainflow.messages.workload import ParseResult


class ChainAccess(msgspec.Struct, frozen=True):
    """How the pipeline itself reaches its chain. Travels through a pipe and is never kept: it may hold secrets."""

    store_options: dict[str, Any] = msgspec.field(default_factory=dict)
    sample_options: dict[str, Any] = msgspec.field(default_factory=dict)
    #: of the folder that the chain adopts
    adopt_options: dict[str, Any] = msgspec.field(default_factory=dict)
    #: what a commit keeps; empty: everything
    retention: list[Policy] = msgspec.field(default_factory=list)
    #: the stages that start from its checkpoints
    dependents: list[Dependent] = msgspec.field(default_factory=list)


class ParsedFile(msgspec.Struct, frozen=True):
    """One file. `access` is by DAG id, for those that train a chain."""

    result: ParseResult
    access: dict[str, ChainAccess] = msgspec.field(default_factory=dict)


class StoreProblem(msgspec.Struct, frozen=True):
    """A place that a pipeline names and that cannot be used.

    `message`: what refused, why, and what to do. `stage` and `key` (`store`, `samples.path`, `adopt.path`) say which
    line of the pipeline names the place; an empty key: the settings do."""

    message: str
    stage: str = ""
    key: str = ""
