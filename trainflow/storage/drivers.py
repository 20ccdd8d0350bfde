"""Kinds of store: which driver reaches the files of a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainflow.errors import InputError
from trainflow.identifiers import did_you_mean
from trainflow.observability.redaction import redact_text, texts_of
from trainflow.protocols import credentials_problem, slash_problem
from trainflow.storage.driver import Driver
from trainflow.storage.obstore.fsspec_options import OptionNotMapped

if TYPE_CHECKING:
    from logging import Logger


#: the extra of this package that brings fsspec's driver of a protocol
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
#: those that obstore reaches
_OF_OBSTORE = frozenset(EXTRAS)
EXTRAS |= {"sftp": "sftp", "ssh": "sftp"}
#: reached without fsspec, whose driver writes over what is there
SFTP_PROTOCOLS = frozenset({"sftp", "ssh"})
LOCAL_PROTOCOLS = frozenset({"file", "local"})
#: reached without a request
PROTOCOLS_ON_THIS_MACHINE = LOCAL_PROTOCOLS | {"memory"}
#: the option that names the driver
DRIVER_OPTION = "driver"
_DRIVERS = ("obstore", "fsspec")
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):(?::|//)")
#: fsspec protocols whose `pipe_file(mode="create")` is one conditional request (for memory: made atomic by our lock).
#: Everywhere else fsspec looks first and writes then, which passes every quiet test and loses the first race.
EXCLUSIVE_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}) | SFTP_PROTOCOLS
#: of which it was said that fsspec reaches it
_said: set[str] = set()


def open_driver(url: str, options: Mapping[str, Any], *, quick_seconds: float | None = None) -> tuple[Driver, str]:
    """The driver of a URL, and the path of the URL. `quick_seconds`: how long a connection may take, of a driver that
    is to answer at once. Raises InputError for a protocol that nothing reaches, or whose driver is not installed, and
    what the driver raises."""
    opened = _obstore(url, options, quick_seconds)
    if not isinstance(opened, str):
        return opened
    return _fsspec(url, options, quick_seconds, opened)


def _obstore(url: str, options: Mapping[str, Any], quick_seconds: float | None = None) -> tuple[Driver, str] | str:
    """The driver of obstore; else why fsspec's is to be taken, empty where that needs no word."""
    reason = _why_fsspec(url, options)
    if reason is None:
        from trainflow.storage.obstore.driver import ObstoreDriver
        from trainflow.storage.obstore.urls import buckets_of, path_of

        try:
            with _refusing(url, options):
                driver = ObstoreDriver(buckets_of(url, options, os.environ, quick_seconds), path_of)
            return driver, path_of(url)
        except OptionNotMapped as error:
            reason = f"obstore has no word for the option {error}"
    if options.get(DRIVER_OPTION) == "obstore":
        raise InputError(f"{redact_text(url, texts_of(options))} cannot be reached by obstore: {reason}")
    if reason and reason not in _said:
        _said.add(reason)
        _log().info("%s is reached by fsspec: %s", redact_text(url, texts_of(options)), reason)
    return reason


def _why_fsspec(url: str, options: Mapping[str, Any]) -> str | None:
    """Why fsspec reaches a URL whatever its options are; empty where that needs no word; None: obstore may."""
    asked = options.get(DRIVER_OPTION)
    if asked not in (None, *_DRIVERS):
        raise InputError(f"storage option driver: {asked!r} is none; write {' or '.join(_DRIVERS)}")
    if protocol_of(url) not in _OF_OBSTORE or "::" in url:
        return ""
    if asked == "fsspec":
        return ""
    path = url.partition("://")[2]
    if {"", ".", ".."} & set(path.rstrip("/").split("/")):
        return "a part of the path is empty, . or .."
    from trainflow.storage.obstore.runtime import usable_here

    return None if usable_here() else "this process was forked from one that had made requests by obstore"


def _fsspec(url: str, options: Mapping[str, Any], quick_seconds: float | None, reason: str) -> tuple[Driver, str]:
    protocol = driver_of(url)
    # a listing from a cache would hide what another process has written
    extra: dict[str, Any] = {} if protocol == "memory" else {"use_listings_cache": False}
    words = {name: value for name, value in options.items() if name != DRIVER_OPTION}
    _before_import(protocol, words)
    with _refusing(url, options, reason):
        from trainflow.storage.driver import counted
        from trainflow.storage.fsspec_driver import FsspecDriver, check_option_names, open_filesystem, quick_options

        check_option_names(url, protocol, words)
        if quick_seconds is not None:
            words = quick_options(protocol, words, quick_seconds)
        filesystem, base = open_filesystem(url, {**extra, **words}, own_gcs=_has_own_gcs(protocol, words))
    driver = FsspecDriver(filesystem, protocol)
    return counted(driver, protocol, endpoint_of(options)) if driver.remote else driver, str(base).rstrip("/")


