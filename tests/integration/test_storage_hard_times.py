"""A store that is far away, asks for fewer requests, loses replies, or knows no conditions."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.support.local_object_stores import LocalGCS, LocalS3
from tests.support.store_proxy import StoreProxy, store_proxy
from trainflow.errors import StoreNotExclusive
from trainflow.storage.exclusive_creation import created, probe
from trainflow.storage.object_store import ObjectStore
from trainflow.storage.retries import tell_waits
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.store_contract import StoreContract

LATENCY_SECONDS = 0.02


@pytest.fixture
def proxy(s3: LocalS3) -> Iterator[StoreProxy]:
    with store_proxy(s3.endpoint) as found:
        yield found


@pytest.fixture
def store(s3: LocalS3, proxy: StoreProxy) -> Store:
    url, options = f"s3://{s3.make_bucket()}/some/checkpoints", LocalS3(proxy.endpoint).storage_options
    found = open_store(url, storage_options=options)
    assert isinstance(found, ObjectStore)
    found._sleep = lambda seconds: None
    return found


class TestS3StoreThatIsFarAndAskedTooMuch(StoreContract):
    """Each answer takes 20 ms, each third request is refused with 503 SlowDown."""

    @pytest.fixture(autouse=True)
    def _hard_times(self, proxy: StoreProxy) -> None:
        proxy.latency_seconds = LATENCY_SECONDS
        proxy.throttles = lambda number: number % 3 == 0


@pytest.mark.parametrize("dropped", [frozenset(), frozenset({"if-none-match"})], ids=["conditions", "without"])
def test_store_that_knows_no_conditions_is_refused(store: Store, proxy: StoreProxy, dropped: frozenset[str]) -> None:
    proxy.drops = dropped
    if not dropped:
        probe(store)
        return
    with pytest.raises(StoreNotExclusive, match=r"cannot hold checkpoints: .* it created the same file twice"):
        probe(store)
    assert store.files("") == []


def test_creation_whose_reply_is_lost_is_known_by_its_content(store: Store, proxy: StoreProxy) -> None:
    lost: list[str] = []

    def loses(method: str, path: str) -> bool:
        if method == "PUT" and len(lost) < 2:
            lost.append(path)
            return True
        return False

    proxy.loses = loses
    assert created(store, "ledger/1.json", b"mine")
    assert not created(store, "ledger/1.json", b"of another")
    assert store.read("ledger/1.json") == b"mine"
    assert len(lost) == 2


def test_store_that_asks_for_fewer_requests_is_waited_for_and_that_is_said(
    store: Store, proxy: StoreProxy, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str | None] = []
    tell_waits(told.append)
    proxy.throttles = lambda number: number <= 2
    try:
        with caplog.at_level(logging.WARNING, "trainflow.storage"):
            store.create_exclusive("a", b"")
    finally:
        tell_waits(None)

    expected = [
        f"{store.url} asks for fewer requests: asked again in 1 s (1 of 5 times)",
        f"{store.url} asks for fewer requests: asked again in 2 s (2 of 5 times)",
    ]
    assert told == [*expected, None]
    assert [record.getMessage() for record in caplog.records] == expected


@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_emulator_of_google_that_knows_no_generations_is_refused(gcs: LocalGCS) -> None:
    """As gcp-storage-emulator does."""
    with store_proxy(gcs.endpoint) as proxy:
        options = LocalGCS(proxy.endpoint).storage_options
        store = open_store(f"gs://{gcs.make_bucket()}/x", storage_options=options)
        probe(store)
        proxy.drops = frozenset({"ifgenerationmatch"})
        with pytest.raises(StoreNotExclusive, match="it created the same file twice"):
            probe(store)
        assert store.files("") == []
