"""Where events go: an address, or a file. Configured as OpenLineage's own clients are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin

import msgspec

from trainflow.errors import DeliveryRefused
from trainflow.observability.http_delivery import post
from trainflow.settings.openlineage import DEFAULT_ENDPOINT, DEFAULT_TIMEOUT_SECONDS, api_key_of


class Transport(Protocol):
    """Takes events."""

    def emit(self, event: Mapping[str, Any], now: datetime) -> None:
        """Deliver one. Raises DeliveryRefused."""


class HttpTransport:
    """`type: http`."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._url = urljoin(f"{table['url'].rstrip('/')}/", table.get("endpoint", DEFAULT_ENDPOINT).lstrip("/"))
        self._timeout = float(table.get("timeout", DEFAULT_TIMEOUT_SECONDS))
        self._compress = table.get("compression") == "gzip"
        self._headers = {"Content-Type": "application/json", **table.get("custom_headers", {})}
        key = api_key_of(table)
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def emit(self, event: Mapping[str, Any], now: datetime) -> None:
        """See `Transport`."""
        post(
            self._url,
            msgspec.json.encode(event),
            self._headers,
            timeout_seconds=self._timeout,
            compress=self._compress,
        )


class FileTransport:
    """`type: file`: a line of JSON for each event (`append`), or a file for each, named by the time."""

    def __init__(self, table: Mapping[str, Any], root: Path) -> None:
        self._path = root / table["log_file_path"]
        self._append = bool(table.get("append", False))

    def emit(self, event: Mapping[str, Any], now: datetime) -> None:
        """See `Transport`."""
        path = self._path if self._append else self._path.with_name(f"{self._path.name}-{now:%Y%m%d-%H%M%S.%f}.json")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                _write_whole(descriptor, msgspec.json.encode(event) + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DeliveryRefused(f"{path}: {error.strerror}") from None


def _write_whole(descriptor: int, line: bytes) -> None:
    """Append a line, or nothing: a disk that becomes full takes a part. Raises OSError."""
    begin, rest = os.fstat(descriptor).st_size, line
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        if os.fstat(descriptor).st_size == begin + len(line) - len(rest):  # no other writer has appended meanwhile
            os.ftruncate(descriptor, begin)
        raise


def transport_of(table: Mapping[str, Any], root: Path) -> Transport:
    """The transport of `[openlineage] transport`; a file is relative to `root`, the project."""
    return HttpTransport(table) if table["type"] == "http" else FileTransport(table, root)
