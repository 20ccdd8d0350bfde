"""Kinds of store: the fsspec file system of a URL, and which stores can create a file only if it is absent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from trainflow.errors import InputError, StoreNotExclusive
from trainflow.observability.redaction import redact_text, texts_of
from trainflow.storage.store import Store

#: the extra of this package that brings the driver of a protocol
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
EXTRAS |= {"sftp": "sftp", "ssh": "sftp"}
#: reached without fsspec, whose driver writes over what is there
SFTP_PROTOCOLS = frozenset({"sftp", "ssh"})
LOCAL_PROTOCOLS = frozenset({"file", "local"})
#: reached without a request
PROTOCOLS_ON_THIS_MACHINE = LOCAL_PROTOCOLS | {"memory"}
#: whose drivers are imported before processes are forked: each takes most of a second, starts no thread by being
#: imported, and survives a fork. That of GCS brings gRPC, which does not
_FORKED = frozenset({"s3", "s3a"})
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):(?::|//)")
#: fsspec protocols whose `pipe_file(mode="create")` is one conditional request (for memory: made atomic by our lock).
#: Everywhere else fsspec looks first and writes then, which passes every quiet test and loses the first race.
EXCLUSIVE_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}) | SFTP_PROTOCOLS
_NOT_EXCLUSIVE = (
    "{url} cannot hold checkpoints: asked to create a file only if it is absent, it {how}, so two runs "
    "could commit the same place in the chain. Use a local disk, S3 (or a server that honours If-None-Match), GCS or "
    "Azure Blob Storage"
)


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The file system, and the path of the URL on it. Raises InputError for a protocol that fsspec does not know, or
    whose driver is not installed, and what the driver raises."""
    # a listing from a cache would hide what another process has written
    extra: dict[str, Any] = {} if driver_of(url) == "memory" else {"use_listings_cache": False}
    if protocol_of(url) in _FORKED:
        extra |= _S3_MODELS.options(options)
    _before_import(driver_of(url), options)
    with _refusing(url, options):
        from fsspec.core import url_to_fs

        filesystem, base = url_to_fs(url, **{**extra, **options})
    return filesystem, str(base)


def load_driver(url: str, options: Mapping[str, Any]) -> None:
    """Import what reaches the files of a URL, which may take a second. Raises InputError as `open_filesystem` does."""
    _before_import(driver_of(url), options)
    with _refusing(url, options):
        if protocol_of(url) in SFTP_PROTOCOLS:
            import_module("trainflow.storage.sftp")
            return
        from fsspec import get_filesystem_class

        get_filesystem_class(driver_of(url))


def _before_import(driver: str, options: Mapping[str, Any]) -> None:
    """Newer gcsfs asks Google what kind of bucket it is before each write, by gRPC and TLS: an endpoint of one's own
    knows neither, and each question is asked for a minute."""
    if driver in ("gs", "gcs") and (options.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST")):
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


class _S3Models:
    """What botocore reads of its files before the first request, 80 ms of the processor and 14 MiB: read once, before
    processes are forked. A session, which holds credentials, is each process's own."""

    def __init__(self) -> None:
        self._loader: Any = None
        #: of the process with this id
        self._session: tuple[int, Any] = (0, None)

    def load(self) -> None:
        """Read them. Raises what botocore raises."""
        loader = import_module("aiobotocore.session").AioSession().get_component("data_loader")
        for name in ("service-2", "endpoint-rule-set-1", "paginators-1"):
            loader.load_service_model("s3", name)
        for name in ("endpoints", "partitions", "_retry", "sdk-default-configuration"):
            loader.load_data_with_path(name)
        self._loader = loader

    def options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What to open a file system of S3 with, beside `options`, where they were read and no session is asked for."""
        if self._loader is None or {"session", "profile"} & options.keys():
            return {}
        if self._session[0] != os.getpid():
            session = import_module("aiobotocore.session").AioSession()
            session.register_component("data_loader", self._loader)
            self._session = os.getpid(), session
        return {"session": self._session[1]}


_S3_MODELS = _S3Models()


def load_before_fork(url: str) -> None:
    """Import what reaches the files of a URL, where forked processes can share it. Never raises: who uses the store is
    told what is wrong with it."""
    if protocol_of(url) in SFTP_PROTOCOLS:
        with suppress(Exception):
            load_driver(url, {})
    elif driver_of(url) in _FORKED and protocol_of(url) in _FORKED:
        with suppress(Exception):
            load_driver(url, {})
            _S3_MODELS.load()


@contextmanager
def _refusing(url: str, options: Mapping[str, Any]) -> Iterator[None]:
    protocol = driver_of(url)
    try:
        yield
    except ImportError as error:
        name = EXTRAS.get(protocol)
        remedy = f"pip install 'trainflow[{name}]'" if name else "install the package it names"
        raise InputError(f"{protocol}:// needs a package that is not installed ({error}); {remedy}") from None
    except ValueError as error:
        said = redact_text(str(error), texts_of(options))
        raise InputError(f"{redact_text(url, texts_of(options))}: {said}") from None


def driver_of(url: str) -> str:
    """The protocol whose driver reaches the files: `s3` of `simplecache::s3://…`."""
    return url.split("://", 1)[0].split("::")[-1].lower()


def protocol_of(url: str) -> str:
    """`s3` of `s3://…`; `file` for a plain path."""
    match = _PROTOCOL.match(url)
    return match[1].lower() if match else "file"


def check_kind(url: str) -> None:
    """Raise StoreNotExclusive for a kind of store that is known not to create exclusively. Touches nothing."""
    protocol = protocol_of(url)
    if protocol in LOCAL_PROTOCOLS or protocol in EXCLUSIVE_PROTOCOLS:
        return
    raise StoreNotExclusive(
        f"{redact_text(url)}: {protocol}:// cannot create a file only if it is absent in one step, so two runs could "
        f"commit the same place; keep checkpoints on a local disk or in one of {', '.join(sorted(EXCLUSIVE_PROTOCOLS))}"
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
