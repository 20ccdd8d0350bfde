from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.samples.inventory import last_existing, list_partitions, open_inventory
from trainflow.samples.next_split import SplitFound, next_split
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.split import Hole
from trainflow.samples.storage import Storage, StoredFile, open_storage

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def test_every_partition_with_its_state(daily, now) -> None:
    daily.write(0, 1, 4, 5)
    daily.write(2, marker=None)
    holes = [Hole(START + 3 * DAY, START + 5 * DAY, "missing")]
    lines = list_partitions(daily.samples, START, START + 7 * DAY, daily.root, now, holes)
    assert [line.state for line in lines] == ["ready", "ready", "not_ready", "hole", "ready", "ready", "missing"]
    assert [line.start for line in lines] == [START + number * DAY for number in range(7)]
    assert lines[0].files == 1
    assert lines[0].bytes > 0
    assert lines[2].reason == "it has no _SUCCESS"
    assert lines[3].reason == "missing"


def test_an_empty_stretch_and_an_empty_table(daily, now) -> None:
    assert list_partitions(daily.samples, START, START, daily.root, now) == []
    assert last_existing(daily.samples, daily.root, now) is None
    assert [line.state for line in list_partitions(daily.samples, START, START + DAY, daily.root, now)] == ["missing"]


@pytest.mark.parametrize(
    "path",
    [
        "t/date={start:%Y-%m-%d}/hour={start:%H}/",
        "t/{start:%Y}/{start:%m}/{start:%d}/{start:%H}",
        "t/{start:%d.%m.%Y}/{start:%H}",
        "t/{start:%Y%m%dT%H}/data/",
        "t/y={start:%Y}/{start:%Y-%m-%d-%H}",
    ],
)
@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_later_partitions_are_found_from_names_whatever_the_pattern(
    path: str, protocol: str, tmp_path: Path, now: datetime, request: pytest.FixtureRequest
) -> None:
    base = f"{protocol}{abs(hash(request.node.name))}/" if protocol else ""
    samples = Samples(path=base + path, length_seconds=3600, start=START)
    numbers = [0, 3, 23, 24, 700, 24 * 366 + 5]
    storage = open_storage(samples.path, {}, tmp_path)
    for number in numbers:
        storage.write(samples.path.rstrip("/").format(start=START + number * HOUR) + "/a.parquet", b"")
    inventory = open_inventory(samples, tmp_path, now)
    assert list(inventory.later(START + 3 * HOUR)) == [START + number * HOUR for number in numbers[2:]]
    assert inventory.last() == START + numbers[-1] * HOUR


class Counting:
    """A storage that counts what is asked of it."""

    remote = False

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.folders: list[str] = []
        self.parents: list[str] = []

    def files(self, folder: str, *, recursive: bool) -> list[StoredFile] | None:
        self.folders.append(folder)
        return self.storage.files(folder, recursive=recursive)

    def names(self, folder: str) -> list[str] | None:
        self.parents.append(folder)
        return self.storage.names(folder)

    def has(self, path: str) -> bool:
        return False

    def open_parquet(self, path: str) -> object:
        return self.storage.open_parquet(path)


def test_the_cost_grows_with_what_is_new(daily, now, monkeypatch: pytest.MonkeyPatch) -> None:
    daily.write(*range(30))
    counting = Counting(open_storage(daily.samples.path, {}, daily.root))
    monkeypatch.setattr("trainflow.samples.inventory.open_storage", lambda *_: counting)
    found = next_split(daily.samples, START + 20 * DAY, SplitLimits(partitions=5), now, daily.root)
    assert isinstance(found, SplitFound)
    assert (len(counting.folders), counting.parents) == (5, [])
    next_split(daily.samples, START + 28 * DAY, None, now, daily.root)
    assert len(counting.folders) == 5 + 3
    assert counting.parents == ["data"]


def test_on_remote_storage_the_next_folders_are_looked_at_together(daily, now, monkeypatch: pytest.MonkeyPatch) -> None:
    daily.write(*range(10))
    counting = Counting(open_storage(daily.samples.path, {}, daily.root))
    counting.remote = True
    monkeypatch.setattr("trainflow.samples.inventory.open_storage", lambda *_: counting)
    found = next_split(daily.samples, None, SplitLimits(partitions=7), now, daily.root)
    assert isinstance(found, SplitFound)
    assert len(found.split.partitions) == len(set(counting.folders)) == len(counting.folders) == 7


def test_data_in_hive_folders_below_a_partition(tmp_path: Path, now: datetime) -> None:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START, files="**/*.parquet")
    for name in ("country=DE", "country=__HIVE_DEFAULT_PARTITION__", "_temporary/0"):
        (tmp_path / "t/2024-01-01" / name).mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), tmp_path / "t/2024-01-01" / name / "p.parquet")
    (tmp_path / "t/2024-01-01/_SUCCESS").touch()
    found = next_split(samples, None, None, now, tmp_path)
    assert isinstance(found, SplitFound)
    assert [file.path for file in found.split.files] == [
        "t/2024-01-01/country=DE/p.parquet",
        "t/2024-01-01/country=__HIVE_DEFAULT_PARTITION__/p.parquet",
    ]