def endpoint_of(options: Mapping[str, Any]) -> str:
    """Where the bucket is, as far as options tell."""
    inner = options.get("client_kwargs")
    return str(options.get("endpoint_url") or (inner.get("endpoint_url") if isinstance(inner, Mapping) else "") or "")


def load_driver(url: str, options: Mapping[str, Any]) -> None:
    """Import what reaches the files of a URL, which may take a second. Raises InputError as `open_driver` does."""
    reason = _obstore(url, options)
    if not isinstance(reason, str):
        _import("obstore.store", "obstore.exceptions", "trainflow.storage.object_store")
        return
    _before_import(driver_of(url), options)
    with _refusing(url, options, reason):
        if protocol_of(url) in SFTP_PROTOCOLS:
            _import("trainflow.storage.sftp")
            return
        from fsspec import get_filesystem_class

        get_filesystem_class(driver_of(url))
        _import("trainflow.storage.fsspec_driver", "trainflow.storage.driver", "trainflow.storage.object_store")
        if driver_of(url) in ("gs", "gcs"):
            with suppress(ImportError):  # imported by its first write; older ones have none
                _import("gcsfs.extended_gcsfs")


def _import(*names: str) -> None:
    for name in names:
        import_module(name)


def _has_own_gcs(driver: str, options: Mapping[str, Any]) -> bool:
    """Whether files are in what speaks as Google Cloud Storage does, and is not Google's."""
    return driver in ("gs", "gcs") and bool(options.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST"))


def _before_import(driver: str, options: Mapping[str, Any]) -> None:
    """Spare a process gRPC, which newer gcsfs imports to ask Google what kind of bucket it is."""
    if _has_own_gcs(driver, options):
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


def load_before_fork(url: str, options: Mapping[str, Any]) -> None:
    """Import what reaches the files of a URL with these options, where forked processes can share it: of drivers that
    start no thread by that, and make no request. Never raises: who uses the store is told what is wrong with it."""
    if driver_of(url) not in EXTRAS:
        return
    try:
        load_driver(url, options)
    except Exception as error:
        _log().debug("what reaches %s cannot be imported before a fork: %s", redact_text(url), error)


@contextmanager
def _refusing(url: str, options: Mapping[str, Any], reason: str = "") -> Iterator[None]:
    protocol = driver_of(url)
    try:
        yield
    except ImportError as error:
        name = EXTRAS.get(protocol)
        remedy = f"pip install 'trainflow[{name}]'" if name else "install the package it names"
        because = f"; fsspec is to reach it: {reason}" if reason else ""
        raise InputError(f"{protocol}:// needs a package that is not installed ({error}); {remedy}{because}") from None
    except ValueError as error:
        check_protocol(redact_text(url, texts_of(options)))
        said = redact_text(str(error), texts_of(options))
        raise InputError(f"{redact_text(url, texts_of(options))}: {said}") from None


def driver_of(url: str) -> str:
    """The protocol whose driver reaches the files: `s3` of `simplecache::s3://…`."""
    return url.split("://", 1)[0].split("::")[-1].lower()


def protocol_of(url: str) -> str:
    """`s3` of `s3://…`; `file` for a plain path."""
    match = _PROTOCOL.match(url)
    return match[1].lower() if match else "file"


def check_slashes(location: str) -> None:
    """Raise InputError for `s3:/bucket/x`, which would be taken for a path."""
    if (problem := slash_problem(location)) is not None:
        raise InputError(problem)


def check_no_credentials(url: str) -> None:
    """Raise InputError for the URL of a store with credentials in it."""
    if (problem := credentials_problem(url)) is not None:
        raise InputError(problem)


def check_protocol(url: str) -> None:
    """Raise InputError for the URL of a protocol that does not exist."""
    from fsspec import available_protocols

    protocol = driver_of(url)
    if protocol not in available_protocols():
        known = [f"{each}://" for each in sorted(EXCLUSIVE_PROTOCOLS)]
        raise InputError(
            f"{redact_text(url)}: no store is reached by {protocol}://{did_you_mean(f'{protocol}://', known)}"
        )


def _log() -> Logger:
    # a command that has nothing to log does not import it
    from logging import getLogger

    return getLogger(__name__)
