"""A URL, or a path, and options become a storage: the one place where any is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainflow.errors import TrainflowError
from trainflow.storage.drivers import (
    LOCAL_PROTOCOLS,
    SFTP_PROTOCOLS,
    check_slashes,
    endpoint_of,
    load_driver,
    open_driver,
    protocol_of,
)
from trainflow.storage.errors import CheckpointFailures, Failures, SampleFailures
from trainflow.storage.exclusive_creation import check_kind
from trainflow.storage.local import LocalStore
from trainflow.storage.local_copies import LocalCopies
from trainflow.storage.store import Storage, Store

_LOCAL = re.compile(r"^(file|local)://")


def open_store(
    url: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    root: Path | None = None,
    copies: Path | None = None,
) -> Store:
    """The store of checkpoints at an fsspec URL or a path (relative to `root`, the project). Touches nothing yet.
    `copies`: a folder for what need not be read again of a store that is elsewhere.

    Raises StoreNotExclusive for a kind of store known not to create exclusively, InputError when its driver is absent
    or the URL lacks a slash.
    """
    check_kind(url)
    if protocol_of(url) in LOCAL_PROTOCOLS:
        path = Path(_LOCAL.sub("", url))
        return LocalStore(path if root is None else root / path)
    known = None if copies is None else LocalCopies(copies, f"{url}\n{endpoint_of(storage_options or {})}")
    return _open_remote(url, storage_options or {}, CheckpointFailures(storage_options), known)


def open_storage(path: str, storage_options: Mapping[str, Any], root: Path | None) -> Storage:
    """The storage that the samples at `path` (a URL, an absolute path, or relative to `root`) are on, and everything
    else there. Its paths are those that the samples have.

    Raises InputError for a protocol that fsspec does not know and a URL that lacks a slash, SampleUnreadable when the
    storage refuses.
    """
    check_slashes(path)
    failures = SampleFailures(storage_options)
    if "://" not in path or path.startswith(("file://", "local://")):
        return LocalStore(root or Path.cwd(), failures)
    return _open_remote(path, storage_options, failures)


def _open_remote(url: str, options: Mapping[str, Any], failures: Failures, copies: LocalCopies | None = None) -> Store:
    if protocol_of(url) in SFTP_PROTOCOLS:
        load_driver(url, options)
        from trainflow.storage.sftp import open_sftp

        return open_sftp(url, options, failures)
    from trainflow.storage.object_store import ObjectStore

    try:
        return ObjectStore(
            lambda: open_driver(url, options), url=failures.masked(url).rstrip("/"), failures=failures, copies=copies
        )
    except TrainflowError:
        raise
    except Exception as error:  # whatever the library of a store raises: it has no base in common
        raise failures.failure("reach", url, error) from failures.shown(error)
