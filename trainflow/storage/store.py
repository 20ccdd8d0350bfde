"""A place for checkpoints: files under one root, some of them created exclusively.

Paths are relative to the store, with `/`. Exclusive creation (put-if-absent, all of the content or none of it) is what
the ledger's fence stands on; everything else could be any blob store.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from trainflow.errors import StoreFailure, StoreNotExclusive
from trainflow.observability.redaction import redact_text

#: the note of a store that knows no modes: a file beside the folder, whose name no attempt has
SEAL = ".committed"


class StoredFile(msgspec.Struct, frozen=True):
    """One file of a store. `modified` is aware UTC; None when the store does not say."""

    path: str
    size: int
    modified: datetime | None = None


class Store(ABC):
    """Files under one root. Every method raises StoreFailure when the store refuses or cannot be reached."""

    #: where the store is, for people; without credentials
    url: str
    #: how many calls may be made at a time, from as many threads; more than one where each costs a round trip
    requests_at_once: int = 1

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        """The contents in the order asked for, None for a file that is not there. Not one moment: a file created
        meanwhile may be missing while a later one is not."""
        contents: list[bytes | None] = []
        for path in paths:
            try:
                contents.append(self.read(path))
            except FileNotFoundError:
                contents.append(None)
        return contents

    @abstractmethod
    def chunks(self, path: str) -> Iterator[bytes]:
        """The content in pieces, for files that do not fit in memory. Raises FileNotFoundError."""

    @abstractmethod
    def files(self, folder: str) -> list[StoredFile]:
        """Every file below a folder, sorted by path; empty when there is no such folder."""

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, in any order; empty when there is no such folder."""
        found = (file.path.removeprefix(f"{folder}/") for file in self.files(folder))
        return [name for name in found if "/" not in name]

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in a folder, sorted."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    @abstractmethod
    def create_exclusive(self, path: str, data: bytes) -> None:
        """Create a file if it is absent: atomically, with all of its content, durable on return.

        Raises FileExistsError when something is there, and changes nothing then. After a StoreFailure the file may be
        there or not: the reply may have been lost.
        """

    def created(self, path: str, data: bytes) -> bool:
        """Create a file if it is absent; whether what is there now is `data`. Where the reply was lost, or a driver
        asked again after that, the bytes decide whose file it is. Raises StoreFailure when nothing is there."""
        try:
            self.create_exclusive(path, data)
        except (FileExistsError, StoreFailure) as error:
            [there] = self.read_many([path])
            if there is None and isinstance(error, StoreFailure):
                raise
            return there == data
        return True

    @abstractmethod
    def replace(self, path: str, data: bytes) -> None:
        """Write a file, over what was there; readers see the old or the new content. Need not be durable."""

    @abstractmethod
    def put_file(self, source: Path, path: str) -> None:
        """Copy a local file into the store, durable on return."""

    @abstractmethod
    def get_file(self, path: str, target: Path) -> None:
        """Copy a file of the store to a local path. Raises FileNotFoundError."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when it is not there."""

    @abstractmethod
    def delete_folder(self, folder: str) -> None:
        """Remove a folder and what is in it; nothing happens when it is not there."""

    def seal(self, folder: str) -> None:
        """Note that the files of a folder are committed: read-only from now on where the store knows modes. Nothing
        happens when there is no such folder."""
        self.replace(f"{folder}{SEAL}", b"")

    def is_sealed(self, folder: str) -> bool:
        """Whether a folder is sealed."""
        return self.exists(f"{folder}{SEAL}")

    def delete_sealed(self, folder: str) -> None:
        """As `delete_folder`, for a folder that may be sealed."""
        self.delete_folder(folder)
        self.delete(f"{folder}{SEAL}")

    def temporary(self, folder: str) -> list[StoredFile]:
        """Files below a folder that a writer has begun and not finished; no other method shows them."""
        return []

    def local_path(self, path: str) -> Path | None:
        """Where the file or folder is on this machine; None when the store is elsewhere."""
        return None

    def uri(self, path: str) -> str:
        """The full address of a path, for people and for MLflow; without credentials."""
        return f"{self.url}/{path}" if path else self.url

    def probe(self) -> None:
        """Try exclusive creation for real and clean up.

        Raises StoreNotExclusive when the second creation of a name succeeds, StoreFailure when nothing can be written.
        """
        path = f".trainflow-probe-{os.urandom(8).hex()}"
        if not self.created(path, b"first"):
            raise StoreNotExclusive(_NOT_EXCLUSIVE.format(url=self.url, how="changed a file that was there"))
        try:
            self._create_again(path)
            if self.read(path) != b"first":
                raise StoreNotExclusive(_NOT_EXCLUSIVE.format(url=self.url, how="changed a file that was there"))
        finally:
            self.delete(path)

    def _create_again(self, path: str) -> None:
        try:
            self.create_exclusive(path, b"second")
        except FileExistsError:
            return
        raise StoreNotExclusive(_NOT_EXCLUSIVE.format(url=self.url, how="created the same file twice"))


_NOT_EXCLUSIVE = (
    "{url} cannot fence: asked to create a file only if it is absent, it {how}, so two runs could commit the same "
    "place in the chain. Use a local disk, S3 (or a server that honours If-None-Match), GCS or Azure Blob Storage"
)


def failure(doing: str, location: str, error: BaseException) -> StoreFailure:
    """What went wrong, where, and what to do about it."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return StoreFailure(f"cannot {doing} {location}: {redact_text(reason)}; {_advice(error)}", location=location)


def _advice(error: BaseException) -> str:
    import errno

    from trainflow.storage.throttling import is_throttled

    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the store is full: free space (trainflow prunes with a retention policy) and try again"
    if number == errno.EROFS:
        return "the store is mounted read-only: remount it or name another store"
    if isinstance(error, PermissionError):
        return "give this user (or these credentials) the right to read, create and delete there"
    if is_throttled(error):
        return (
            "the store asks for fewer requests, and went on asking: try again later, and let fewer chains use it at "
            "the same time"
        )
    if isinstance(error, NotADirectoryError):
        return "a part of the path is a file: move it away or name another store"
    return "check that the store exists and can be reached from here, then try again"
