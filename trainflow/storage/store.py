"""The contract of a storage: files that can be listed, read and written whole, and of a store, which can also create a
file only if it is absent.

A path is relative to the root, with `/`, or the full location of a file on the same storage.
Exclusive creation (put-if-absent, all of the content or none of it) is what the ledger's fence stands on; samples need
none of it.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

#: so much of a file is asked for at a time where a part of it is read
PART_BYTES = 1 << 20

#: the version of a file whose storage has no mark of its content: nanoseconds since the epoch, one or several
TIMES = "time:"
#: the note of a store that knows no modes: a file beside the folder, whose name no attempt has
SEAL = ".committed"
#: how many calls are made at a time where each costs a round trip
REQUESTS_AT_ONCE = 16


class StoreFile(msgspec.Struct, frozen=True):
    """A file, as a listing shows it."""

    #: relative to the folder that was listed (`Storage.listing`) or to the store (`Store.files`), with slashes
    path: str
    size_bytes: int
    #: when its content was written here, aware UTC; None when the storage does not say
    modified: datetime | None = None
    #: the storage's own mark of this content, an etag; else `TIMES` with the times of the last changes
    version: str = ""


class FilePage(NamedTuple):
    """The first files of a listing; `more`: there are others after these."""

    files: list[StoreFile]
    more: bool


class FileStatus(NamedTuple):
    """A file as its system knows it: which one it is, its size, and its times in nanoseconds."""

    file: tuple[int, int]
    size_bytes: int
    modified: int
    changed: int


class Storage(ABC):
    """Files below one root. Every method raises the failure of who opened it (see `errors.Failures`) when the storage
    refuses or cannot be reached."""

    #: where the root is, for people; without credentials
    url: str
    #: a request costs a round trip
    remote: bool = False
    #: how many calls may be made at a time, from as many threads; more than one where each costs a round trip
    requests_at_once: int = 1
    #: a listing begins anywhere, at no cost for what comes before
    lists_after: bool = False

    @abstractmethod
    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        """The files in a folder (and in those below it), sorted by path; None when there is no such folder."""

    @abstractmethod
    def names(self, folder: str) -> list[str] | None:
        """The names in a folder, in any order; None when there is no such folder."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

    @abstractmethod
    def read_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start` to `end` (exclusive); fewer when the file is shorter, none when `end` is not after
        `start`. Raises FileNotFoundError."""

    @abstractmethod
    def open(self, path: str) -> IO[bytes]:
        """A file to be read piece by piece; what replaces it later is another one. Raises FileNotFoundError."""

    @abstractmethod
    def replace(self, path: str, data: bytes) -> None:
        """Write a file, over what was there; readers see the old or the new content. Need not be durable."""

    def status(self, path: str) -> FileStatus | None:
        """Status of a file that can be written over in place: changes with each write, and costs next to nothing. None:
        it is gone, or the storage has no such files."""
        return None

    def local_path(self, path: str) -> Path | None:
        """Where the file or folder is on this machine; None when the storage is elsewhere."""
        return None

    def uri(self, path: str) -> str:
        """The full address of a path, for people and for MLflow; without credentials."""
        return f"{self.url}/{path}" if path else self.url


def below(folder: str, file: StoreFile) -> StoreFile:
    """A file by its path in a folder."""
    return msgspec.structs.replace(file, path=file.path.removeprefix(f"{folder}/")) if folder else file


class Store(Storage):
    """A storage that can create exclusively, and what else a ledger needs."""

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

    def read_listed(self, files: Sequence[StoreFile], *, fixed: bool = True) -> list[bytes | None]:
        """The contents of small files that a listing of the store showed (`files`, `files_after`), None for one that is
        gone. What is known to be the same as a copy on this machine is not read. `fixed`: they are created once, and
        never written over."""
        return self.read_many([file.path for file in files])

    def read_digested(self, path: str, digest: str) -> bytes:
        """The content of a small file, whose digest is known; from a copy on this machine where there is one. Raises
        FileNotFoundError. What the store gives may have another digest."""
        return self.read(path)

    @abstractmethod
    def chunks(self, path: str) -> Iterator[bytes]:
        """The content in pieces, for files that do not fit in memory. Raises FileNotFoundError."""

    def part(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end` in pieces; fewer where the file ends before. Raises FileNotFoundError."""
        while start < end and (piece := self.read_range(path, start, min(end, start + PART_BYTES))):
            start += len(piece)
            yield piece

    @abstractmethod
    def files(self, folder: str) -> list[StoreFile]:
        """Every file below a folder, sorted by path; empty when there is no such folder."""

    def files_after(self, folder: str, name: str) -> list[StoreFile]:
        """The files below a folder whose path from there sorts after `name`, sorted by path: what comes before may be
        much, and is not looked at where the store can do that."""
        return [file for file in self.files(folder) if file.path > f"{folder}/{name}"]

    def first_files_after(self, folder: str, name: str) -> FilePage:
        """The first of the files that `files_after` shows, about as many as one request does where the store can begin
        such a listing anywhere; all of them where it cannot."""
        return FilePage(self.files_after(folder, name), more=False)

    def files_if_few(self, folder: str) -> list[StoreFile] | None:
        """Every file below a folder, sorted by path, where about one request shows them all; None: there are more than
        that."""
        return self.files(folder)

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        found = [below(folder, file) for file in self.files(folder)]
        return [file for file in found if recursive or "/" not in file.path] if found else None

    def names(self, folder: str) -> list[str] | None:
        found = self.listing(folder, recursive=True)
        return None if found is None else list(dict.fromkeys(file.path.partition("/")[0] for file in found))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return self.read(path)[start:end]

    def open(self, path: str) -> IO[bytes]:
        return io.BytesIO(self.read(path))

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

    def delete_many(self, paths: Sequence[str]) -> None:
        """Remove files, in this order where the store takes one at a time; nothing happens for one that is not
        there."""
        for path in paths:
            self.delete(path)

    def seal(self, folder: str, note: bytes = b"") -> None:
        """Note that the files of a folder are committed, and keep `note` beside it: read-only from now on where the
        store knows modes. Nothing happens when there is no such folder."""
        self.replace(f"{folder}{SEAL}", note)

    def is_sealed(self, folder: str) -> bool:
        """Whether a folder is sealed."""
        return self.exists(f"{folder}{SEAL}")

    def delete_sealed(self, folder: str, keeping: Collection[str] = ()) -> None:
        """Delete a folder that may be sealed, but for the files `keeping`."""
        if keeping:
            for file in self.files(folder):
                if file.path not in keeping:
                    self.delete(file.path)
        else:
            self.delete_folder(folder)
        self.delete(f"{folder}{SEAL}")

    def share(self, source: str, path: str) -> bool:
        """Give a file that is never written again a second name, by which it is there when the first is gone, over what
        has that name. False where the store has no second names, or refuses this one."""
        del source, path
        return False

    def temporary(self, folder: str) -> list[StoreFile]:
        """Files below a folder that a writer has begun and not finished; no other method shows them."""
        return []
