"""Tables that a log describes are refused, wherever their log is; what only looks alike is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from trainflow.errors import SamplesRefused, SampleUnreadable
from trainflow.samples.pattern import path_pattern
from trainflow.samples.spec import Samples
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.samples.table.table_formats import _above, refuse_above, refuse_at
from trainflow.storage.local import LocalStore
from trainflow.storage.urls import open_storage

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("_delta_log/00000000000000000000.json", "Delta"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/00000-5f1c.metadata.json", "Iceberg"),
        ("metadata/v1.gz.metadata.json", "Iceberg"),
        ("metadata/version-hint.text", "Iceberg"),
        ("_versions/1.manifest", "Lance"),
        ("snapshot/snapshot-1", "Paimon"),
        ("_spark_metadata/0", "Spark"),
    ],
)
@pytest.mark.parametrize("where", [".", "data", "data/date=2024-01-01"])
def test_table_that_log_describes_is_refused(daily, now, log: str, name: str, where: str) -> None:
    daily.write(0)
    file = daily.root / where / log
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(SamplesRefused) as refused:
        next_split(daily.samples, None, None, now, daily.root)
    assert name in str(refused.value)
    assert f"{where} has {log.split('/')[0]}" in str(refused.value)


@pytest.mark.parametrize("folder", ["base_0000001", "delta_0000002_0000002_0000", "delete_delta_0000003_0000003"])
def test_transactional_hive_table_is_refused(daily, now, folder: str) -> None:
    daily.write(0)
    (daily.folder(0) / folder).mkdir()
    (daily.folder(0) / "a.parquet").rename(daily.folder(0) / folder / "a.parquet")
    with pytest.raises(SamplesRefused, match=f"Hive table: .*date=2024-01-01 has {folder}"):
        next_split(msgspec.structs.replace(daily.samples, files="**/*.parquet"), None, None, now, daily.root)


@pytest.mark.parametrize("file", ["metadata/readme.json", "snapshot/2024", "delta_log/0.json", "base_1/x"])
def test_table_format_lookalike_is_trained(daily, now, file: str) -> None:
    daily.write(0)
    for place in ("data", "data/date=2024-01-01"):
        (daily.root / place / file).parent.mkdir()
        (daily.root / place / file).touch()
    assert isinstance(next_split(daily.samples, None, None, now, daily.root), SplitFound)


def test_log_between_root_and_partition(tmp_path: Path) -> None:
    (tmp_path / "data/2024/_delta_log").mkdir(parents=True)
    pattern = path_pattern("data/{start:%Y}/{start:%m-%d}/x")
    refuse_above(open_storage("data", {}, tmp_path), pattern)
    with pytest.raises(SamplesRefused, match="data/2024 has _delta_log"):
        refuse_at(open_storage("data", {}, tmp_path), pattern, "data/2024/01-01/x/a.parquet")


def test_root_of_pattern_without_one(tmp_path: Path) -> None:
    (tmp_path / "2024-01-01/_delta_log").mkdir(parents=True)
    pattern = path_pattern("{start:%Y-%m-%d}/")
    with pytest.raises(SamplesRefused, match="2024-01-01 has _delta_log"):
        refuse_at(open_storage("data", {}, tmp_path), pattern, "2024-01-01/a.parquet")


def test_log_below_partition(daily, now) -> None:
    daily.write(0)
    (daily.folder(0) / "eu/_delta_log").mkdir(parents=True)
    (daily.folder(0) / "a.parquet").rename(daily.folder(0) / "eu/a.parquet")
    with pytest.raises(SamplesRefused, match="date=2024-01-01/eu has _delta_log"):
        next_split(msgspec.structs.replace(daily.samples, files="**/*.parquet"), None, None, now, daily.root)


@pytest.mark.parametrize(
    ("root", "above"),
    [
        ("data/x", ["data/x", "data", "."]),
        (".", [".", "."]),
        ("/a/b/c/d/e", ["/a/b/c/d/e", "/a/b/c/d", "/a/b/c", "/a/b", "/a"]),
        ("/a", ["/a", "/"]),
        ("s3://bucket/t/x", ["s3://bucket/t/x", "s3://bucket/t", "s3://bucket"]),
        ("s3://bucket", ["s3://bucket"]),
    ],
)
def test_table_format_above_folder_is_found(root: str, above: list[str]) -> None:
    assert list(_above(root)) == above


def test_table_format_remote_is_asked_when_chain_begins(daily, now, monkeypatch: pytest.MonkeyPatch) -> None:

    asked: list[str] = []
    names = LocalStore.names

    def note(self: LocalStore, folder: str) -> list[str] | None:
        if folder.endswith("_delta_log"):
            asked.append(folder)
        return names(self, folder)

    monkeypatch.setattr(LocalStore, "remote", True)
    monkeypatch.setattr(LocalStore, "names", note)
    daily.write(0, 1)
    next_split(daily.samples, None, None, now, daily.root)
    assert asked
    asked.clear()
    next_split(daily.samples, START + timedelta(days=1), None, now, daily.root)
    assert asked == []


def test_folder_above_that_may_not_be_read_is_no_obstacle(daily, now, monkeypatch: pytest.MonkeyPatch) -> None:

    names = LocalStore.names

    def denied(self: LocalStore, folder: str) -> list[str] | None:
        if folder == "data":
            return names(self, folder)
        raise SampleUnreadable(f"{folder}: denied")

    monkeypatch.setattr(LocalStore, "names", denied)
    daily.write(0)
    assert isinstance(next_split(daily.samples, None, None, now, daily.root), SplitFound)


def test_table_above_url(now) -> None:
    storage = open_storage("memory://lake", {}, None)
    storage.replace("memory://lake/events/_delta_log/0.json", b"{}")
    samples = Samples(path="memory://lake/events/eu/{start:%F}/", length_seconds=86400, start=START)
    with pytest.raises(SamplesRefused, match="memory://lake/events has _delta_log"):
        next_split(msgspec.structs.replace(samples), None, None, now, None)
