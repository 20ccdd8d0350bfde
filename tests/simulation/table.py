"""The simulated sample table: partitions of an hour that arrive when they arrive, or never."""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import IO

from tests.simulation.fiber import current
from trainflow.clock import Clock
from trainflow.errors import SampleFileMissing, SampleUnreadable
from trainflow.samples.files.fingerprint import partition_fingerprint, read_content
from trainflow.storage.store import Storage, StoreFile

START = datetime(2013, 1, 1, tzinfo=UTC)
LENGTH = timedelta(hours=1)
TABLE = "table"
#: rows of a partition
ROWS = 2
_FOLDER = "%Y-%m-%dT%H"
_FILES = ("_SUCCESS", "part.bin")
#: what a ledger calls a partition without a file
EMPTY = partition_fingerprint([])


class SampleTable(Storage):
    """A table of `size` partitions: the storage that the product lists."""

    url = TABLE

    def __init__(self, clock: Clock, size: int, empty: Iterable[int] = ()) -> None:
        """`empty`: partitions that have their marker and no file, and when they are written again one, and so on."""
        self.clock = clock
        self.size = size
        self._written_empty = frozenset(empty)
        #: partition number → when it was written last
        self.arrived: dict[int, datetime] = {}
        #: the same, by what the clock has measured, and how often
        self.written: dict[int, tuple[float, int]] = {}
        #: those that ever were there
        self.seen: set[int] = set()
        #: those that were taken away at some time
        self.vanished: set[int] = set()
        self._folders: dict[str, list[StoreFile]] = {}
        self._editions: dict[str, int] = {}
        #: so many listings are refused
        self.unreadable = 0
        #: rises with each change
        self.version = 0
        #: the start of the first partition, as the pipeline says it
        self.begin = START

    @property
    def end(self) -> datetime:
        """The exclusive end of the last partition."""
        return START + self.size * LENGTH

    def moment(self, number: int) -> datetime:
        """Where a partition starts."""
        return START + number * LENGTH

    def arrive(self, number: int) -> None:
        """Write a partition."""
        now = self.clock.now()
        self.arrived[number] = now
        self.seen.add(number)
        self.written[number] = (self.clock.monotonic(), self.written.get(number, (0.0, 0))[1] + 1)
        self.version += 1
        edition = self.written[number][1]
        listing = f"{now.isoformat()} {self.version}"
        names = _FILES[:1] if self.is_empty(number, edition) else _FILES
        files = [StoreFile(name, len(_content(edition)), now, listing) for name in names]
        self._folders[f"{START + number * LENGTH:{_FOLDER}}"] = files
        self._editions[f"{START + number * LENGTH:{_FOLDER}}"] = edition

    def is_empty(self, number: int, edition: int) -> bool:
        """Whether a partition that was written so often has no row."""
        return number in self._written_empty and edition % 2 == 1

    def fingerprint(self, number: int, edition: int) -> str:
        """What a ledger calls a partition that was written so often."""
        return EMPTY if self.is_empty(number, edition) else fingerprint_of(edition)

    def has_rows(self, number: int) -> bool:
        """Whether a partition is there, and is not empty."""
        return number in self.arrived and not self.is_empty(number, self.written[number][1])

    def vanish(self, number: int) -> None:
        """Take a partition away."""
        del self.arrived[number]
        del self._folders[f"{START + number * LENGTH:{_FOLDER}}"]
        self.vanished.add(number)
        self.version += 1

    # -- what the product sees -------------------------------------------------------------------------------------

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        """See `Storage.listing`."""
        self._refuse(folder)
        return self._folders.get(folder.strip("/").removeprefix(f"{TABLE}/"))

    def names(self, folder: str) -> list[str] | None:
        """See `Storage.names`: there is nothing but partitions."""
        if folder.strip("/") != TABLE:
            return None
        self._refuse(folder)
        return list(self._folders)

    def _refuse(self, folder: str) -> None:
        if self.unreadable and current() is not None:
            self.unreadable -= 1
            raise SampleUnreadable(f"{folder} cannot be read: made to fail")

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        raise AssertionError(path)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """See `Storage.read_range`."""
        with self.open(path) as file:
            return file.read()[start:end]

    def open(self, path: str) -> IO[bytes]:
        """See `Storage.open`."""
        folder = path.strip("/").removeprefix(f"{TABLE}/").partition("/")[0]
        if folder not in self._folders:
            raise SampleFileMissing(f"{path} cannot be read: it is not there")
        return io.BytesIO(_content(self._editions[folder]))

    def replace(self, path: str, data: bytes) -> None:
        """See `Storage.replace`."""
        raise AssertionError(path)


def tiles(start: datetime, end: datetime) -> range:
    """The numbers of the partitions from `start` to `end`."""
    return range((start - START) // LENGTH, (end - START) // LENGTH)


def rows_of(start: datetime, edition: int) -> list[str]:
    """What is in a partition that was written so often."""
    return [f"{start.isoformat()}#{number} edition {edition}" for number in range(ROWS)]


def edition_in(content: bytes) -> int:
    """How often the partition had been written, of which this is a file."""
    return int(content)


def fingerprint_of(edition: int) -> str:
    """What a ledger calls a partition that was written so often."""
    file = read_content(io.BytesIO(_content(edition))).fingerprint
    return partition_fingerprint([(_FILES[1], file)])


def _content(edition: int) -> bytes:
    return f"{edition:9d}".encode()
