from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger import missing_entries, snapshots
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, Prune, Rewind
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import PAGE
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.errors import CheckpointError, CheckpointNotFound, LedgerCorrupt, StoreFailure
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.testing.chains import ChainWriter, append_many, day, resealed
from trainflow.testing.faulty_store import FaultyStore

LONG = ChainKey("long")


def fresh(writer: ChainWriter, store: Store | None = None) -> Ledger:
    return Ledger(store or writer.store, writer.chain)


def entry_file(writer: ChainWriter, sequence: int) -> Path:
    path = writer.store.local_path(writer.chain.entry(sequence))
    assert path is not None
    return path


def test_ledger_absent_is_empty_and_reading_makes_nothing(writer: ChainWriter, tmp_path: Path) -> None:
    assert writer.ledger.state().head is None
    assert list(writer.ledger.entries()) == []
    assert not (tmp_path / "store").exists()
    with pytest.raises(CheckpointNotFound, match="no checkpoint yet"):
        writer.ledger.checkpoint()


def test_ledger_reads_on_where_it_stopped(writer: ChainWriter) -> None:
    reader = fresh(writer)
    for count in range(1, 41):
        head = writer.commit()
        if count % 7 == 0:
            assert reader.state().head == head
    assert reader.state() == fresh(writer).state() == writer.ledger.state()


def test_ledger_kept_checkpoint_is_read_in_full(writer: ChainWriter) -> None:
    made = writer.commit_many(5)

    assert [fresh(writer).checkpoint(each.id) for each in made] == made
    assert fresh(writer).checkpoint() == made[-1]
    assert list(fresh(writer).entries()) == made
    with pytest.raises(CheckpointNotFound, match="has no checkpoint missing"):
        fresh(writer).checkpoint("missing")


def test_snapshots_keep_reading_head_cheap(writer: ChainWriter) -> None:
    writer.commit_many(2 * snapshots.SNAPSHOT_INTERVAL + 5)
    counted = FaultyStore(writer.store)

    state = fresh(writer, counted).state()

    assert state.sequence == 2 * snapshots.SNAPSHOT_INTERVAL + 5
    assert len(counted.calls) <= 5
    assert len(writer.store.files(writer.chain.snapshots)) == 2


