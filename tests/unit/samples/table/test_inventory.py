from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.samples.spec import Ready, Samples, SplitLimits
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.inventory import list_partitions, open_inventory
from trainflow.samples.table.probe import probe
from trainflow.samples.table.readiness import Readiness
from trainflow.samples.table.table_formats import _FORMATS
from trainflow.storage.store import FileStatus, Storage, StoreFile
from trainflow.storage.urls import open_storage

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def test_inventory_lists_partitions_with_states(daily, now) -> None:
    daily.write(0, 1, 4, 5)
    daily.write(2, marker=None)
    holes = [Hole(START + 3 * DAY, START + 5 * DAY, "missing")]
    lines = list_partitions(daily.samples, START, START + 7 * DAY, daily.root, now, holes)
    assert [line.state for line in lines] == ["ready", "ready", "not_ready", "hole", "ready", "ready", "missing"]
    assert [line.start for line in lines] == [START + number * DAY for number in range(7)]
    assert lines[0].files == 1
    assert lines[0].bytes > 0
    assert lines[2].reason.startswith("it has no _SUCCESS")
    assert lines[3].reason == "missing"


def test_empty_stretch_and_empty_table(daily, now) -> None:
    assert list_partitions(daily.samples, START, START, daily.root, now) == []
    assert open_inventory(daily.samples, daily.root, now).last() is None
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
def test_later_partitions_are_found_from_names_whatever_pattern(
    path: str, protocol: str, tmp_path: Path, now: datetime, request: pytest.FixtureRequest
) -> None:
    base = f"{protocol}{abs(hash(request.node.name))}/" if protocol else ""
    samples = Samples(path=base + path, length_seconds=3600, start=START)
    numbers = [0, 3, 23, 24, 700, 24 * 366 + 5]
    storage = open_storage(samples.path, {}, tmp_path)
    for number in numbers:
        storage.replace(samples.path.rstrip("/").format(start=START + number * HOUR) + "/a.parquet", b"")
    inventory = open_inventory(samples, tmp_path, now)
    assert list(inventory.later(START + 3 * HOUR)) == [START + number * HOUR for number in numbers[2:]]
    assert inventory.last() == START + numbers[-1] * HOUR


#: folders that are looked for to find out what kind of table it is
LOGS = {each.log for each in _FORMATS}


class Counting:
    """A storage that counts what is asked of it."""

    remote = False

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.folders: list[str] = []
        self.parents: list[str] = []

    @property
    def requests_at_once(self) -> int:
        return 16 if self.remote else 1

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        self.folders.append(folder)
        return self.storage.listing(folder, recursive=recursive)

    def names(self, folder: str) -> list[str] | None:
        if folder.rpartition("/")[2] not in LOGS:
            self.parents.append(folder)
        return self.storage.names(folder)

    def status(self, path: str) -> FileStatus | None:
        return self.storage.status(path)

    def local_path(self, path: str) -> Path | None:
        return self.storage.local_path(path)


def test_cost_grows_with_what_is_new(daily, now, monkeypatch: pytest.MonkeyPatch) -> None:
    daily.write(*range(30))
    counting = Counting(open_storage(daily.samples.path, {}, daily.root))
    monkeypatch.setattr("trainflow.samples.table.inventory.open_storage", lambda *_: counting)
    found = next_split(daily.samples, START + 20 * DAY, SplitLimits(partitions=5), now, daily.root)
    assert isinstance(found, SplitFound)
    assert (len(counting.folders), counting.parents) == (5, [])
    next_split(daily.samples, START + 28 * DAY, None, now, daily.root)
    assert len(counting.folders) == 5 + 3
    assert counting.parents == ["data"]


def test_inventory_remote_folders_are_listed_together(daily, now, monkeypatch: pytest.MonkeyPatch) -> None:
    daily.write(*range(10))
    counting = Counting(open_storage(daily.samples.path, {}, daily.root))
    counting.remote = True
    monkeypatch.setattr("trainflow.samples.table.inventory.open_storage", lambda *_: counting)
    found = next_split(daily.samples, None, SplitLimits(partitions=7), now, daily.root)
    assert isinstance(found, SplitFound)
    assert len(found.split.partitions) == len(set(counting.folders)) == len(counting.folders) == 7


def test_data_in_hive_folders_below_partition(tmp_path: Path, now: datetime) -> None:
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


@pytest.mark.parametrize("protocol", ["", "memory://hive/"])
def test_data_in_folders_below_is_no_empty_partition_although_no_glob_asks_for_it(
    protocol: str, tmp_path: Path, now: datetime
) -> None:
    samples = Samples(path=protocol + "t/{start:%F}/", length_seconds=86400, start=START)
    storage = open_storage(samples.path, {}, tmp_path)
    for name in ("region=eu/a.parquet", "_SUCCESS"):
        storage.replace(f"{samples.path.partition('{')[0]}2024-01-01/{name}", b"x")
    (line,) = list_partitions(samples, START, START + DAY, tmp_path, now)
    assert line.state == "not_ready"
    assert "region=eu/a.parquet" in line.reason
    assert not probe(samples, START, tmp_path, now).ready


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"x": [1, 2]}), path)


