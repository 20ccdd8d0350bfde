"""The mark of the newest entry: what it names, what it costs, and what becomes of a torn one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.unit.checkpoints.ledger.lost_entries import BESIDE, CHAIN, LAST, Make, appends, skip_of
from trainflow.checkpoints.ledger.completeness import NewestEntry, entries_named, read_newest_entry
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter
from trainflow.testing.faulty_store import FaultyStore


@pytest.mark.parametrize("content", [b"", b"{", b'{"sequence":"x"}'])
def test_mark_torn_is_none_and_renewed_by_next_append(make: Make, content: bytes) -> None:
    store = make([])
    store.contents[CHAIN.mark] = content
    assert read_newest_entry(store, CHAIN) == NewestEntry()
    appends(store)
    assert read_newest_entry(store, CHAIN).sequence == LAST + 1


def test_reading_with_mark_asks_for_one_missing_entry(make: Make) -> None:
    counted = FaultyStore(make([]))
    assert Ledger(counted, CHAIN).state().sequence == LAST
    absent = [path for path in counted.read_paths if path not in make([]).contents]
    assert absent == [CHAIN.entry(LAST + 1)]


@pytest.mark.parametrize("entries", [1, LAST])
def test_append_lists_ledger_once(make: Make, entries: int) -> None:
    store = FaultyStore(make(range(entries + 1, LAST + 1), BESIDE))
    listed: list[str] = []
    names = store.names

    def note(folder: str) -> list[str]:
        listed.append(folder)
        return names(folder)

    store.names = note  # type: ignore[method-assign]
    writer = Ledger(store, CHAIN)
    for _ in range(12):
        writer.append(skip_of)
    assert listed.count(CHAIN.ledger) == 12


def test_entries_named_shows_stretches() -> None:
    assert entries_named([3]) == "entry 3"
    assert entries_named([5, 3, 4, 7]) == "entries 3 to 5, 7"
    assert entries_named(range(1, 40, 2)).endswith("15 and 12 more stretches")


def test_mark_names_newest_entry_and_its_digest(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path)
    made = writer.commit_many(2)
    assert isinstance(made[-1], Checkpoint)
    state = writer.ledger.state()
    mark = msgspec.json.decode(writer.store.read(writer.chain.mark))
    assert mark == {"sequence": 2, "digest": state.digest}
