"""A long ledger that has lost entries: found although most of it is in pages."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.simulation.memory_store import MemoryStore
from tests.unit.checkpoints.ledger.lost_entries import skip_of
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger import missing_entries
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.errors import LedgerCorrupt
from trainflow.storage.store import StoreFile
from trainflow.testing.chains import append_many

LONG = ChainKey("long")


LONG_LAST = 1_100


class Without(MemoryStore):
    """A store that has lost some files of another one, which it shares."""

    def __init__(self, inner: MemoryStore, lost: Collection[str]) -> None:
        super().__init__()
        self.contents = inner.contents
        self._names = {folder: inner.names(folder) for folder in (LONG.ledger, LONG.snapshots, LONG.pages)}
        self.lost = frozenset(lost)

    def read(self, path: str) -> bytes:
        if path in self.lost:
            raise FileNotFoundError(path)
        return super().read(path)

    def exists(self, path: str) -> bool:
        return path not in self.lost and super().exists(path)

    def names(self, folder: str) -> list[str]:
        return [name for name in self._names[folder] if f"{folder}/{name}" not in self.lost]

    def files(self, folder: str) -> list[StoreFile]:
        return [StoreFile(f"{folder}/{name}", 1) for name in sorted(self.names(folder))]

    def create_exclusive(self, path: str, data: bytes) -> None:
        pytest.fail(f"{path} was created")


@pytest.fixture(scope="module")
def long() -> Without:
    """A chain of more entries than an object store lists in one answer."""
    store = MemoryStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(missing_entries, "raise_unless_whole", lambda *_: None)
        append_many(Ledger(store, LONG), LONG_LAST)
    return Without(store, ())


def assert_long_refused(store: Without, lost: Collection[int]) -> None:
    store.lost = frozenset(LONG.entry(number) for number in lost)
    with pytest.raises(LedgerCorrupt, match=r"missing|short"):
        Ledger(store, LONG).append(skip_of)


@pytest.mark.exhaustive
def test_long_ledger_without_any_one_entry_is_refused(long: Without) -> None:
    for lost in range(1, LONG_LAST + 1):
        assert_long_refused(long, [lost])


@pytest.mark.exhaustive
def test_long_ledger_without_two_entries_is_refused(long: Without) -> None:
    """Each entry with its neighbour, and with one drawn far from it."""
    for first in range(1, LONG_LAST, 3):
        assert_long_refused(long, [first, first + 1])
        assert_long_refused(long, [first, first * 7919 % LONG_LAST + 1])


def test_long_ledger_without_its_tail_is_refused(long: Without) -> None:
    for first in range(1, LONG_LAST + 1, 3):
        assert_long_refused(long, range(first, LONG_LAST + 1))
