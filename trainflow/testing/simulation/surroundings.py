"""What simulated processes find around them instead of the machine: a folder of their own, names drawn from the seed, a
disk that is never slow, and the world's store and samples behind every URL."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Protocol
from unittest.mock import patch

from trainflow.checkpoints import store as stores
from trainflow.checkpoints.store import Store
from trainflow.operators.triggers import partition
from trainflow.samples import batches, handoff, inventory, probe, storage  # noqa: F401 - who opens samples
from trainflow.samples.storage import Storage
from trainflow.settings.home import Home
from trainflow.settings.project import Project
from trainflow.testing.simulation.fiber import current


class Reached(Protocol):
    """What processes reach."""

    @property
    def table(self) -> Storage: ...
    def store_of(self, process: Any) -> Store: ...


@contextmanager
def surrounded(seed: int) -> Iterator[Project]:
    """A project folder for one history. Names that the product draws at random are drawn from the seed; what is logged
    is lost; nothing is ever made durable, since this machine does not lose its power."""
    root = _memory_disk() / f"trainflow-simulation-{os.getpid()}"
    level = logging.root.manager.disable
    with ExitStack() as around:
        around.enter_context(patch.object(os, "urandom", Random(f"names {seed}").randbytes))
        around.enter_context(patch.object(os, "fsync", lambda _descriptor: None))
        around.callback(shutil.rmtree, root, ignore_errors=True)
        around.callback(logging.disable, level)
        logging.disable(logging.CRITICAL)
        yield Project(root, Home(root / ".trainflow"))


@contextmanager
def reached_by_processes(world: Reached) -> Iterator[None]:
    """Behind every URL is what the world has."""
    listings = probe.SharedListings(max_age_seconds=0)
    with ExitStack() as around:
        _replace(around, stores.open_store, lambda _url, **_options: world.store_of(current()))
        _replace(around, storage.open_storage, lambda _path, _options, _root: world.table)
        _replace(around, partition._listings, lambda: listings)
        yield


def _replace(around: ExitStack, real: Callable[..., Any], simulated: Callable[..., Any]) -> None:
    """Everywhere in the product."""
    for module in [module for name, module in sys.modules.items() if name.startswith("trainflow.")]:
        if vars(module).get(real.__name__) is real:
            around.enter_context(patch.object(module, real.__name__, simulated))


def _memory_disk() -> Path:
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
