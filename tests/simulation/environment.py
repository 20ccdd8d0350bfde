"""What simulated processes find around them instead of the machine: a folder of their own, names drawn from the seed, a
disk that is never slow, and the world's store and samples behind every URL."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import get_ident
from typing import Any, Protocol

from tests.simulation.fiber import current, is_in_fiber
from trainflow.operators.training.background_saves import BackgroundSaves
from trainflow.operators.triggers import partition
from trainflow.samples.table import probe
from trainflow.settings.home import Home
from trainflow.settings.project import Project
from trainflow.storage import urls
from trainflow.storage.store import Storage, Store
from trainflow.workspace import pipelines


class StorageProvider(Protocol):
    """What processes reach."""

    @property
    def table(self) -> Storage: ...
    def store_of(self, process: Any) -> Store: ...
    def read_pipeline(self, workspace: Any, path: Path, overrides: Mapping[str, str]) -> Any: ...


@contextmanager
def isolated_project(seed: int) -> Iterator[Project]:
    """A project folder for one history. Names that the product draws at random are drawn from the seed; what is logged
    is lost; nothing is ever made durable, since this machine does not lose its power."""
    root = _memory_disk() / f"trainflow-simulation-{os.getpid()}"
    # a process of this number may have been killed before it cleared away what it had
    shutil.rmtree(root, ignore_errors=True)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    here: list[tuple[Any, str, Any]] = [
        (os, "urandom", _names(seed)),
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


def _names(seed: int) -> Callable[[int], bytes]:
    """Instead of `os.urandom`: bytes drawn from the seed, for the history alone. What another test has left running in
    this process, or a library's thread, gets random ones and takes none away."""
    drawn, real, driver = Random(f"names {seed}").randbytes, os.urandom, get_ident()

    def urandom(size: int) -> bytes:
        return drawn(size) if get_ident() == driver or is_in_fiber() else real(size)

    return urandom


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
        pipelines.read_pipeline: world.read_pipeline,
    }
    for real, instead in simulated.items():
        _rebind(real.__name__, real, instead)
    try:
        yield
    finally:
        # also in modules that were imported meanwhile
        for real, instead in simulated.items():
            _rebind(real.__name__, instead, real)


def _rebind(name: str, known: Callable[..., Any], to: Callable[..., Any]) -> None:
    """Have those modules of the product that know one function by this name know another one."""
    for each in [each for path, each in sys.modules.items() if path.startswith("trainflow.")]:
        if vars(each).get(name) is known:
            setattr(each, name, to)


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
