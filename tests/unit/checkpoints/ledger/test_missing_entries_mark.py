"""The mark of the newest entry: what it names, what it costs, and what becomes of a torn one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.unit.checkpoints.ledger.lost_entries import BESIDE, CHAIN, LAST, Make, appends, skip_of
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_entries import NewestEntry, entries_named, read_newest_entry
from trainflow.errors import LedgerCorrupt
from trainflow.storage.local import LocalStore
from trainflow.storage.store import StoreFile
from trainflow.testing.chains import ChainWriter
from trainflow.testing.faulty_store import FaultyStore


@pytest.mark.parametrize("content", [b"", b"{", b'{"sequence":"x"}'])
def test_mark_torn_is_none_and_renewed_by_next_append(make: Make, content: bytes) -> None:
    store = make([])
    store.contents[CHAIN.mark] = content
    assert read_newest_entry(store, CHAIN) == NewestEntry()
    appends(store)
    assert read_newest_entry(store, CHAIN).sequence == LAST + 1


def test_reading_with_mark_asks_for_no_entry_in_vain_but_the_next_on_a_disk(make: Make) -> None:
    counted = FaultyStore(make([]))
    assert Ledger(counted, CHAIN).state().sequence == LAST
    absent = [path for path in counted.read_paths if path not in make([]).contents]
    assert absent == ([] if counted.remote else [CHAIN.entry(LAST + 1)])


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
    # and once to begin with, where that is how it is read
    assert (listed.count(CHAIN.ledger), store.calls.count("files_after")) == ((0, 13) if store.remote else (12, 0))


def test_ledger_of_one_task_lists_a_remote_chain_once_an_append(make: Make) -> None:
    store = FaultyStore(make([]))
    task = Ledger(store, CHAIN, of_one_task=True)
    for number in range(1, 4):
        for _ in range(3):
            task.state()
        task.raise_unless_whole()
        task.append(skip_of)
        looks = sum(store.calls.count(name) for name in ("files_if_few", "first_files_after", "files_after"))
        assert looks == (number if store.remote else 0)


def test_ledger_of_one_task_whose_chain_has_many_files_asks_once_for_all_of_them(make: Make) -> None:
    class Many(FaultyStore):
        def files_if_few(self, folder: str) -> list[StoreFile] | None:
            super().files_if_few(folder)
            return None

    store = Many(make([]))
    task = Ledger(store, CHAIN, of_one_task=True)
    for _ in range(3):
        task.append(skip_of)
    expected = (1, 3) if store.remote else (0, 0)
    looks = [store.calls.count(name) for name in ("files_if_few", "first_files_after")]
    assert (*looks,) == expected
    assert task.artifact_files() is None
    assert task.has_few_files == (not store.remote)


@pytest.mark.parametrize("lost", [3, LAST, LAST + 1])
def test_ledger_of_one_task_that_loses_an_entry_appends_no_second_one(make: Make, lost: int) -> None:
    store = make([])
    task = Ledger(store, CHAIN, of_one_task=True)
    task.append(skip_of)
    store.delete(CHAIN.entry(lost))
    with pytest.raises(LedgerCorrupt, match="missing"):
        task.append(skip_of)


def test_ledger_of_one_task_finds_what_another_writer_added_first(make: Make) -> None:
    store = make([])
    task = Ledger(store, CHAIN, of_one_task=True)
    task.state()
    Ledger(store, CHAIN).append(lambda state: msgspec.structs.replace(skip_of(state), reason="another writer"))
    assert task.append(skip_of).sequence == LAST + 2
    assert task.state().sequence == LAST + 2


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


def test_mark_of_two_that_write_at_once_names_the_later_entry(tmp_path: Path) -> None:
    """The slower one leaves word of its entry after the faster one of the entry behind that."""
    store = LocalStore(tmp_path / "store")
    replace = store.replace

    def other_is_faster(path: str, data: bytes) -> None:
        if path == CHAIN.mark:
            del store.replace
            Ledger(store, CHAIN).append(skip_of)
        replace(path, data)

    store.replace = other_is_faster  # type: ignore[method-assign]
    Ledger(store, CHAIN).append(skip_of)
    assert read_newest_entry(store, CHAIN).sequence == 2
    (tmp_path / "store" / CHAIN.entry(2)).unlink()
    with pytest.raises(LedgerCorrupt, match=r"entry 2 is missing"):
        Ledger(store, CHAIN).append(skip_of)
