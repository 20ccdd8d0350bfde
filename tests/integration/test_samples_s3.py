"""Samples on an object store: a real S3 protocol, no folders, listings that must not be remembered."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.errors import SampleUnreadable
from trainflow.samples.spec import GapPolicy, Samples, SplitLimits
from trainflow.samples.splits.next_split import CaughtUp, SplitFound, next_split
from trainflow.samples.splits.split_xcom import split_from_xcom, split_to_xcom
from trainflow.samples.table.inventory import list_partitions
from trainflow.samples.table.probe import SharedListings, probe
from trainflow.storage.urls import open_storage

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2099, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, object]]:
    server_module = pytest.importorskip("moto.server", reason="needs moto[server]")
    pytest.importorskip("s3fs", reason="needs s3fs")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "key": "testing-key",
        "secret": "testing-secret",
        "endpoint_url": f"http://{host}:{port}",
        "client_kwargs": {"region_name": "us-east-1"},
    }
    server.stop()


@pytest.fixture
def samples(options: dict[str, object], request: pytest.FixtureRequest) -> Samples:
    """A table in a bucket of its own."""
    bucket = request.node.name.replace("_", "-").lower()[:60]
    fsspec.filesystem("s3", **options).call_s3("create_bucket", Bucket=bucket)
    path = f"s3://{bucket}/t/date={{start:%Y-%m-%d}}/hour={{start:%H}}/"
    return Samples(path=path, length_seconds=3600, start=START, gaps=GapPolicy(0, "skip"), storage_options=options)


def write(samples: Samples, *numbers: int, marker: bool = True) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": list(range(10))}), sink)
    storage = open_storage(samples.path, samples.storage_options, None)
    for number in numbers:
        folder = samples.path.format(start=START + number * HOUR)
        storage.replace(f"{folder}a.parquet", sink.getvalue())
        if marker:
            storage.replace(f"{folder}_SUCCESS", b"")


def test_splits_of_bucket_that_grows(samples: Samples) -> None:
    assert isinstance(next_split(samples, None, None, NOW, None), CaughtUp)
    write(samples, 0, 1, 2, 30)
    found = next_split(samples, None, SplitLimits(partitions=3), NOW, None)
    assert isinstance(found, SplitFound)
    assert (found.split.end, found.split.rows) == (START + 3 * HOUR, 30)
    found = next_split(samples, found.split.end, None, NOW, None)
    assert isinstance(found, SplitFound)
    assert (len(found.split.partitions), found.split.holes[0].end) == (1, START + 30 * HOUR)
    write(samples, 31)
    assert isinstance(next_split(samples, found.split.end, None, NOW, None), SplitFound)


def test_batches_probe_and_listing(samples: Samples) -> None:
    write(samples, 0, 1)
    write(samples, 2, marker=False)
    split = next_split(samples, None, None, NOW, None).split.reached_by(storage_options=samples.storage_options)
    rows = [value for batch in split.batches(batch_size=3, seed=1) for value in batch.column("x").to_pylist()]
    assert sorted(rows) == sorted([*range(10), *range(10)])
    shared = SharedListings()
    states = [probe(samples, START + number * HOUR, None, NOW, listings=shared).ready for number in range(4)]
    assert states == [True, True, False, False]
    lines = list_partitions(samples, START, START + 4 * HOUR, None, NOW)
    assert [line.state for line in lines] == ["ready", "ready", "not_ready", "missing"]


def test_manifest_in_bucket(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    write(samples, 0)
    split = next_split(samples, None, None, NOW, None).split
    monkeypatch.setattr("trainflow.samples.splits.split_xcom.INLINE_BYTES", 10)
    bucket = samples.path.split("/t/")[0]
    value = split_to_xcom(split, spill_url=f"{bucket}/xcoms", storage_options=samples.storage_options)
    assert "testing-secret" not in str(value)
    assert split_from_xcom(value, samples.storage_options) == split


def test_bucket_that_does_not_exist_is_mistake(options: dict[str, object]) -> None:
    samples = Samples(path="s3://no-such-bucket/{start:%F}", length_seconds=86400, start=START, storage_options=options)
    with pytest.raises(SampleUnreadable, match=r"s3://no-such.*'no-such-bucket' does not exist; create it, or check"):
        next_split(samples, None, None, NOW, None)
