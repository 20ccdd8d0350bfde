"""A store behind fsspec: S3, GCS, Azure, and memory for tests.

Creation is one conditional request (`If-None-Match: *`, generation match). Listings are never taken from fsspec's
cache: another process may have written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainflow.checkpoints.store import Store, StoredFile, failure

CHUNK_BYTES = 8 << 20
#: fsspec's memory file system looks first and writes then, and its readers share one cursor
_MEMORY_LOCK = threading.RLock()


class ObjectStore(Store):
    """Objects below a prefix."""

    def __init__(self, filesystem: Any, base: str, *, url: str, in_memory: bool) -> None:
        self._filesystem = filesystem
        self._base = base.rstrip("/")
        self._lock: AbstractContextManager[Any] = _MEMORY_LOCK if in_memory else nullcontext()
        self.url = url

    def read(self, path: str) -> bytes:
        with self._call("read", path):
            return bytes(self._filesystem.cat_file(self._at(path)))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        if not paths:
            return []
        with self._call("read", paths[0]):
            found = self._filesystem.cat([self._at(path) for path in paths], on_error="return")
            return [_content(found[self._at(path)]) for path in paths]

    def chunks(self, path: str) -> Iterator[bytes]:
        with self._call("read", path), self._filesystem.open(self._at(path), "rb", cache_type="none") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield bytes(chunk)

    def files(self, folder: str) -> list[StoredFile]:
        with self._call("list", folder):
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.find(self._at(folder) + "/", detail=True)
            except FileNotFoundError:
                return []
            files = [info for info in found.values() if info["type"] == "file"]
        return sorted((self._stored(info) for info in files), key=lambda file: file.path)

    def _stored(self, info: dict[str, Any]) -> StoredFile:
        path = str(info["name"])[len(self._base) + 1 :]
        modified = info.get("LastModified") or info.get("last_modified") or info.get("updated") or info.get("created")
        return StoredFile(path, int(info["size"]), _moment(modified))

    def folders(self, folder: str) -> list[str]:
        with self._call("list", folder):
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.ls(self._at(folder), detail=True)
            except FileNotFoundError:
                return []
        return sorted(str(info["name"]).rstrip("/").rsplit("/", 1)[-1] for info in found if info["type"] == "directory")

    def exists(self, path: str) -> bool:
        with self._call("read", path):
            self._filesystem.invalidate_cache()
            return bool(self._filesystem.isfile(self._at(path)))

    def create_exclusive(self, path: str, data: bytes) -> None:
        with self._call("create", path):
            self._filesystem.pipe_file(self._at(path), data, mode="create")

    def replace(self, path: str, data: bytes) -> None:
        with self._call("write", path):
            self._filesystem.pipe_file(self._at(path), data)

    def put_file(self, source: Path, path: str) -> None:
        with self._call("write", path):
            self._filesystem.put_file(str(source), self._at(path))

    def get_file(self, path: str, target: Path) -> None:
        with self._call("read", path):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._filesystem.get_file(self._at(path), str(target))

    def delete(self, path: str) -> None:
        with self._call("delete", path):
            try:
                self._filesystem.rm_file(self._at(path))
            except (FileNotFoundError, KeyError):  # the memory file system raises the latter
                return

    def delete_folder(self, folder: str) -> None:
        with self._call("delete", folder):
            try:
                self._filesystem.rm(self._at(folder), recursive=True)
            except FileNotFoundError:
                return

    def _at(self, path: str) -> str:
        return f"{self._base}/{path}" if path else self._base

    @contextmanager
    def _call(self, doing: str, path: str) -> Iterator[None]:
        # drivers raise what they like (botocore's errors are no OSError), so everything else counts as a failure
        try:
            with self._lock:
                yield
        except FileExistsError:
            raise
        except Exception as error:
            # nothing to be found is an answer when reading; when writing it means that the bucket is not there
            if isinstance(error, FileNotFoundError) and doing == "read":
                raise
            raise failure(doing, self.uri(path), error) from error


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
