"""Files on their way to a store and from it, and their digests, each taken once.

A large file is sent and fetched in parts by the store, several at a time, so two of them fill a line: the parts of the
next one are on their way while the last ones of a file are waited for. Of small ones more go at a time. A thread takes
the digests meanwhile: of the next files while some are uploaded, of the last while others are downloaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from trainflow.checkpoints.file_progress import FileProgress
from trainflow.checkpoints.ledger.entries import ArtifactFile, Artifacts
from trainflow.concurrent_map import concurrent_map
from trainflow.failpoint import hit
from trainflow.storage.local import CHUNK_BYTES
from trainflow.storage.store import Store

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")
#: a checkpoint of at most so many bytes is read
SMALL_BYTES = 64 << 20
#: a file of at most so many bytes is one request, and goes together with others
SMALL_FILE_BYTES = 4 << 20
#: larger ones that are under way at a time: what is in memory of each does not depend on its size
_LARGE_AT_ONCE = 2


def digest_file(path: Path) -> tuple[int, str]:
    """Size in bytes and digest of a local file. Raises OSError."""
    with path.open("rb") as file:
        return digest_of(iter(partial(file.read, CHUNK_BYTES), b""))


def digest_of(chunks: Iterable[bytes]) -> tuple[int, str]:
    """Size in bytes and digest of a content."""
    size, found = 0, hashlib.sha256()
    for chunk in chunks:
        size += len(chunk)
        found.update(chunk)
    return size, f"sha256:{found.hexdigest()}"


class Digests:
    """Digests of local files, taken in the order in which they are asked for: by a thread from the first large one on,
    so that their reader does something else meanwhile."""

    def __init__(self) -> None:
        self._taken: dict[Path, tuple[int, str]] = {}
        self._asked: dict[Path, Future[tuple[int, str]]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def take(self, path: Path) -> None:
        """Have the digest of a file taken. Raises OSError, now or in `of`."""
        if self._thread is None and path.stat().st_size > SMALL_FILE_BYTES:
            from concurrent.futures import ThreadPoolExecutor

            self._thread = ThreadPoolExecutor(1, thread_name_prefix="digests")
        if self._thread is None:
            self._taken[path] = digest_file(path)
        else:
            self._asked[path] = self._thread.submit(digest_file, path)

    def of(self, path: Path) -> tuple[int, str]:
        """Size and digest of a file for which that was taken. Raises OSError."""
        return self._asked[path].result() if path in self._asked else self._taken[path]


def put_files(store: Store, folder: Path, path: str, names: Sequence[str]) -> None:
    """Upload files of a folder to `path` in the store. Raises StoreFailure."""

    def put(name: str) -> None:
        store.put_file(folder / name, f"{path}/{name}")
        hit("artifacts: a file is in the store")

    for _ in _each("uploading the files", store, names, lambda name: (folder / name).stat().st_size, put):
        pass


def fetch_files(store: Store, artifacts: Artifacts, into: Path) -> list[str]:
    """Download files to a folder; what is wrong with what arrived, a sentence each. Raises FileNotFoundError for one
    that is not there, with its place in the store; StoreFailure."""
    with Digests() as digests:

        def get(file: ArtifactFile) -> None:
            place = artifacts.place(file)
            try:
                store.get_file(place, into / file.path)
            except FileNotFoundError:
                raise FileNotFoundError(place) from None

        for file in _each("fetching the files", store, artifacts.files, lambda file: file.size, get):
            digests.take(into / file.path)
        return [
            f"{into / file.path} differs from what was committed"
            for file in artifacts.files
            if digests.of(into / file.path) != (file.size, file.sha256)
        ]


def _each(
    doing: str, store: Store, items: Sequence[T], size_of: Callable[[T], int], move: Callable[[T], object]
) -> Iterator[T]:
    """Move all of them, several at a time; each when it was moved."""
    large = [item for item in items if size_of(item) > SMALL_FILE_BYTES]
    small = [item for item in items if size_of(item) <= SMALL_FILE_BYTES]

    def moved(item: T) -> T:
        move(item)
        return item

    with FileProgress(doing, len(items)) as progress:
        for at_once, some in ((min(_LARGE_AT_ONCE, store.requests_at_once), large), (store.requests_at_once, small)):
            for item in concurrent_map(at_once, moved, some):
                progress.add(size_of(item))
                yield item
