"""Small tables on a disk that the tests may write to."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.samples.spec import Samples

START = datetime(2024, 1, 1, tzinfo=UTC)


class Table:
    """A daily (or other) table below a folder; writes partitions by their number."""

    def __init__(self, root: Path, samples: Samples) -> None:
        self.root = root
        self.samples = samples

    def start(self, number: int) -> datetime:
        return self.samples.start + number * timedelta(seconds=self.samples.length_seconds)

    def folder(self, number: int) -> Path:
        return self.root / self.samples.path.format(start=self.start(number))

    def write(self, *numbers: int, rows: int = 10, marker: str | None = "_SUCCESS", at: datetime | None = None) -> None:
        for number in numbers:
            folder = self.folder(number)
            folder.mkdir(parents=True, exist_ok=True)
            values = list(range(number * 1000, number * 1000 + rows))
            pq.write_table(pa.table({"x": values}), folder / "a.parquet", row_group_size=4)
            if marker is not None:
                (folder / marker).touch()
            if at is not None:
                for path in folder.iterdir():
                    os.utime(path, (at.timestamp(), at.timestamp()))


@pytest.fixture
def now() -> datetime:
    return datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def daily(tmp_path: Path) -> Table:
    return Table(tmp_path, Samples(path="data/date={start:%Y-%m-%d}/", length_seconds=86400, start=START))
