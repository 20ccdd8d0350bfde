"""What a process counts of its requests is what the server was asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_object_stores import LocalS3, RequestLog, logged_s3
from trainflow.errors import StoreFailure
from trainflow.observability.store_requests import REQUESTS, StoreUse, totals
from trainflow.storage.obstore import driver
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store


@pytest.fixture(scope="module")
def logged() -> Iterator[tuple[LocalS3, RequestLog]]:
    with logged_s3() as server:
        yield server


@pytest.fixture(params=["obstore", "fsspec"])
def store(logged: tuple[LocalS3, RequestLog], request: pytest.FixtureRequest) -> Store:
    s3, log = logged
    options = {**s3.storage_options, "driver": request.param}
    made = open_store(f"s3://{s3.make_bucket()}/some", storage_options=options)
    log.asked.clear()
    REQUESTS.clear()
    return made


def used() -> dict[str, StoreUse]:
    return {each.op: each for each in REQUESTS.take()}


def test_requests_and_bytes_are_those_of_the_server(store: Store, logged: tuple[LocalS3, RequestLog]) -> None:
    store.create_exclusive("a/1", b"12345")
    with pytest.raises(FileExistsError):
        store.create_exclusive("a/1", b"123")
    store.replace("a/2", b"67")
    assert store.read("a/1") == b"12345"
    assert store.read_many(["a/1", "a/2", "a/3"]) == [b"12345", b"67", None]
    assert len(store.files("a")) == 2
    with pytest.raises(FileNotFoundError):
        store.read("a/3")
    found = used()
    assert sum(each.requests for each in found.values()) == len(logged[1].asked)
    assert {op: (each.requests, each.bytes_sent, each.bytes_received) for op, each in found.items()} == {
        "create": (2, 8, 0),
        "write": (1, 2, 0),
        "read": (5, 0, 12),
        "list": (1, 0, 0),
    }
    assert all(not each.errors for each in found.values())
    assert {each.store for each in found.values()} == {f"{logged[0].endpoint}/{store.url.split('/')[2]}"}


def test_large_file_is_several_requests(
    logged: tuple[LocalS3, RequestLog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, log = logged
    store = open_store(f"s3://{s3.make_bucket()}/some", storage_options=s3.storage_options)
    monkeypatch.setattr("trainflow.storage.driver.PART_BYTES", 5 << 20)
    monkeypatch.setattr(driver, "RANGE_BYTES", 5 << 20)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate((11 << 20) + 1)
    log.asked.clear()
    REQUESTS.clear()
    store.put_file(large, "large")
    store.get_file("large", tmp_path / "again")
    assert totals(REQUESTS.use()).requests == len(log.asked) == 5 + 3
    found = used()
    assert (found["upload"].bytes_sent, found["read"].bytes_received) == (large.stat().st_size,) * 2


def test_first_files_after_a_name_are_one_request(
    logged: tuple[LocalS3, RequestLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, log = logged
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    monkeypatch.setattr(driver, "_PAGE_NAMES", 3)
    store = open_store(f"s3://{s3.make_bucket()}/some", storage_options=s3.storage_options)
    for number in range(7):
        store.create_exclusive(f"many/{number:04d}", b"")
    found = {}
    for after in ("0001", "0004", "0006"):
        log.asked.clear()
        files, more = store.first_files_after("many", after)
        found[after] = [file.path[-4:] for file in files], more
        assert len(log.asked) == 1
    assert found == {"0001": (["0002", "0003", "0004"], True), "0004": (["0005", "0006"], False), "0006": ([], False)}


def test_long_listing_is_several_requests(logged: tuple[LocalS3, RequestLog], monkeypatch: pytest.MonkeyPatch) -> None:
    s3, log = logged
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    store = open_store(f"s3://{s3.make_bucket()}/some", storage_options=s3.storage_options)
    opened = store._driver  # type: ignore[attr-defined]
    opened._buckets = opened._buckets._replace(page_names=3)
    paths = [f"many/{number:04d}" for number in range(7)]
    for path in paths:
        store.create_exclusive(path, b"")
    log.asked.clear()
    REQUESTS.clear()
    assert len(store.files("many")) == 7
    store.delete_many(paths)
    assert totals(REQUESTS.use()).requests == len(log.asked) == 3 + 1


def test_refusal_is_counted_by_its_reason(logged: tuple[LocalS3, RequestLog]) -> None:
    s3, _ = logged
    store = open_store("s3://no-such-bucket/some", storage_options=s3.storage_options)
    REQUESTS.clear()
    with pytest.raises((StoreFailure, FileNotFoundError)):
        store.read("a")
    assert used()["read"].errors == {"bucket_missing": 1}
