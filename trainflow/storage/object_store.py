"""A store behind fsspec: S3, GCS, Azure, and memory for tests.

Creation is one conditional request (`If-None-Match: *`, generation match). Listings are never taken from fsspec's
cache: another process may have written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from trainflow.errors import StoreFailure, StoreMissing
from trainflow.storage.sample_files import bucket_of
from trainflow.storage.store import Store, StoredFile, failure
from trainflow.storage.throttling import is_throttled, persist

T = TypeVar("T")
CHUNK_BYTES = 8 << 20
REQUESTS_AT_ONCE = 16
#: fsspec's memory file system looks first and writes then, and its readers share one cursor
_MEMORY_LOCK = threading.RLock()


class ObjectStore(Store):
    """Objects below a prefix. `sleep` is for a store that asks for fewer requests."""

    def __init__(
        self,
        filesystem: Any,
        base: str,
        *,
        url: str,
        in_memory: bool,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._filesystem = filesystem
        self._base = base.rstrip("/")
        self._in_memory = in_memory
        self._lock: AbstractContextManager[Any] = _MEMORY_LOCK if in_memory else nullcontext()
        self._sleep = sleep
        self.url = url
        self.requests_at_once = 1 if in_memory else REQUESTS_AT_ONCE
        self._whole = _in_one_request(filesystem)

    def read(self, path: str) -> bytes:
        return self._ask("read", path, lambda: bytes(self._filesystem.cat_file(self._at(path), **self._whole)))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        found: dict[str, bytes | None] = {}
        if paths:
            self._ask("read", paths[0], lambda: self._read_rest(paths, found))
        return [found[path] for path in paths]

    def _read_rest(self, paths: Sequence[str], found: dict[str, bytes | None]) -> None:
        """Read what is not there yet. Who asks for fewer requests is not asked again for what it has given."""
        left = [path for path in paths if path not in found]
        answers = self._filesystem.cat([self._at(path) for path in left], on_error="return", **self._whole)
        refused: BaseException | None = None
        for path in left:
            answer = answers[self._at(path)]
            if isinstance(answer, BaseException) and is_throttled(answer):
                refused = answer
            else:
                found[path] = _content(answer)
        if refused is not None:
            raise refused

    def chunks(self, path: str) -> Iterator[bytes]:
        with self._failures("read", path), self._ask("read", path, lambda: self._open(path)) as file:
            # a refused read leaves the place in the file where it was
            while chunk := self._ask("read", path, lambda: file.read(CHUNK_BYTES)):
                yield bytes(chunk)

    def _open(self, path: str) -> Any:
        return self._filesystem.open(self._at(path), "rb", cache_type="none")

    def files(self, folder: str) -> list[StoredFile]:
        found = self._ask("list", folder, lambda: self._find(folder))
        files = [info for info in found.values() if info["type"] == "file"]
        return sorted((self._stored(info) for info in files), key=lambda file: file.path)

    def names(self, folder: str) -> list[str]:
        found = self._ask("list", folder, lambda: self._find(folder))
        start = len(self._at(folder)) + 1
        return [name for path in found if "/" not in (name := path[start:])]

    def _find(self, folder: str) -> dict[str, Any]:
        self._filesystem.invalidate_cache()
        try:
            found: dict[str, Any] = self._filesystem.find(self._at(folder) + "/", detail=True)
        except FileNotFoundError:
            return {}
        return found

    def _stored(self, info: dict[str, Any]) -> StoredFile:
        path = str(info["name"])[len(self._base) + 1 :]
        modified = info.get("LastModified") or info.get("last_modified") or info.get("updated") or info.get("created")
        return StoredFile(path, int(info["size"]), _moment(modified))

    def folders(self, folder: str) -> list[str]:
        found = self._ask("list", folder, lambda: self._list(folder))
        return sorted(str(info["name"]).rstrip("/").rsplit("/", 1)[-1] for info in found if info["type"] == "directory")

    def _list(self, folder: str) -> list[dict[str, Any]]:
        self._filesystem.invalidate_cache()
        try:
            return list(self._filesystem.ls(self._at(folder), detail=True))
        except FileNotFoundError:
            return []

    def exists(self, path: str) -> bool:
        return self._ask("read", path, lambda: self._is_file(path))

    def _is_file(self, path: str) -> bool:
        self._filesystem.invalidate_cache()
        return bool(self._filesystem.isfile(self._at(path)))

    def create_exclusive(self, path: str, data: bytes) -> None:
        self._ask("create", path, lambda: self._filesystem.pipe_file(self._at(path), data, mode="create"))

    def replace(self, path: str, data: bytes) -> None:
        self._ask("write", path, lambda: self._filesystem.pipe_file(self._at(path), data))

    def put_file(self, source: Path, path: str) -> None:
        self._ask("write", path, lambda: self._filesystem.put_file(str(source), self._at(path)))

    def get_file(self, path: str, target: Path) -> None:
        self._ask("read", path, lambda: self._get_file(path, target))

    def _get_file(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._filesystem.get_file(self._at(path), str(target))

    def delete(self, path: str) -> None:
        # the memory file system raises a KeyError for a file that is not there
        with suppress(FileNotFoundError, KeyError):
            self._ask("delete", path, lambda: self._filesystem.rm_file(self._at(path)))

    def delete_folder(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            self._ask("delete", folder, lambda: self._filesystem.rm(self._at(folder), recursive=True))

    def probe(self) -> None:
        bucket = bucket_of(self._base)
        try:
            exists = self._in_memory or self._filesystem.exists(bucket)
        except Exception:  # credentials that may write need not be allowed to ask that
            exists = True
        if not exists:
            raise StoreMissing(
                f"the checkpoint store {self.url} cannot be used: its bucket (or container) {bucket!r} does not exist; "
                "make it, or check that the store exists under this name at the account or endpoint of its options",
                location=self.url,
            )
        super().probe()

    def _at(self, path: str) -> str:
        return f"{self._base}/{path}" if path else self._base

    def _ask(self, doing: str, path: str, call: Callable[[], T]) -> T:
        with self._failures(doing, path), self._lock:
            return persist(call, self._sleep)

    @contextmanager
    def _failures(self, doing: str, path: str) -> Iterator[None]:
        # drivers raise what they like (botocore's errors are no OSError), so everything else counts as a failure
        try:
            yield
        except (FileExistsError, StoreFailure):
            raise
        except Exception as error:
            # nothing to be found is an answer when reading or deleting; when writing the bucket is not there
            if isinstance(error, FileNotFoundError | KeyError) and doing in ("read", "delete"):
                raise
            raise failure(doing, self.uri(path), error) from error


def _in_one_request(filesystem: Any) -> dict[str, Any]:
    """Newer drivers ask for the size of a file before they read it, to read a large one in parts at once. What is read
    whole here is small: that would double the requests, and treble those for a file that is not there."""
    read = getattr(filesystem, "_cat_file", None)
    return {"max_concurrency": 1} if read and "max_concurrency" in signature(read).parameters else {}


def _content(found: Any) -> bytes | None:
    if isinstance(found, FileNotFoundError):
        return None
    if isinstance(found, BaseException):
        raise found
    return bytes(found)


def _moment(value: Any) -> datetime | None:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return None
