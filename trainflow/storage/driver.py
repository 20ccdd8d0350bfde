"""The contract of a driver: what a kind of object store is asked, a request each where its service has one.

A path is `bucket/key`, without the protocol. A driver raises FileNotFoundError, FileExistsError, PermissionError,
ConnectionError, TimeoutError and OSError with what its service said, or what its library raises: `errors` reads both.
It keeps no listing and no content.

`CountedDriver` counts each call as one request, which is what most of them are. Drivers that know better count for
themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

from trainflow.observability.store_requests import CREATE, DELETE, HEAD, LIST, READ, REQUESTS, UPLOAD, WRITE
from trainflow.storage.errors import error_kind
from trainflow.storage.store import FilePage, StoreFile

#: makes a request again, where it was refused for a while or failed on its way
Retry = Callable[[Callable[[], Any]], Any]


#: of a file that is sent in parts: bytes of one, and how many are on their way; all of these are in memory
PART_BYTES, PARTS_AT_ONCE = 8 << 20, 6
#: a service takes no more parts
MOST_PARTS = 10_000


def parts_of(size: int) -> tuple[int, int]:
    """How a file of so many bytes is sent: bytes of a part, and how many of them at a time. The larger parts of a very
    large one go fewer at a time, in the same memory."""
    part = max(PART_BYTES, -(-size // MOST_PARTS))
    return part, max(1, PART_BYTES * PARTS_AT_ONCE // part)


class FolderListing(NamedTuple):
    """What is directly in a folder: files by their paths, and the paths of the folders."""

    files: list[StoreFile]
    folders: list[str]


class Driver(ABC):
    """Requests to the buckets of one account. It is used by the process that opened it, by several threads."""

    #: a request costs a round trip
    remote: bool = True
    #: a listing of all that is below a folder shows the empty objects by which consoles mark folders as files
    shows_folder_marks: bool = False
    #: the service begins a listing in the middle
    lists_after: bool = False
    #: how often a request is made that failed on its way; None: the driver sees to that itself, or the default counts
    tries: int | None = None

    @abstractmethod
    def path_of(self, location: str) -> str:
        """The path of a full location."""

    @abstractmethod
    def list_below(self, folder: str, *, after: str = "") -> list[StoreFile]:
        """The files in a folder and in those below it, by their paths; those alone that sort after the path `after`. An
        empty list where there is no such folder; FileNotFoundError says that the bucket does not exist."""

    def list_by_folders(self, folder: str, after: str) -> list[StoreFile]:
        """The same as `list_below` after a path, where the service begins no listing in the middle: each folder that
        may hold such names is listed."""
        listed = self.list_folder(folder)
        if listed is None:
            return []
        found = [file for file in listed.files if file.path > after]
        for inner in listed.folders:
            if f"{inner}0" > after:  # the next character after the slash: all that is in it sorts before that
                found += (file for file in self.list_below(inner) if file.path > after)
        return found

    def list_first_below(self, folder: str, after: str) -> FilePage:
        """The first files of `list_below` after a path, as many as one request shows; all of them where the service
        begins no listing in the middle."""
        return FilePage(self.list_below(folder, after=after), more=False)

    def list_if_few(self, folder: str) -> list[StoreFile] | None:
        """The same as `list_below`, where about one request shows it; None: there is more."""
        return self.list_below(folder)

    @abstractmethod
    def list_folder(self, folder: str) -> FolderListing | None:
        """What is directly in a folder; None when there is no such folder."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

    @abstractmethod
    def read_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start` to `end` (exclusive, more than `start`), as far as there are any. Raises
        FileNotFoundError."""

    @abstractmethod
    def read_many(self, paths: Sequence[str]) -> list[bytes | Exception]:
        """The contents in the order asked for, or what was raised for each."""

    @abstractmethod
    def open(self, path: str, retry: Retry, *, sequential: bool = False) -> IO[bytes]:
        """A file to be read piece by piece, anywhere or from its beginning to its end: each piece by `retry`, where
        that is a request. Raises FileNotFoundError."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> str:
        """Create a file if it is absent, in one request. Returns the mark of its content that listings show, empty
        where that is not told. Raises FileExistsError."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> str:
        """Write a file, over what was there. Returns the mark of its content as `create` does."""

    @abstractmethod
    def upload(self, source: Path, path: str) -> None:
        """Write a file from a local one: in parts, several at once, where it is large."""

    @abstractmethod
    def download(self, path: str, target: Path, retry: Retry) -> None:
        """Write a file to a local path, whose folder exists: in parts, several at once, where it is large. Each request
        is made by `retry`."""

    @abstractmethod
    def delete(self, paths: Sequence[str]) -> None:
        """Delete files, in this order where the service takes one at a time; nothing happens for one that is not
        there."""

    @abstractmethod
    def delete_below(self, folder: str) -> None:
        """Delete the files in a folder and in those below it; nothing happens when there is none."""

    @abstractmethod
    def is_file(self, path: str) -> bool:
        """Whether a file is there."""

    @abstractmethod
    def has_bucket(self, path: str) -> bool:
        """Whether the bucket of a path is there; True where that may not be asked."""

    @abstractmethod
    def ask(self, folder: str) -> None:
        """Ask once for one name below a folder, of a driver that was opened to answer at once. Raises what the store
        refuses; FileNotFoundError where the bucket does not exist."""


def bucket_of(path: str) -> str:
    """The bucket or container of a path."""
    return path.strip("/").split("/", 1)[0]


T = TypeVar("T")


class CountedDriver(Driver):
    """Calls of `inner`, whose buckets are at `place`: a scheme with `://`, or an endpoint with a slash."""

    def __init__(self, inner: Driver, place: str) -> None:
        self._inner = inner
        self._place = place
        self.remote = inner.remote
        self.tries = inner.tries
        self.shows_folder_marks = inner.shows_folder_marks

    def path_of(self, location: str) -> str:
        return self._inner.path_of(location)

    def list_below(self, folder: str, *, after: str = "") -> list[StoreFile]:
        return self._counted(folder, LIST, lambda: self._inner.list_below(folder, after=after))

    def list_if_few(self, folder: str) -> list[StoreFile] | None:
        return self._counted(folder, LIST, lambda: self._inner.list_if_few(folder))

    def list_folder(self, folder: str) -> FolderListing | None:
        return self._counted(folder, LIST, lambda: self._inner.list_folder(folder))

    def read(self, path: str) -> bytes:
        return self._counted(path, READ, lambda: self._inner.read(path))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return self._counted(path, READ, lambda: self._inner.read_range(path, start, end))

    def read_many(self, paths: Sequence[str]) -> list[bytes | Exception]:
        if not paths:
            return []
        with self._call(paths[0], READ) as made:
            found = self._inner.read_many(paths)
            made.requests = len(paths)
            made.received = sum(len(each) for each in found if isinstance(each, bytes))
        return found

    def open(self, path: str, retry: Retry, *, sequential: bool = False) -> IO[bytes]:
        opened = self._counted(path, HEAD, lambda: self._inner.open(path, retry, sequential=sequential))
        return cast("IO[bytes]", _CountedFile(opened, lambda: self._call(path, READ)))

    def create(self, path: str, data: bytes) -> str:
        return self._counted(path, CREATE, lambda: self._inner.create(path, data), len(data))

    def write(self, path: str, data: bytes) -> str:
        return self._counted(path, WRITE, lambda: self._inner.write(path, data), len(data))

    def upload(self, source: Path, path: str) -> None:
        self._counted(path, UPLOAD, lambda: self._inner.upload(source, path), source.stat().st_size)

    def download(self, path: str, target: Path, retry: Retry) -> None:
        with self._call(path, READ) as made:
            self._inner.download(path, target, retry)
            made.received = target.stat().st_size

    def delete(self, paths: Sequence[str]) -> None:
        if paths:
            with self._call(paths[0], DELETE) as made:
                made.requests = len(paths)
                self._inner.delete(paths)

    def delete_below(self, folder: str) -> None:
        self._counted(folder, DELETE, lambda: self._inner.delete_below(folder))

    def is_file(self, path: str) -> bool:
        return self._counted(path, HEAD, lambda: self._inner.is_file(path))

    def has_bucket(self, path: str) -> bool:
        return self._counted(path, HEAD, lambda: self._inner.has_bucket(path))

    def ask(self, folder: str) -> None:
        self._counted(folder, LIST, lambda: self._inner.ask(folder))

    def _counted(self, path: str, op: str, call: Callable[[], T], sent: int = 0) -> T:
        with self._call(path, op, sent) as made:
            found = call()
            made.received = len(found) if isinstance(found, bytes) else 0
        return found

    def _call(self, path: str, op: str, sent: int = 0) -> Any:
        return REQUESTS.call(f"{self._place}{path.strip('/').partition('/')[0]}", op, error_kind, sent)


class _CountedFile:
    """A file that is read piece by piece: each piece counts as a request, which is more than there are where the driver
    reads ahead."""

    def __init__(self, file: IO[bytes], call: Callable[[], Any]) -> None:
        self._file = file
        self._call = call

    def read(self, size: int = -1) -> bytes:
        with self._call() as made:
            found = self._file.read(size)
            made.received = len(found)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _CountedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def counted(driver: Driver, protocol: str, endpoint: str) -> Driver:
    """A driver whose requests are counted."""
    return CountedDriver(driver, f"{endpoint.rstrip('/')}/" if endpoint else f"{protocol}://")
