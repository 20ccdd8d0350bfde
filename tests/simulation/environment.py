"""What simulated processes find around them instead of the machine: a folder of their own, names drawn from the seed, a
disk that is never slow, and the world's store and samples behind every URL."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Protocol

from tests.simulation.fiber import current
from trainflow.operators.training.background_saves import BackgroundSaves
from trainflow.operators.triggers import partition
from trainflow.samples.table import probe
from trainflow.settings.home import Home
from trainflow.settings.project import Project
from trainflow.storage import urls
from trainflow.storage.store import Storage, Store


class StorageProvider(Protocol):
    """What processes reach."""

    @property
    def table(self) -> Storage: ...
    def store_of(self, process: Any) -> Store: ...


@contextmanager
def isolated_project(seed: int) -> Iterator[Project]:
    """A project folder for one history. Names that the product draws at random are drawn from the seed; what is logged
    is lost; nothing is ever made durable, since this machine does not lose its power."""
    root = _memory_disk() / f"trainflow-simulation-{os.getpid()}"
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    here: list[tuple[Any, str, Any]] = [
        (os, "urandom", Random(f"names {seed}").randbytes),
        (os, "fsync", _not_now),
        # an upload in the background is one that goes on at once: a kill comes between any two of its steps
        (BackgroundSaves, "_take", BackgroundSaves._try),
    ]
    try:
        with _replaced(here):
            yield Project(root, Home(root / ".trainflow"))
    finally:
        logging.disable(level)
        shutil.rmtree(root, ignore_errors=True)


def _not_now(_descriptor: int) -> None:
    return None


@contextmanager
def storage_redirected(world: StorageProvider) -> Iterator[None]:
    """Behind every URL is what the world has."""
    listings = probe.SharedListings(max_age_seconds=0)
    simulated: dict[Callable[..., Any], Callable[..., Any]] = {
        urls.open_store: lambda _url, **_options: world.store_of(current()),
        urls.open_storage: lambda _path, _options, _root: world.table,
        partition._listings: lambda: listings,
    }
    everywhere = [
        (module, real.__name__, instead)
        for real, instead in simulated.items()
        for module in _modules_with(real, len(sys.modules))
    ]
    with _replaced(everywhere):
        yield


@lru_cache(maxsize=32)
def _modules_with(real: Callable[..., Any], _loaded: int) -> list[Any]:
    """The modules of the product that know it."""
    modules = [module for name, module in sys.modules.items() if name.startswith("trainflow.")]
    return [module for module in modules if vars(module).get(real.__name__) is real]


@contextmanager
def _replaced(places: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """(where, name, what is there meanwhile)"""
    real = [(where, name, getattr(where, name)) for where, name, _ in places]
    try:
        for where, name, instead in places:
            setattr(where, name, instead)
        yield
    finally:
        for where, name, before in real:
            setattr(where, name, before)


def _memory_disk() -> Path:
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
