"""A ledger of 10,000 entries in an object store, whose listings show a thousand names: what a task asks of it."""

from __future__ import annotations

import msgspec
import pytest

from tests.simulation.memory_store import MemoryStore
from tests.unit.checkpoints.ledger.lost_entries import skip_of
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger import snapshots
from trainflow.checkpoints.ledger import state as chain_state
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.entry_files import encode_entry
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import raise_if_short
from trainflow.checkpoints.ledger.missing_entries import write_newest_entry
from trainflow.errors import LedgerCorrupt
from trainflow.identifiers import digest
from trainflow.storage.store import SEAL, FilePage, StoreFile
from trainflow.testing.chains import append_many, attempt_id

CHAIN = ChainKey("long")
LAST = 10_000
PAGE = 1000
#: entries since the newest snapshot
RECENT = 16


class Pages(MemoryStore):
    """A store in the network. `requests`: that its listings took; it shows `page` names in one."""

    def __init__(self, contents: dict[str, bytes], *, page: int = PAGE, lists_after: bool = True) -> None:
        super().__init__(remote=True)
        self.lists_after = lists_after
        self.contents = dict(contents)
        self.page = page
        self.requests = 0
        self.read_paths: list[str] = []

    def read(self, path: str) -> bytes:
        self.read_paths.append(path)
        return super().read(path)

    def files_after(self, folder: str, name: str) -> list[StoreFile]:
        found = super().files_after(folder, name)
        self.requests += max(1, -(-len(found) // self.page))
        return found

    def first_files_after(self, folder: str, name: str) -> FilePage:
        self.requests += 1
        found = super().files_after(folder, name)
        return FilePage(found[: self.page], more=len(found) >= self.page)

    def names(self, folder: str) -> list[str] | None:
        found = super().names(folder)
        self.requests += max(1, -(-len(found or ()) // self.page))
        return found

    def files_if_few(self, folder: str) -> list[StoreFile] | None:
        self.requests += 1
        found = self.files(folder)
        return found if len(found) < self.page else None


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """A chain of so many entries. The oldest are none: only a look at their names tells that they are there."""
    store = MemoryStore()
    ledger = Ledger(store, CHAIN)
    append_many(ledger, 1)
    [first] = ledger.entries()
    assert isinstance(first, Checkpoint)
    number = LAST - RECENT
    data = encode_entry(msgspec.structs.replace(first, sequence=number, previous="sha256:0"))
    state = msgspec.structs.replace(ledger.state(), sequence=number, digest=digest(data))
    store.contents = {CHAIN.entry(each): b"" for each in range(1, number)} | {CHAIN.entry(number): data}
    assert snapshots.save_snapshot(store, CHAIN, state, {})
    write_newest_entry(store, CHAIN, number, state.digest)
    # a writer that has seen them all
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "SNAPSHOT_INTERVAL", LAST)
        append_many(Ledger(store, CHAIN), RECENT)
    return store.contents


def task_of(store: MemoryStore) -> Ledger:
    return Ledger(store, CHAIN, of_one_task=True)


def test_task_looks_at_a_long_ledger_in_a_few_requests(contents: dict[str, bytes]) -> None:
    store = Pages(contents)
    task = task_of(store)

    assert task.state().sequence == LAST
    # all files of the chain, the first names of the ledger, what comes after it, the entries since the snapshot
    assert store.requests == 4
    task.append(skip_of)
    assert store.requests == 4
    # what was found on the way is not asked again: that there are too many files for one request
    task.append(skip_of)
    assert store.requests == 4 + 3
    assert store.contents.keys() >= {CHAIN.entry(LAST + 1), CHAIN.entry(LAST + 2)}
    old = [CHAIN.entry(number) for number in range(1, LAST - RECENT)]
    assert not {*store.read_paths}.intersection(old)


def test_short_ledger_is_looked_at_in_one_request(contents: dict[str, bytes]) -> None:
    store = Pages(contents, page=2 * LAST)
    task_of(store).append(skip_of)
    assert store.requests == 1


@pytest.mark.parametrize("lost", [2, LAST - RECENT, LAST - RECENT + 1, LAST - 3, LAST])
def test_task_refuses_a_long_ledger_without_an_entry_that_it_looks_at(contents: dict[str, bytes], lost: int) -> None:
    store = Pages(contents)
    del store.contents[CHAIN.entry(lost)]
    write_newest_entry(store, CHAIN, LAST, digest(contents[CHAIN.entry(LAST)]))
    with pytest.raises(LedgerCorrupt, match="missing"):
        task_of(store).append(skip_of)


@pytest.mark.parametrize("lost", [1001, LAST - RECENT - 1])
def test_entry_that_no_task_looks_at_is_missed_before_a_snapshot_vouches_for_it(
    contents: dict[str, bytes], lost: int
) -> None:
    store = Pages(contents)
    del store.contents[CHAIN.entry(lost)]
    # a person's command looks at all of it
    with pytest.raises(LedgerCorrupt, match=f"entry {lost} is missing"):
        Ledger(store, CHAIN).append(skip_of)
    written = 0
    with pytest.raises(LedgerCorrupt, match=f"entry {lost} is missing"):
        while True:
            task_of(store).append(skip_of)
            written += 1
    assert written == snapshots.SNAPSHOT_INTERVAL - RECENT - 1
    assert len([path for path in store.contents if path.startswith(CHAIN.snapshots)]) == 1


def test_long_ledger_whose_newest_snapshot_is_of_no_use_is_looked_at_whole(contents: dict[str, bytes]) -> None:
    store = Pages(contents)
    store.contents[CHAIN.snapshot(LAST - 1)] = b"of another format"
    task = task_of(store)
    assert task.state().sequence == LAST
    assert task.listing().unseen == range(0)
    assert task.listing().entries.keys() == {*range(1, LAST + 1)}
    task.append(skip_of)


def test_entries_of_a_long_ledger_are_read_as_its_whole_listing_shows_them(contents: dict[str, bytes]) -> None:
    store = Pages(contents)
    task = task_of(store)
    assert [entry.sequence for entry in task.since(LAST - 3)] == [LAST - 2, LAST - 1, LAST]
    assert task.listing().unseen == range(PAGE + 1, LAST - RECENT)
    with pytest.raises(LedgerCorrupt):  # the first ones are none
        list(task.entries())
    assert task.listing().unseen == range(0)


@pytest.fixture(scope="module")
def kept_all() -> dict[str, bytes]:
    """A chain that keeps all of its checkpoints, of which most are in pages; each with a file and a seal."""
    store = MemoryStore()
    ledger = Ledger(store, CHAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain_state, "PAGE", 16)
        append_many(ledger, 64)
    for each in ledger.kept():
        store.contents |= {f"{CHAIN.attempt(each.id)}/model.bin": b"1", f"{CHAIN.attempt(each.id)}{SEAL}": b"1"}
    assert ledger.state().pages
    return store.contents


@pytest.mark.parametrize("lists_after", [True, False])
def test_task_that_begins_looks_at_artifacts_since_the_oldest_recent_checkpoint(
    kept_all: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, lists_after: bool
) -> None:
    monkeypatch.setattr(chain_state, "PAGE", 16)
    store = Pages(kept_all, page=40, lists_after=lists_after)
    task = task_of(store)
    recent = len(task.state().recent)
    before = store.requests
    raise_if_short(task)
    asked = store.requests - before
    # 128 names; or those of the recent ones alone
    assert asked == (-(-recent * 2 // 40) if lists_after else 4)

    lost = f"{CHAIN.attempt(attempt_id(1000))}"
    store.contents |= {f"{lost}/model.bin": b"1", f"{lost}{SEAL}": b"1"}
    with pytest.raises(LedgerCorrupt, match="in no entry"):
        raise_if_short(task_of(store))
