"""A checkpoint store in this process's memory: as exclusive as a disk, without its waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from trainflow.storage.store import Store, StoreFile


class MemoryStore(Store):
    """Files in a dictionary."""

    def __init__(self, url: str = "simulated:/", *, remote: bool = False) -> None:
        self.url = url
        self.remote = remote
        self.contents: dict[str, bytes] = {}
        #: rises with each change
        self.version = 0
        self._lock = Lock()

    def read(self, path: str) -> bytes:
        try:
            return self.contents[path]
        except KeyError:
            raise FileNotFoundError(self.uri(path)) from None

    def chunks(self, path: str) -> Iterator[bytes]:
        yield self.read(path)

    def files(self, folder: str) -> list[StoreFile]:
        prefix = f"{folder}/" if folder else ""
        with self._lock:
            found = [(path, len(data)) for path, data in self.contents.items() if path.startswith(prefix)]
        return [StoreFile(path, size) for path, size in sorted(found)]

    def names(self, folder: str) -> list[str] | None:
        prefix = f"{folder}/" if folder else ""
        with self._lock:
            found = {path[len(prefix) :].partition("/")[0] for path in self.contents if path.startswith(prefix)}
        return sorted(found) or None

    def folders(self, folder: str) -> list[str]:
        skip = len(folder) + 1 if folder else 0
        below = [file.path[skip:].split("/") for file in self.files(folder)]
        return sorted({parts[0] for parts in below if len(parts) > 1})

    def exists(self, path: str) -> bool:
        return path in self.contents

    def create_exclusive(self, path: str, data: bytes) -> None:
        with self._lock:
            if path in self.contents:
                raise FileExistsError(self.uri(path))
            self.contents[path] = data
            self.version += 1

    def replace(self, path: str, data: bytes) -> None:
        with self._lock:
            self.contents[path] = data
            self.version += 1

    def put_file(self, source: Path, path: str) -> None:
        self.replace(path, source.read_bytes())

    def get_file(self, path: str, target: Path) -> None:
        data = self.read(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def delete(self, path: str) -> None:
        with self._lock:
            self.contents.pop(path, None)
            self.version += 1

    def delete_folder(self, folder: str) -> None:
        for file in self.files(folder):
            self.delete(file.path)