@pytest.mark.parametrize("damage", ["delete", "tear", "other bytes", "other format"])
def test_snapshot_is_never_truth(writer: ChainWriter, damage: str) -> None:
    writer.commit_many(snapshots.SNAPSHOT_INTERVAL + 3)
    expected = writer.ledger.state()
    for file in writer.store.files(writer.chain.snapshots):
        data = writer.store.read(file.path)
        writer.store.delete(file.path)
        if damage == "tear":
            writer.store.replace(file.path, data[: len(data) // 2])
        if damage == "other bytes":
            writer.store.replace(file.path, data.replace(b"run-1", b"run-9"))
        if damage == "other format":
            writer.store.replace(file.path, data.replace(b'"format":3', b'"format":0'))

    assert fresh(writer).state() == expected


def test_store_that_refuses_snapshots_still_commits(tmp_path: Path) -> None:
    class NoSnapshots(LocalStore):
        def replace(self, path: str, data: bytes) -> None:
            raise StoreFailure("no", location=path)

    writer = ChainWriter(NoSnapshots(tmp_path), tmp_path)

    writer.commit_many(snapshots.SNAPSHOT_INTERVAL + 1)

    assert fresh(writer).state().sequence == snapshots.SNAPSHOT_INTERVAL + 1
    assert writer.store.files(writer.chain.snapshots) == []


def test_edited_entry_breaks_digest_chain(writer: ChainWriter) -> None:
    writer.commit_many(3)
    file = entry_file(writer, 2)
    file.write_bytes(resealed(json.loads(file.read_bytes()) | {"at": "2013-01-01T00:00:00Z"}))

    with pytest.raises(LedgerCorrupt, match="digest of the entry before it") as caught:
        fresh(writer).state()
    assert caught.value.location.endswith("ledger/0000000003.json")
    with pytest.raises(LedgerCorrupt, match="was edited"):
        list(fresh(writer).entries())


def test_newest_entry_edited_in_passing_stops_everything_that_reads(writer: ChainWriter) -> None:
    writer.commit_many(3)
    file = entry_file(writer, 3)
    file.write_bytes(file.read_bytes().replace(b'"rows":10', b'"rows":11'))

    with pytest.raises(LedgerCorrupt, match="it is not what was written"):
        fresh(writer).state()


@pytest.fixture(scope="module")
def long_store() -> MemoryStore:
    """3,000 entries."""
    store = MemoryStore()
    with pytest.MonkeyPatch.context() as patch:
        # that nothing is lost is not asked 3,000 times
        patch.setattr(missing_entries, "raise_unless_whole", lambda *_: None)
        append_many(Ledger(store, LONG), 3_000)
    return store


def test_head_of_long_ledger_costs_few_reads(long_store: MemoryStore) -> None:
    counted = FaultyStore(long_store)
    ledger = Ledger(counted, LONG)

    assert ledger.state().head_sequence == 3_000
    assert len(counted.calls) <= 5
    assert len(counted.read_paths) <= 2 + 16 + 64
    size = max(len(data) for path, data in long_store.contents.items() if path.startswith(LONG.snapshots))
    assert size < 400 * 2 * PAGE

    counted.calls.clear()
    ledger.state()
    assert counted.calls == ["read_many"]


def test_ledger_long_is_read_in_pages(long_store: MemoryStore) -> None:
    counted = FaultyStore(long_store)
    ledger = Ledger(counted, LONG)

    line = ledger.line()

    assert [each.sequence for each in line] == list(range(1, 3_001))
    assert len(counted.calls) <= 7
    assert ledger.checkpoint(line[0].id).sequence == 1
    assert ledger.find("missing") is None


@pytest.mark.parametrize("damage", ["gone", "torn", "other"])
def test_page_is_never_truth(long_store: MemoryStore, damage: str) -> None:
    expected = Ledger(long_store, LONG).kept()
    store = MemoryStore()
    store.contents = dict(long_store.contents)
    pages = [path for path in store.contents if path.startswith(LONG.pages)]
    assert len(pages) >= 9
    for path in pages:
        data = store.contents.pop(path)
        if damage != "gone":
            store.contents[path] = data[:-5] if damage == "torn" else data.replace(b"run-1", b"run-2")

    assert Ledger(store, LONG).kept() == expected

    target = expected[5].id
    ledger = Ledger(store, LONG)
    entry = rewind(ledger, target, expected_head=expected[-1].id, by=Author(), now=day(0))
    assert (entry.sequence, Ledger(store, LONG).checkpoint().id) == (3_001, target)
    append_many(ledger, snapshots.SNAPSHOT_INTERVAL)
    assert len(Ledger(store, LONG).line()) == 6 + snapshots.SNAPSHOT_INTERVAL


def test_pages_that_newer_ones_replace_are_dropped(long_store: MemoryStore) -> None:
    store = MemoryStore()
    store.contents = dict(long_store.contents)
    ledger = Ledger(store, LONG)
    line = ledger.line()
    rewind(ledger, line[700].id, expected_head=line[-1].id, by=Author(), now=day(0))
    append_many(ledger, snapshots.SNAPSHOT_INTERVAL)

    state = Ledger(store, LONG).state()
    pages = {path.rpartition("/")[2] for path in store.contents if path.startswith(LONG.pages)}

    assert pages == {f"{page.name}.json" for page in state.pages}


def test_entry_edited_below_snapshot_is_found_when_it_is_read(writer: ChainWriter) -> None:
    made = writer.commit_many(snapshots.SNAPSHOT_INTERVAL + 1)
    file = entry_file(writer, 2)
    file.write_bytes(file.read_bytes().replace(b'"rows":10', b'"rows":11'))

    assert fresh(writer).state().sequence == snapshots.SNAPSHOT_INTERVAL + 1
    with pytest.raises(LedgerCorrupt, match="was edited"):
        fresh(writer).checkpoint(made[1].id)


def test_torn_entry_stops_everything_that_reads(writer: ChainWriter) -> None:
    writer.commit_many(2)
    file = entry_file(writer, 2)
    file.write_bytes(file.read_bytes()[:50])

    with pytest.raises(LedgerCorrupt, match="torn or was edited"):
        fresh(writer).state()


def test_lost_entry_is_not_taken_for_end(writer: ChainWriter) -> None:
    writer.commit_many(4)
    entry_file(writer, 2).unlink()

    with pytest.raises(LedgerCorrupt, match="is missing although later ones are there"):
        fresh(writer).state()


def test_entry_that_appears_while_reading_is_no_hole(writer: ChainWriter) -> None:
    writer.commit_many(2)

    class Torn(FaultyStore):
        def read_many(self, paths: list[str]) -> list[bytes | None]:  # type: ignore[override]
            [first, *others] = super().read_many(paths)
            return [first if len(self.calls) > 10 else None, *others]

    assert fresh(writer, Torn(writer.store)).state().sequence == 0


def test_append_that_may_not_follow_is_refused_and_writes_nothing(writer: ChainWriter) -> None:
    writer.commit_many(2)

    with pytest.raises(CheckpointError, match="refused to write an entry: it prunes the head"):
        writer.ledger.append(
            lambda state: Prune(
                sequence=state.sequence + 1,
                previous=state.digest,
                at=day(0),
                by=Author(),
                checkpoint_ids=[state.head.id if state.head else ""],
            )
        )

    assert fresh(writer).state().sequence == 2


def test_entry_that_could_not_be_read_back_is_not_written(writer: ChainWriter) -> None:
    writer.commit_many(2)

    with pytest.raises(CheckpointError, match="refused to write"):
        writer.ledger.append(
            lambda state: Rewind(
                sequence=state.sequence + 1,
                previous=state.digest,
                at=day(0).replace(tzinfo=None),
                by=Author(),
                to_checkpoint_id=None,
            )
        )

    assert fresh(writer).state().sequence == 2


def test_lost_race_is_run_again_on_top_of_winner(writer: ChainWriter) -> None:
    writer.commit_many(3)
    rival = fresh(writer)
    seen: list[int] = []

    def rewind(ledger: Ledger, to: str) -> Rewind:
        state = ledger.state()
        return Rewind(sequence=state.sequence + 1, previous=state.digest, at=day(9), by=Author(), to_checkpoint_id=to)

    ids = [summary.id for summary in writer.ledger.line()]

    def make(state: object) -> Rewind:
        seen.append(1)
        entry = rewind(writer.ledger, ids[0])
        if len(seen) == 1:
            rival.append(lambda state: rewind(rival, ids[1]))
        return entry

    entry = writer.ledger.append(make)

    assert (len(seen), entry.sequence) == (2, 5)
    assert [type(each) for each in fresh(writer).entries()] == [Checkpoint] * 3 + [Rewind] * 2


def test_ledger_entry_claimed_but_never_shown_is_an_error(writer: ChainWriter) -> None:
    class Lying(FaultyStore):
        def create_exclusive(self, path: str, data: bytes) -> None:
            raise FileExistsError

    with pytest.raises(StoreFailure, match="did not show it; check the store"):
        ChainWriter(Lying(writer.store), writer.scratch, writer.chain).commit()


def test_entry_is_readable_by_people(writer: ChainWriter) -> None:
    head = writer.commit(metrics={"auc": 0.5})

    raw = json.loads(entry_file(writer, 1).read_text())

    assert (raw["kind"], raw["id"], raw["metrics"]) == ("checkpoint", head.id, {"auc": 0.5})


def test_append_secret_in_reason_that_person_gave_is_masked(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    first, second = writer.commit_many(2)
    reason = "read with postgresql://me:geheim@db and hf_token=geheim"
    entry = rewind(writer.ledger, first.id, expected_head=second.id, by=Author(), now=day(5), reason=reason)
    assert entry.reason == "read with postgresql://me:***@db and hf_token=***"
    assert all(b"geheim" not in path.read_bytes() for path in (tmp_path / "store").rglob("*.json"))
