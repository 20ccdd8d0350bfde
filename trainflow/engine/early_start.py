"""What an engine is going to need, begun before the engine is imported: see `trainflow.bootstrap`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trainflow.dag_processor.early_parse import EarlyParse, start_early_parse
from trainflow.executors.spawn import SpawnedForkserver, spawn_forkserver
from trainflow.settings.model import Settings
from trainflow.settings.project import Project


class EarlyStart(NamedTuple):
    """A forkserver that is importing, and the pipeline file that it reads; None: nothing is forked in this project."""

    forkserver: SpawnedForkserver | None = None
    parse: EarlyParse | None = None


@contextmanager
def early_start(project: Project, settings: Settings, path: Path, overrides: dict[str, str]) -> Iterator[EarlyStart]:
    """Start the forkserver and have it read a pipeline file; on the way out it is hung up on, which ends it where no
    engine has taken it over. Raises OSError when no process can be started."""
    if settings.executor.isolation == "spawn":
        yield EarlyStart()
        return
    forkserver = spawn_forkserver(project.root)
    try:
        yield EarlyStart(forkserver, start_early_parse(forkserver, project, path, overrides))
    finally:
        forkserver.discard()
