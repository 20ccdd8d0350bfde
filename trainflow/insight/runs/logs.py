"""What an attempt printed and logged, read part by part: from the home, or from the store to which it was sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trainflow.errors import NotFound, StoreFailure
from trainflow.insight.runs.tasks import AttemptLog
from trainflow.observability.log_files import parts
from trainflow.storage.store import Store
from trainflow.workspace.workspace import Workspace

#: bytes of a log that are read at a time
PART_BYTES = 1 << 16


class LogBytes(NamedTuple):
    """Bytes of a log, and where they end."""

    data: bytes
    position: int


class LogSource(ABC):
    """Where a log is read."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, for people."""

    @abstractmethod
    def read(self, position: int, most: int = PART_BYTES) -> LogBytes:
        """What was written after `position` (bytes). A log that has become shorter was rotated: it is read from its
        beginning. Nothing where there is no log yet."""

    @abstractmethod
    def size(self) -> int:
        """Bytes that it has now; 0: there is no log yet."""

    @abstractmethod
    def rotated(self) -> list[LogSource]:
        """The parts that were rotated away, oldest first."""


class HomeLog(LogSource):
    """A log in the home of this project."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def place(self) -> str:
        return str(self._path)

    def read(self, position: int, most: int = PART_BYTES) -> LogBytes:
        try:
            with self._path.open("rb") as file:
                if self._path.stat().st_size < position:
                    position = 0
                file.seek(position)
                data = file.read(most)
        except FileNotFoundError:
            return LogBytes(b"", position)
        return LogBytes(data, position + len(data))

    def size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def rotated(self) -> list[LogSource]:
        return [HomeLog(path) for path in parts(self._path)[:-1]]


class StoredLog(LogSource):
    """A log of another home, as far as it was sent to the store."""

    def __init__(self, store: Store, name: str, hostname: str | None = None) -> None:
        """`hostname`: where its attempt ran."""
        self._store = store
        self._name = name
        self._hostname = hostname

    @property
    def place(self) -> str:
        return self._store.uri(self._name)

    def read(self, position: int, most: int = PART_BYTES) -> LogBytes:
        try:
            data = self._store.read_range(self._name, position, position + most)
            if not data and position and not self._store.read_range(self._name, position - 1, position):
                return self.read(0, most)
        except FileNotFoundError:
            data = b""
        except StoreFailure as error:
            raise StoreFailure(
                f"the log cannot be read: {error}. The attempt ran on {self._hostname or 'a host that is not known'}: "
                "its log is in the home of the engine there, too",
                location=error.location,
            ) from error
        return LogBytes(data, position + len(data))

    def size(self) -> int:
        found = self._store.listing(self._name.rpartition("/")[0], recursive=False) or ()
        return next((each.size_bytes for each in found if each.path == self._name), 0)

    def rotated(self) -> list[LogSource]:
        folder, _, own = self._name.rpartition("/")
        numbers = [
            int(number)
            for name in self._store.names(folder) or ()
            if (number := name.removeprefix(f"{own}.")) != name and number.isdigit()
        ]
        return [
            StoredLog(self._store, f"{self._name}.{number}", self._hostname) for number in sorted(numbers, reverse=True)
        ]


class WholeLog:
    """A log with the parts that were rotated away, as long as they are when this is made."""

    def __init__(self, source: LogSource) -> None:
        self._parts = [(each, each.size()) for each in (*source.rotated(), source)]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(size for _, size in self._parts)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, in pieces; fewer where a part has become shorter meanwhile."""
        for part, size in self._parts:
            position, last = max(start, 0), min(end, size)
            while position < last and (data := part.read(position, min(PART_BYTES, last - position)).data):
                position += len(data)
                yield data
            start, end = start - size, end - size


def log_source(workspace: Workspace, log: AttemptLog) -> LogSource:
    """Where the log of an attempt is read: in the home where it is there, else in the store of `[logs]`, if there is
    one. Raises NotFound where its name leads out of the home."""
    file = Path(log.path)
    if not file.resolve().is_relative_to(workspace.project.home.path.resolve()):
        raise NotFound(f"the log {log.path} is not in the home of this project")
    settings = workspace.settings.logs
    if file.exists() or settings.url is None:
        return HomeLog(file)
    from trainflow.storage.urls import open_store

    store = open_store(settings.url, storage_options=settings.storage_options, root=workspace.project.root)
    return StoredLog(store, log.name, log.hostname)
