"""Fixtures that several modules of this folder take."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest

from tests.simulation.memory_store import MemoryStore
from tests.unit.checkpoints.ledger.book import Book
from tests.unit.checkpoints.ledger.lost_entries import CHAIN, LAST, Make
from trainflow.checkpoints.ledger import snapshots
from trainflow.checkpoints.ledger import state as chain_state
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.testing.chains import ChainWriter, day


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """A chain of 30 entries: checkpoints, promotions (5, 15, 25) and a prune; the newest entry is a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "SNAPSHOT_INTERVAL", 8)
        patch.setattr(chain_state, "PAGE", 4)
        writer = ChainWriter(MemoryStore(), tmp_path_factory.mktemp("scratch"), CHAIN)
        while (number := writer.ledger.state().sequence + 1) <= LAST:
            if number % 10 == 5:
                promote(writer.ledger, writer.ledger.checkpoint().id, "champion", by=Author(), now=day(number))
            elif number == 20:
                (*_, third, _, _) = writer.ledger.kept()[:5]
                prune(writer.ledger, [KeepLatest(len(writer.ledger.kept()) - 1)], by=Author(), now=day(number))
                assert third.sequence == 3
            else:
                writer.commit()
        assert isinstance(writer.store, MemoryStore)
        yield writer.store.contents


@pytest.fixture(params=[False, True], ids=["disk", "remote"])
def make(contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Make:
    """The chain without some entries, and without what lies in some folders beside them; read as on a disk, and as in a
    store where each look is a request."""
    monkeypatch.setattr(snapshots, "SNAPSHOT_INTERVAL", 8)
    monkeypatch.setattr(chain_state, "PAGE", 4)

    def without(lost: Collection[int], beside: Collection[str] = ()) -> MemoryStore:
        store, gone = MemoryStore(remote=request.param), {CHAIN.entry(number) for number in lost}
        store.contents = {
            path: data
            for path, data in contents.items()
            if path not in gone and not any(path == each or path.startswith(f"{each}/") for each in beside)
        }
        return store

    return without


@pytest.fixture
def book() -> Book:
    """a [0, 2) → b [2, 5) with day 3 a hole → c [5, 6)"""
    book = Book()
    book.add(book.checkpoint("a", 0, 2, metrics={"auc": 0.5}))
    book.add(book.checkpoint("b", 2, 3, "a", skip=[3], evaluation={"auc": 0.4}))
    book.add(book.checkpoint("c", 5, 1, "b", evaluation={"auc": 0.6}))
    return book
