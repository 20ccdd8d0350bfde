"""Names that others gave, and contents that are large or read by parts."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_object_stores import LocalAzure, LocalS3
from tests.support.meddled_s3 import Environ, Meddled, error, meddled_s3, store_of
from trainflow.errors import SampleUnreadable, StoreFailure
from trainflow.observability.store_requests import REQUESTS, totals
from trainflow.storage import driver as storage_driver
from trainflow.storage.drivers import open_driver
from trainflow.storage.obstore import driver as obstore_driver
from trainflow.storage.urls import open_storage, open_store


@pytest.fixture
def meddled() -> Iterator[tuple[Meddled, LocalS3]]:
    with meddled_s3() as server:
        yield server


# -- names and contents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["obstore", "fsspec"])
def test_names_that_others_gave_are_read_as_they_are(driver: str, s3: LocalS3) -> None:
    import boto3

    bucket = s3.make_bucket()
    client = boto3.client("s3", endpoint_url=s3.endpoint, aws_access_key_id="a", aws_secret_access_key="b")
    names = ["a b", "a%20b", "a#b", "ü", "h=2024-01-01 00:00:00/x", "[x]~{y}|^", "a&b;c", "a+b", "'q\"", "a:b", "<x>"]
    for name in names:
        client.put_object(Bucket=bucket, Key=f"t/{name}", Body=name.encode())
    # as a console makes folders
    for mark in ("t/", "t/h=2024-01-01 00:00:00/", "t/empty/", "t/deep/empty/"):
        client.put_object(Bucket=bucket, Key=mark, Body=b"")
    client.put_object(Bucket=bucket, Key="t/_SUCCESS", Body=b"")
    client.put_object(Bucket=bucket, Key="t/nothing", Body=b"")
    storage = open_storage(f"s3://{bucket}/t", {**s3.storage_options, "driver": driver}, None)
    found = storage.listing(f"s3://{bucket}/t", recursive=True) or []
    assert [file.path for file in found if file.size_bytes] == sorted(names)
    if driver == "obstore":  # fsspec's shows the marks
        assert [file.path for file in found if not file.size_bytes] == ["_SUCCESS", "nothing"]
    assert [storage.read(f"s3://{bucket}/t/{name}").decode() for name in names] == names


def test_name_that_obstore_cannot_say_names_the_way_out(s3: LocalS3) -> None:
    import boto3

    bucket = s3.make_bucket()
    client = boto3.client("s3", endpoint_url=s3.endpoint, aws_access_key_id="a", aws_secret_access_key="b")
    client.put_object(Bucket=bucket, Key="t//x", Body=b"1")
    storage = open_storage(f"s3://{bucket}/t", s3.storage_options, None)
    with pytest.raises(SampleUnreadable, match=r"empty path segment.*driver: fsspec"):
        storage.listing(f"s3://{bucket}/t", recursive=True)
    drivers = [open_driver(f"s3://{bucket}/{path}", s3.storage_options)[0] for path in ("t//", "t//x")]
    assert [isinstance(each, obstore_driver.ObstoreDriver) for each in drivers] == [True, False]


@pytest.mark.parametrize("kind", ["s3", "azure"])
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 10 * 1024 + 3])
def test_large_files_travel_in_parts_both_ways(
    kind: str, size: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: LocalS3 | LocalAzure = request.getfixturevalue(kind)
    store = open_store(
        f"{'az' if kind == 'azure' else 's3'}://{server.make_bucket()}/x", storage_options=server.storage_options
    )
    content = random.Random(size).randbytes(size)
    (tmp_path / "from").write_bytes(content)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr(storage_driver, "PART_BYTES", 1024)
    monkeypatch.setattr(obstore_driver, "RANGE_BYTES", 1024)
    REQUESTS.clear()
    store.put_file(tmp_path / "from", "a")
    # and one that begins it, where there is such, and one that ends it
    around = {"s3": 2, "azure": 1}[kind]
    assert totals(REQUESTS.use()).requests == (1 if size <= 1024 else -(-size // 1024) + around)
    (tmp_path / "to").write_bytes(b"what was there" * 1000)
    store.get_file("a", tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == content
    assert b"".join(store.chunks("a")) == content
    with store.open("a") as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content).digest()


def test_each_body_that_is_sent_to_s3_has_its_digest_with_it(
    meddled: tuple[Meddled, LocalS3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    monkeypatch.setattr(storage_driver, "PART_BYTES", 5 << 20)
    store = store_of(s3)
    found: list[tuple[int, bool]] = []

    def compare(environ: Environ) -> None:
        if environ["REQUEST_METHOD"] == "PUT":
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            said = environ["HTTP_X_AMZ_CONTENT_SHA256"]
            found.append((len(body), said == hashlib.sha256(body).hexdigest()))

    server.meddle = compare  # type: ignore[assignment]
    (tmp_path / "from").write_bytes(random.Random(1).randbytes((11 << 20) + 1))
    store.put_file(tmp_path / "from", "in-parts")
    store.create_exclusive("entry", b"12")
    store.replace("mark", b"123")
    assert sorted(found) == [(2, True), (3, True), ((1 << 20) + 1, True), (5 << 20, True), (5 << 20, True)]


def test_upload_that_the_server_does_not_know_any_more_begins_anew(
    meddled: tuple[Meddled, LocalS3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given up there, or was done and the answer was lost."""
    server, s3 = meddled
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.setattr(storage_driver, "PART_BYTES", 1024)
    store, unknown = store_of(s3), [True]

    def forgets(environ: Environ) -> tuple[int, bytes] | None:
        ends_upload = environ["REQUEST_METHOD"] == "POST" and "uploadId" in environ["QUERY_STRING"]
        return (404, error("NoSuchUpload")) if ends_upload and unknown and unknown.pop() else None

    server.meddle = forgets
    (tmp_path / "from").write_bytes(b"12345" * 1000)
    store.put_file(tmp_path / "from", "a")
    assert not unknown
    assert store.read("a") == b"12345" * 1000


