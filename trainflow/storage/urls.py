"""Which store a URL means, and whether stores of its kind can fence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.errors import InputError, StoreNotExclusive
from trainflow.observability.redaction import redact_text

if TYPE_CHECKING:
    from trainflow.storage.object_store import ObjectStore
    from trainflow.storage.store import Store

#: fsspec protocols whose `pipe_file(mode="create")` is one conditional request (for memory: made atomic by our lock).
#: Everywhere else fsspec looks first and writes then, which passes every quiet test and loses the first race.
EXCLUSIVE_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):(?::|//)")


def open_store(url: str, *, storage_options: dict[str, Any] | None = None, root: Path | None = None) -> Store:
    """The store at an fsspec URL or a path (relative to `root`, the project). Touches nothing yet.

    Raises StoreNotExclusive for a kind of store known not to create exclusively, InputError when its driver is absent.
    """
    from trainflow.storage.local import LocalStore

    protocol = protocol_of(url)
    if protocol in ("file", "local"):
        path = Path(re.sub(r"^(file|local):(//)?", "", url))
        return LocalStore(path if root is None else root / path)
    check_kind(url)
    return _open_object_store(url, protocol, storage_options or {})


def check_kind(url: str) -> None:
    """Raise StoreNotExclusive for a kind of store that is known not to create exclusively. Touches nothing."""
    protocol = protocol_of(url)
    if protocol in ("file", "local") or protocol in EXCLUSIVE_PROTOCOLS:
        return
    raise StoreNotExclusive(
        f"{redact_text(url)}: {protocol}:// cannot create a file only if it is absent in one step, so it cannot fence; "
        f"keep checkpoints on a local disk or in one of {', '.join(sorted(EXCLUSIVE_PROTOCOLS))}"
    )


def protocol_of(url: str) -> str:
    """`s3` of `s3://…`; `file` for a plain path."""
    match = _PROTOCOL.match(url)
    return match[1].lower() if match else "file"


def _open_object_store(url: str, protocol: str, storage_options: dict[str, Any]) -> ObjectStore:
    from trainflow.storage.object_store import ObjectStore

    try:
        import fsspec

        filesystem, base = fsspec.core.url_to_fs(url, **storage_options)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = f": pip install 'trainflow[{extra}]'" if extra else ""
        raise InputError(f"{redact_text(url)}: the driver of {protocol}:// is not installed{hint} ({error})") from None
    return ObjectStore(filesystem, base, url=redact_text(url).rstrip("/"), in_memory=protocol == "memory")
