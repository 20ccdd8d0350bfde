"""Copies, on this machine, of small files of a store: what a listing shows to be the same is not read again.

A copy is believed only where the store's own mark of the content (an etag) is the one that the copy was read with, or,
of what was written from here, the MD5 that S3 and GCS take for that. Whatever is wrong with a copy, it is none.
"""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from trainflow.storage.atomic_files import replace_whole
from trainflow.storage.store import TIMES

#: what is larger is no ledger's
MOST_BYTES = 4 << 20


class _Header(msgspec.Struct, frozen=True):
    #: digest of where it is
    location: str
    #: empty: written from here, and never read
    version: str
    sha256: str


_DECODER = msgspec.json.Decoder(_Header)


class LocalCopies:
    """Copies in `folder` of files of the store that `identity` (its URL and endpoint) stands for."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity

    def read(self, path: str, version: str) -> bytes | None:
        """The content of a file whose mark is `version`; None: it is not known."""
        if not version or version.startswith(TIMES):
            return None
        found = self._read(path)
        if found is None:
            return None
        header, data = found
        same = version == header.version if header.version else _is_md5_of(data, version)
        return data if same else None

    def find(self, path: str, digest: str) -> bytes | None:
        """The content of a file whose digest is known; None: there is no copy of that."""
        found = self._read(path)
        return found[1] if found is not None and digest == f"sha256:{found[0].sha256}" else None

    def _read(self, path: str) -> tuple[_Header, bytes] | None:
        try:
            head, _, data = self._place(path).read_bytes().partition(b"\n")
            header = _DECODER.decode(head)
        except (OSError, msgspec.MsgspecError):
            return None
        if header.location != self._location(path) or hashlib.sha256(data).hexdigest() != header.sha256:
            return None
        with suppress(OSError):
            os.utime(self._place(path))  # it is of use: what is not goes one day
        return header, data

    def keep(self, path: str, data: bytes, version: str = "") -> None:
        """Keep what was read, or written. Never raises: without a copy it is read again."""
        if len(data) > MOST_BYTES or version.startswith(TIMES):
            return
        header = _Header(self._location(path), version, hashlib.sha256(data).hexdigest())
        target = self._place(path)
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_whole(target, msgspec.json.encode(header) + b"\n" + data)

    def _location(self, path: str) -> str:
        return hashlib.sha256(f"{self._identity}\n{path}".encode()).hexdigest()

    def _place(self, path: str) -> Path:
        return self._folder / self._location(path)[:40]


def _is_md5_of(data: bytes, version: str) -> bool:
    found = hashlib.md5(data, usedforsecurity=False)
    return version in (found.hexdigest(), base64.b64encode(found.digest()).decode())