def test_file_that_is_replaced_while_it_is_fetched_is_not_a_mixture(
    meddled: tuple[Meddled, LocalS3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, s3 = meddled
    monkeypatch.setattr(obstore_driver, "RANGE_BYTES", 1024)
    store = store_of(s3)
    store.replace("a", b"1" * 5000)
    replaced = [True]

    def replace(environ: Environ) -> None:
        if environ.get("HTTP_RANGE", "").startswith("bytes=2048") and replaced:
            replaced.pop()
            store.replace("a", b"2" * 5000)

    server.meddle = replace  # type: ignore[assignment]
    with pytest.raises(StoreFailure, match="412"):
        store.get_file("a", tmp_path / "to")


def test_parquet_is_read_by_ranges_and_few_requests(meddled: tuple[Meddled, LocalS3]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trainflow.samples.files.parquet_file import opened

    server, s3 = meddled
    sink, chance = io.BytesIO(), random.Random(1)
    columns = {name: [chance.random() for _ in range(100_000)] for name in "abcdefgh"}
    pq.write_table(pa.table(columns), sink, row_group_size=50_000)
    size = len(sink.getvalue())
    place = f"s3://{s3.make_bucket()}/a.parquet"
    storage = open_storage(place, s3.storage_options, None)
    storage.replace(place, sink.getvalue())
    ranges: list[str] = []
    server.meddle = lambda environ: ranges.append(environ.get("HTTP_RANGE", ""))
    with opened(storage, place) as file:
        assert file.parquet.metadata.num_rows == 100_000
        assert len(ranges) == 1  # its end, with the footer
        one = file.parquet.read_row_group(1, columns=["c"])
    assert one.column("c").to_pylist() == columns["c"][50_000:]
    assert len(ranges) <= 3
    spans = [each.removeprefix("bytes=").split("-") for each in ranges[1:]]
    assert sum(int(end) - int(start) for start, end in spans) < size / 4
    ranges.clear()
    with opened(storage, place) as file:
        assert file.parquet.read().num_rows == 100_000
    assert len(ranges) < 20
