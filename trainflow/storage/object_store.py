"""Files in object stores: what a store of checkpoints or samples means, on top of the requests of a driver.

Creation is one conditional request. Listings are never taken from a cache: another process may have written. A store
that asks for fewer requests is waited for, and a request that failed on its way is made again; each a bounded time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from trainflow.concurrent_map import concurrent_map
from trainflow.errors import SampleUnreadable, StoreFailure, StoreNotExclusive
from trainflow.observability.file_access import naming_file
from trainflow.storage.driver import Driver, bucket_of
from trainflow.storage.drivers import protocol_of
from trainflow.storage.errors import (
    CheckpointFailures,
    Failures,
    is_missing_bucket,
    is_not_implemented,
    is_throttled,
    is_transient,
)
from trainflow.storage.local_copies import LocalCopies
from trainflow.storage.retries import retried
from trainflow.storage.store import REQUESTS_AT_ONCE, SEAL, FilePage, Store, StoreFile

T = TypeVar("T")
CHUNK_BYTES = 8 << 20
_NO_CONDITIONS = (
    "{url} cannot hold checkpoints: asked to create a file only if it is absent, it says: {said}. Use a store that "
    "honours If-None-Match (S3, and newer versions of the servers that speak its protocol), GCS or Azure Blob Storage"
)
#: fsspec's memory file system looks first and writes then, and its readers share one cursor
_MEMORY_LOCK = threading.RLock()


class ObjectStore(Store):
    """Objects below a prefix. `open_driver` is called once in each process that uses the store: no connection survives
    a fork. `sleep` is for a store that asks for fewer requests; `copies` of small files are kept on this machine."""

    def __init__(
        self,
        open_driver: Callable[[], tuple[Driver, str]],
        *,
        url: str,
        failures: Failures | None = None,
        copies: LocalCopies | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._open_driver = open_driver
        self._opened_in = os.getpid()
        self._opened, self._base = open_driver()
        self._failures = failures or CheckpointFailures()
        self._sleep = sleep
        self.url = url
        self.remote = self._opened.remote
        self.lists_after = self._opened.lists_after
        self.requests_at_once = REQUESTS_AT_ONCE if self.remote else 1
        self._lock: AbstractContextManager[Any] = nullcontext() if self.remote else _MEMORY_LOCK
        self._copies = copies if self.remote else None

    @property
    def _driver(self) -> Driver:
        if self._opened_in != os.getpid():
            self._opened, self._base = self._open_driver()
            self._opened_in = os.getpid()
        return self._opened

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        base = self._at(folder)
        if recursive:
            found = self._listed(folder, lambda: self._driver.list_below(base))
            # an object store has no folders: one without an object does not exist
            return _below(base, self._without_folder_marks(found)) or None
        listed = self._listed(folder, lambda: self._driver.list_folder(base))
        return None if listed is None else _below(base, listed.files)

    def _without_folder_marks(self, files: list[StoreFile]) -> list[StoreFile]:
        """Without the empty objects by which a console, or a job before it writes, marks a folder that nothing else is
        in yet. Names that begin with an underscore or a dot are marks of jobs, which no reader of samples takes."""
        if not self._driver.shows_folder_marks:
            return files
        doubtful = [file.path for file in files if not file.size_bytes]
        doubtful = [path for path in doubtful if not path.rsplit("/", 1)[-1].startswith(("_", "."))]
        there = self._ask("list", "", lambda: list(concurrent_map(REQUESTS_AT_ONCE, self._driver.is_file, doubtful)))
        marks = {path for path, is_file in zip(doubtful, there, strict=True) if not is_file}
        return [file for file in files if file.path not in marks]

    def files(self, folder: str) -> list[StoreFile]:
        found = self._listed(folder, lambda: self._driver.list_below(self._at(folder)))
        return _in_folder(folder, _below(self._at(folder), found))

    def names(self, folder: str) -> list[str] | None:
        listed = self._listed(folder, lambda: self._driver.list_folder(self._at(folder)))
        if listed is None:
            return None
        return [path.rsplit("/", 1)[-1] for path in (*(file.path for file in listed.files), *listed.folders)]

    def files_if_few(self, folder: str) -> list[StoreFile] | None:
        base = self._at(folder)
        listed = self._listed(folder, lambda: self._driver.list_if_few(base))
        return None if listed is None else _in_folder(folder, _below(base, listed))

    def files_after(self, folder: str, name: str) -> list[StoreFile]:
        base = self._at(folder)
        found = self._listed(folder, lambda: self._driver.list_below(base, after=f"{base}/{name}"))
        return _in_folder(folder, _below(base, found))

    def first_files_after(self, folder: str, name: str) -> FilePage:
        base = self._at(folder)
        found = self._listed(folder, lambda: self._driver.list_first_below(base, f"{base}/{name}"))
        return FilePage(_in_folder(folder, _below(base, found.files)), found.more)

    def folders(self, folder: str) -> list[str]:
        listed = self._listed(folder, lambda: self._driver.list_folder(self._at(folder)))
        return [] if listed is None else sorted(path.rsplit("/", 1)[-1] for path in listed.folders)

    def _listed(self, folder: str, look: Callable[[], T]) -> T:
        return self._ask("list", folder, look)

    def read(self, path: str) -> bytes:
        return self._ask("read", path, lambda: self._driver.read(self._at(path)))

    def read_listed(self, files: Sequence[StoreFile], *, fixed: bool = True) -> list[bytes | None]:
        if self._copies is None:
            return super().read_listed(files)
        known = {file.path: self._copies.read(file.path, file.version) for file in files}
        unknown = [file for file in files if known[file.path] is None]
        for file, data in zip(unknown, self.read_many([file.path for file in unknown]), strict=True):
            known[file.path] = data
            if data is not None and file.version and len(data) == file.size_bytes:
                # what was written over since the listing is not what its mark is of: then only an MD5 tells
                self._copies.keep(file.path, data, file.version if fixed else "")
        return [known[file.path] for file in files]

    def read_digested(self, path: str, digest: str) -> bytes:
        known = self._copies.find(path, digest) if self._copies is not None else None
        return self.read(path) if known is None else known

    def _keep(self, path: str, data: bytes, version: str) -> None:
        if self._copies is not None:
            self._copies.keep(path, data, version)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        if start >= end:  # no store has a range of nothing
            return b""
        return self._ask("read", path, lambda: self._driver.read_range(self._at(path), start, end))

    def open(self, path: str) -> IO[bytes]:
        return self._ask("read", path, lambda: self._driver.open(self._at(path), self._retry))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        found: dict[str, bytes | None] = {}
        if paths:
            self._ask("read", paths[0], lambda: self._read_rest(paths, found))
        return [found[path] for path in paths]

    def _read_rest(self, paths: Sequence[str], found: dict[str, bytes | None]) -> None:
        """Read what is not there yet. Who asks for fewer requests is not asked again for what it has given."""
        left = [path for path in paths if path not in found]
        refused: Exception | None = None
        for path, answer in zip(left, self._driver.read_many([self._at(path) for path in left]), strict=True):
            if isinstance(answer, Exception) and (is_throttled(answer) or is_transient(answer)):
                refused = answer
            else:
                found[path] = _content(answer)
        if refused is not None:
            raise refused

    def chunks(self, path: str) -> Iterator[bytes]:
        opened = self._ask("read", path, lambda: self._driver.open(self._at(path), _once, sequential=True))
        with self._failing("read", path), opened as file:
            # a refused read leaves the place in the file where it was
            while chunk := self._ask("read", path, lambda: file.read(CHUNK_BYTES)):
                yield bytes(chunk)

    def exists(self, path: str) -> bool:
        return self._ask("read", path, lambda: self._driver.is_file(self._at(path)))

    def create_exclusive(self, path: str, data: bytes) -> None:
        self._keep(path, data, self._ask("create", path, lambda: self._driver.create(self._at(path), data)))

    def replace(self, path: str, data: bytes) -> None:
        self._keep(path, data, self._ask("write", path, lambda: self._driver.write(self._at(path), data)))

    def put_file(self, source: Path, path: str) -> None:
        if not source.exists():  # else it would be the bucket that is taken for missing
            raise StoreFailure(f"{source} cannot be read: it is gone", location=str(source))
        self._ask("upload", path, lambda: self._driver.upload(source, self._at(path)))

    def get_file(self, path: str, target: Path) -> None:
        with self._failing("read", path), self._lock, naming_file(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._driver.download(self._at(path), target, self._retry)

    def delete(self, path: str) -> None:
        self._ask("delete", path, lambda: self._driver.delete([self._at(path)]))

    def delete_folder(self, folder: str) -> None:
        self._ask("delete", folder, lambda: self._driver.delete_below(self._at(folder)))

    def delete_many(self, paths: Sequence[str]) -> None:
        if paths:
            self._ask("delete", paths[0], lambda: self._driver.delete([self._at(path) for path in paths]))

    def delete_sealed(self, folder: str, keeping: Collection[str] = ()) -> None:
        """The files first: a seal without files is found again, files without a seal are an attempt's."""
        if not self.remote:  # memory remembers folders
            super().delete_sealed(folder, keeping)
            return
        base = self._at(folder)
        kept = {self._at(path) for path in keeping}
        files = self._ask("list", folder, lambda: self._driver.list_below(base))
        paths = [*(file.path for file in files if file.path not in kept), f"{base}{SEAL}"]
        self._ask("delete", folder, lambda: self._driver.delete(paths))

    def uri(self, path: str) -> str:
        return self._failures.masked(path) if _is_location(path) else super().uri(path)

    def _at(self, path: str) -> str:
        driver = self._driver
        if _is_location(path):
            return driver.path_of(path)
        return f"{self._base}/{path}" if path else self._base

    def _ask(self, doing: str, path: str, call: Callable[[], T]) -> T:
        with self._failing(doing, path), self._lock:
            return self._retry(call)

    def _retry(self, call: Callable[[], T]) -> T:
        return retried(call, self._sleep, self._driver.tries, self.url)

    @contextmanager
    def _failing(self, doing: str, path: str) -> Iterator[None]:
        # drivers raise what they like (botocore's errors are no OSError), so everything else counts as a failure
        try:
            yield
        except (FileExistsError, StoreFailure, SampleUnreadable):
            raise
        except Exception as error:
            # what is not there when something is written, or listed, is the bucket
            if is_missing_bucket(error) or self._has_no_bucket_to(doing, path, error):
                bucket = bucket_of(self._at(path))
                raise self._failures.bucket_missing(self.uri(path), bucket) from self._failures.shown(error)
            if doing == "create" and is_not_implemented(error):
                said = self._failures.masked(str(error))
                raise StoreNotExclusive(_NO_CONDITIONS.format(url=self.url, said=said)) from self._failures.shown(error)
            self._failures.raise_for(doing, self.uri(path), error)

    def _has_no_bucket_to(self, doing: str, path: str, error: Exception) -> bool:
        missing = doing in ("create", "write", "upload") and isinstance(error, FileNotFoundError)
        return missing and not self._driver.has_bucket(self._at(path))


def _once(call: Callable[[], T]) -> T:
    return call()


def _is_location(path: str) -> bool:
    """Whether a path has a protocol: it is the location of a file then, and not relative to the root."""
    return protocol_of(path) != "file"


def _below(base: str, files: Sequence[StoreFile]) -> list[StoreFile]:
    """Files by their paths below a folder, sorted."""
    paths = ((file, file.path[len(base) :].lstrip("/")) for file in files)
    return sorted((msgspec.structs.replace(file, path=path) for file, path in paths), key=lambda file: file.path)


def _in_folder(folder: str, files: list[StoreFile]) -> list[StoreFile]:
    return [msgspec.structs.replace(file, path=f"{folder}/{file.path}") for file in files] if folder else files


def _content(found: bytes | Exception) -> bytes | None:
    if isinstance(found, FileNotFoundError) and not is_missing_bucket(found):
        return None
    if isinstance(found, Exception):
        raise found
    return found