def test_partition_may_be_file(tmp_path: Path, now: datetime) -> None:
    samples = Samples(path="data/events-{start:%Y%m%d}.parquet", length_seconds=86400, start=START)
    for name in ("events-20240101.parquet", "events-20240103.parquet", "events-2024.parquet", "notes.txt"):
        write(tmp_path / "data" / name)
    inventory = open_inventory(samples, tmp_path, now)
    assert list(inventory.later(START)) == [START + timedelta(days=2)]
    states = inventory.states([START + timedelta(days=number) for number in range(3)])
    assert [state.presence for state in states] == [Readiness.READY, Readiness.MISSING, Readiness.READY]
    content = inventory.content(START)
    assert [(file.path, file.rows) for file in content.files] == [("data/events-20240101.parquet", 2)]
    assert [line.state for line in list_partitions(samples, START, START + timedelta(days=3), tmp_path, now)] == [
        "ready", "missing", "ready",
    ]  # fmt: skip


def test_folder_of_files_is_listed_once(tmp_path: Path, now: datetime) -> None:
    samples = Samples(path="data/{start:%Y%m%d}.parquet", length_seconds=86400, start=START)
    for number in range(5):
        write(tmp_path / f"data/2024010{number + 1}.parquet")
    listed: list[str] = []

    def listing(folder: str) -> list[StoreFile] | None:
        listed.append(folder)
        return open_storage(samples.path, {}, tmp_path).listing(folder, recursive=False)

    inventory = open_inventory(samples, tmp_path, now, listing)
    ready = [inventory.state(START + timedelta(days=number)).presence for number in range(6)]
    assert ready == [Readiness.READY] * 5 + [Readiness.MISSING]
    assert listed == ["data"]


def test_file_has_marker_of_its_own(tmp_path: Path, now: datetime) -> None:
    name = "events-{start:%Y%m%d}.parquet"
    samples = Samples(path=f"data/{name}", length_seconds=86400, start=START, ready=Ready(marker=f"{name}.done"))
    for day in ("01", "02"):
        write(tmp_path / f"data/events-202401{day}.parquet")
    (tmp_path / "data/events-20240102.parquet.done").touch()
    (tmp_path / "data/events-20240103.parquet.done").touch()
    inventory = open_inventory(samples, tmp_path, now)
    states = inventory.states([START + timedelta(days=number) for number in range(3)])
    assert [state.presence.value for state in states] == ["not_ready", "ready", "not_ready"]
    assert states[0].reason == "it has no events-20240101.parquet.done"
    assert "only events-20240103.parquet.done" in states[2].reason


def test_file_may_lie_in_dated_folder(tmp_path: Path, now: datetime) -> None:
    samples = Samples(
        path="data/{start:%Y-%m-%d}/part.parquet", length_seconds=86400, start=START, ready=Ready(marker="_SUCCESS")
    )
    write(tmp_path / "data/2024-01-01/part.parquet")
    (tmp_path / "data/2024-01-01/_SUCCESS").touch()
    write(tmp_path / "data/2024-01-02/other.parquet")
    inventory = open_inventory(samples, tmp_path, now)
    assert [inventory.state(START + timedelta(days=number)).presence for number in range(2)] == [
        Readiness.READY, Readiness.MISSING,
    ]  # fmt: skip


def test_numbers_without_zeros_are_in_order_of_time(tmp_path: Path, now: datetime) -> None:
    samples = Samples(
        path="data/year={start:%Y}/month={start:%-m}/day={start:%-d}/",
        length_seconds=86400,
        start=START,
        ready=Ready(min_files=1),
    )
    days = [datetime(2024, month, day, tzinfo=UTC) for month in (1, 2, 10) for day in (1, 2, 9, 10, 21)]
    for day in days:
        write(tmp_path / f"data/year=2024/month={day.month}/day={day.day}/a.parquet")
    write(tmp_path / "data/year=2024/month=01/day=05/a.parquet")  # written by another writer: not of this pattern
    inventory = open_inventory(samples, tmp_path, now)
    assert list(inventory.later(days[0])) == days[1:]
    assert list(inventory.later(days[7])) == days[8:]
    assert inventory.last() == days[-1]
    assert inventory.is_ready(days[3])


def test_months_are_listed_as_calendar_has_them(tmp_path: Path, now: datetime) -> None:
    samples = Samples(path="data/{start:%Y-%m}/", length_months=1, start=START, ready=Ready(min_files=1))
    for name in ("2024-01", "2024-02", "2024-04"):
        write(tmp_path / "data" / name / "a.parquet")
    lines = list_partitions(samples, START, datetime(2024, 5, 1, tzinfo=UTC), tmp_path, now)
    assert [(f"{line.start:%m-%d}", f"{line.end:%m-%d}", line.state) for line in lines] == [
        ("01-01", "02-01", "ready"),
        ("02-01", "03-01", "ready"),
        ("03-01", "04-01", "missing"),
        ("04-01", "05-01", "ready"),
    ]


def test_folders_between_partitions_are_none(tmp_path: Path, now: datetime) -> None:
    samples = Samples(path="data/{start:%Y-%m-%dT%H}", length_seconds=7200, start=START, ready=Ready(min_files=1))
    for hour in range(4):
        write(tmp_path / f"data/2024-01-01T{hour:02}/a.parquet")
    inventory = open_inventory(samples, tmp_path, now)
    assert list(inventory.later(START - timedelta(hours=2))) == [START, START + timedelta(hours=2)]
