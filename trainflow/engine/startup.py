"""What is needed before the engine is imported: its parts, the signals that stop it, what it is going to need; and what
may fail when it ends.

See `trainflow.bootstrap`.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from trainflow.dag_processor.files import EarlyParse, start_early_parse
from trainflow.errors import DatabaseDamaged, DatabaseUnavailable
from trainflow.executors.spawn import SpawnedForkserver, spawn_forkserver
from trainflow.settings.executors import local_executor
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

log = logging.getLogger(__name__)


class Part(StrEnum):
    """What a process of the control plane can do."""

    SCHEDULER = "scheduler"
    TRIGGERER = "triggerer"
    DAG_PROCESSOR = "dag_processor"
    #: what leaves the project: MLflow and notifications
    MIRROR = "mirror"


ALL_PARTS = frozenset(Part)


def kind_of(parts: frozenset[Part]) -> str:
    """What a process with these parts is called in the database: an engine only with all that a run needs."""
    needed = parts - {Part.MIRROR}
    return next(iter(needed)).value if len(needed) == 1 else "engine"


class EarlyStart(NamedTuple):
    """A forkserver that is importing, and the pipeline file that it reads; None: nothing is forked in this project."""

    forkserver: SpawnedForkserver | None = None
    parse: EarlyParse | None = None


@contextmanager
def early_start(project: Project, settings: Settings, path: Path, overrides: dict[str, str]) -> Iterator[EarlyStart]:
    """Start the forkserver and have it read a pipeline file; on the way out it is hung up on, which ends it where no
    engine has taken it over. Raises OSError when no process can be started."""
    local = local_executor(settings)
    if local is None or local.isolation == "spawn":
        yield EarlyStart()
        return
    forkserver = spawn_forkserver(project.root)
    try:
        yield EarlyStart(forkserver, start_early_parse(forkserver, project, path, overrides))
    finally:
        forkserver.discard()


@contextmanager
def stopping_on_signals(request_stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `request_stop` inside, and a terminal that is closed, too (SIGHUP, but for
    nohup)."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request_stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ignoring_outage(what: str) -> Iterator[None]:
    """A step on the way out that the next engine makes up for."""
    try:
        yield
    except (DatabaseUnavailable, DatabaseDamaged) as error:
        log.warning("could not %s: %s", what, error)
