"""A driver whose calls are counted as one request each, which is what most of them are. Drivers that know better count
for themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from trainflow.observability.store_requests import CREATE, DELETE, HEAD, LIST, READ, REQUESTS, UPLOAD, WRITE
from trainflow.storage.driver import Driver, FolderListing, Retry
from trainflow.storage.errors import error_kind
from trainflow.storage.store import StoreFile

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
