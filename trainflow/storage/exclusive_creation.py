"""Creation of a file only if it is absent, on which chains rest: which stores can do it, whether this one does, and
whose file it is where the answer was lost."""

from __future__ import annotations

import os

from trainflow.errors import StoreFailure, StoreNotExclusive
from trainflow.observability.redaction import redact_text
from trainflow.storage.drivers import EXCLUSIVE_PROTOCOLS, LOCAL_PROTOCOLS, check_protocol, check_slashes, protocol_of
from trainflow.storage.store import Store

_NOT_EXCLUSIVE = (
    "{url} cannot hold checkpoints: asked to create a file only if it is absent, it {how}, so two runs "
    "could commit the same place in the chain. Use a local disk, S3 (or a server that honours If-None-Match), GCS or "
    "Azure Blob Storage"
)


def created(store: Store, path: str, data: bytes) -> bool:
    """Create a file if it is absent; whether what is there now is `data`. Where the reply was lost, or a driver asked
    again after that, the bytes decide whose file it is. Raises StoreFailure when nothing is there."""
    try:
        store.create_exclusive(path, data)
    except (FileExistsError, StoreFailure) as error:
        [there] = store.read_many([path])
        if there is None and isinstance(error, StoreFailure):
            raise
        return there == data
    return True


def check_kind(url: str) -> None:
    """Raise StoreNotExclusive for a kind of store that is known not to create exclusively, InputError for a URL that
    lacks a slash and for a protocol that does not exist. Touches nothing."""
    check_slashes(url)
    protocol = protocol_of(url)
    if protocol in LOCAL_PROTOCOLS or protocol in EXCLUSIVE_PROTOCOLS:
        return
    check_protocol(url)
    raise StoreNotExclusive(
        f"{redact_text(url)}: {protocol}:// cannot create a file only if it is absent in one step, so two runs could "
        f"commit the same place; keep checkpoints on a local disk or in one of {', '.join(sorted(EXCLUSIVE_PROTOCOLS))}"
    )


def probe(store: Store) -> None:
    """Try exclusive creation for real and clean up.

    Raises StoreNotExclusive when the second creation of a name succeeds, StoreFailure when nothing can be written.
    """
    path = f".trainflow-probe-{os.urandom(8).hex()}"
    if not created(store, path, b"first"):
        raise StoreNotExclusive(_NOT_EXCLUSIVE.format(url=store.url, how="changed a file that was there"))
    try:
        _create_again(store, path)
        if store.read(path) != b"first":
            raise StoreNotExclusive(_NOT_EXCLUSIVE.format(url=store.url, how="changed a file that was there"))
    finally:
        store.delete(path)


def _create_again(store: Store, path: str) -> None:
    try:
        store.create_exclusive(path, b"second")
    except FileExistsError:
        return
    raise StoreNotExclusive(_NOT_EXCLUSIVE.format(url=store.url, how="created the same file twice"))
