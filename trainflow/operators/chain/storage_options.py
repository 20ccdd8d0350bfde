"""Where the means to reach a store or a sample table come from when an operator runs.

Options (keys, endpoints) come from the project's settings - `[checkpoints] storage_options`, `[samples]
storage_options`, each of which an environment variable may hold - and from an operator's own `storage_options`, which
wins key by key. They are put together in the process that uses them and leave it nowhere: not in an XCom, a log, a
note, or the arguments of a trigger, which are all kept in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.settings.home import Home
from trainflow.settings.model import Settings
from trainflow.storage.drivers import check_no_credentials, protocol_of
from trainflow.storage.reachability import identity_of, probe_once_a_day
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.samples.spec import Samples


def store_url(given: str | None, settings: Settings) -> str:
    """The URL of the store. Raises InputError for one with credentials in it: it is shown to people and recorded."""
    url = given or settings.checkpoints.store
    check_no_credentials(url)
    return url


def open_chain_store(
    url: str, *, given: Mapping[str, Any] | None, settings: Settings, root: Path, home: Home | None = None
) -> Store:
    """The store at `url`, with the options of the settings and, on top, those `given` to the operator. In `home` lies
    what need not be read again of one that is elsewhere."""
    copies = None if home is None else home.store_copies
    return open_store(url, storage_options=checkpoint_options(given, settings), root=root, copies=copies)


def probe_store(store: Store, url: str, given: Mapping[str, Any] | None, ti: TaskInstance) -> None:
    """Try whether the store at `url` creates exclusively, once a day. Raises StoreNotExclusive, StoreFailure."""
    identity = identity_of(url, checkpoint_options(given, ti.settings))
    probe_once_a_day(store, identity, ti.home.store_probes, ti.clock.now())


def checkpoint_options(given: Mapping[str, Any] | None, settings: Settings) -> dict[str, Any]:
    """The options for the checkpoint store."""
    return {**settings.checkpoints.storage_options, **(given or {})}


def foreign_options(path: str, given: Mapping[str, Any] | None, settings: Settings) -> dict[str, Any]:
    """The options for a folder of checkpoints that trainflow did not write: those given with it, on top of those of the
    project's store where that is of the same kind."""
    same = protocol_of(path) == protocol_of(settings.checkpoints.store)
    return {**(settings.checkpoints.storage_options if same else {}), **(given or {})}


def sample_options(given: Mapping[str, Any] | None, settings: Settings) -> dict[str, Any]:
    """The options for sample tables."""
    return {**settings.samples.storage_options, **(given or {})}


def with_options(samples: Samples, settings: Settings) -> Samples:
    """`samples` with the options of the settings added to its own."""
    return msgspec.structs.replace(samples, storage_options=sample_options(samples.storage_options, settings))


def without_options(samples: Samples) -> Samples:
    """`samples` as it may be written down."""
    return msgspec.structs.replace(samples, storage_options={})
