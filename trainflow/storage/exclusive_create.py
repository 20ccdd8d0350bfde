"""Which stores can create a file only if it is absent: by kind before anything is asked, and by trying it for real."""

from __future__ import annotations

import os

from trainflow.errors import StoreNotExclusive
from trainflow.observability.redaction import redact_text
from trainflow.storage.drivers import LOCAL_PROTOCOLS, protocol_of
from trainflow.storage.store import Store

#: fsspec protocols whose `pipe_file(mode="create")` is one conditional request (for memory: made atomic by our lock).
#: Everywhere else fsspec looks first and writes then, which passes every quiet test and loses the first race.
EXCLUSIVE_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
_NOT_EXCLUSIVE = (
    "{url} cannot fence: asked to create a file only if it is absent, it {how}, so two runs could commit the same "
    "place in the chain. Use a local disk, S3 (or a server that honours If-None-Match), GCS or Azure Blob Storage"
)


def check_kind(url: str) -> None:
    """Raise StoreNotExclusive for a kind of store that is known not to create exclusively. Touches nothing."""
    protocol = protocol_of(url)
    if protocol in LOCAL_PROTOCOLS or protocol in EXCLUSIVE_PROTOCOLS:
        return
    raise StoreNotExclusive(
        f"{redact_text(url)}: {protocol}:// cannot create a file only if it is absent in one step, so it cannot fence; "
        f"keep checkpoints on a local disk or in one of {', '.join(sorted(EXCLUSIVE_PROTOCOLS))}"
    )


def probe(store: Store) -> None:
    """Try exclusive creation for real and clean up.

    Raises StoreNotExclusive when the second creation of a name succeeds, StoreFailure when nothing can be written.
    """
    path = f".trainflow-probe-{os.urandom(8).hex()}"
    if not store.created(path, b"first"):
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
