"""Stores that lie: half of a write, a reply that was lost, listings that come late, two writers at once."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.chain_work import CHAIN, ME, SAMPLES, Work, assert_done, assert_sound
from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger import snapshots
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import ChainMoved, StoreFailure
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.testing.chains import ChainWriter, append_many, attempt_id, day
from trainflow.testing.faulty_store import FaultyStore, LateListings


def store_of(kind: str, folder: Path) -> Store:
    return LocalStore(folder) if kind == "local" else MemoryStore()


def calls_needed(kind: str, folder: Path) -> int:
    """Of the undisturbed work."""
    inner = store_of(kind, folder / "rehearsal/store")
    counted = FaultyStore(inner)
    Work(counted, folder / "rehearsal").do()
    assert_done(inner)
    return len(counted.calls)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("kind", "when"),
    [("local", "before"), ("local", "after"), ("elsewhere", "before"), ("elsewhere", "half"), ("elsewhere", "after")],
)
def test_fault_at_any_call_of_all_that_is_ever_done(tmp_path: Path, kind: str, when: Any) -> None:
    failed: set[str] = set()
    for fail_at in range(1, calls_needed(kind, tmp_path) + 1):
        folder = tmp_path / str(fail_at)
        inner = store_of(kind, folder / "store")
        faulty = FaultyStore(inner, fail_at=fail_at, when=when)
        with suppress(StoreFailure):
            Work(faulty, folder).do()
        assert_sound(inner)

        Work(inner, folder).do()

        assert_done(inner)
        failed.add(faulty.calls[fail_at - 1])
    assert {"create_exclusive", "read_many", "files", "folders", "delete_folder"} <= failed
    assert ("put_file" in failed) is (kind == "elsewhere")


@pytest.mark.parametrize("when", ["before", "half", "after"])
def test_fault_while_snapshots_and_pages_are_written(when: Any) -> None:
    """A commit that writes both: the reader after it sees the same with them and without."""
    ready = MemoryStore()
    append_many(Ledger(ready, CHAIN), 16 * snapshots.SNAPSHOT_INTERVAL - 1)
    for fail_at in range(1, 20):
        store = MemoryStore()
        store.contents = dict(ready.contents)
        faulty = FaultyStore(store, fail_at=fail_at, when=when)
        with suppress(StoreFailure):
            append_many(Ledger(faulty, CHAIN), 1)
        ledger = Ledger(store, CHAIN)
        kept = ledger.kept()
        bare = MemoryStore()
        bare.contents = {path: data for path, data in store.contents.items() if path.startswith(CHAIN.ledger)}
        assert kept == Ledger(bare, CHAIN).kept()
        assert len(kept) == ledger.state().sequence
    assert {"create_exclusive", "replace", "delete"} <= set(faulty.calls)


def test_late_listing_hides_no_head_and_raises_no_false_alarm(tmp_path: Path) -> None:
    store = LateListings(MemoryStore())
    append_many(Ledger(store, CHAIN), 5)
    store.settle()

    append_many(Ledger(store, CHAIN), 2 * snapshots.SNAPSHOT_INTERVAL)

    assert len(store.files(CHAIN.ledger)) == 5
    assert Ledger(store, CHAIN).state().head_sequence == 5 + 2 * snapshots.SNAPSHOT_INTERVAL
    report = audit(Ledger(store, CHAIN), SAMPLES, verify_files=False)
    assert (report.problems, report.entries) == ([], 5 + 2 * snapshots.SNAPSHOT_INTERVAL)


def test_listing_without_entry_before_shown_one_is_no_gap() -> None:
    store = LateListings(MemoryStore())
    append_many(Ledger(store, CHAIN), 3)
    store.settle()
    store._young = {CHAIN.entry(2)}

    assert audit(Ledger(store, CHAIN), SAMPLES, verify_files=False).problems == []


def test_late_listings_lose_no_work_and_sweep_nothing_needed(tmp_path: Path) -> None:
    store = LateListings(MemoryStore())

    Work(store, tmp_path).do()

    assert_sound(store)
    assert [each.id for each in Ledger(store, CHAIN).kept()] == [attempt_id(2), attempt_id(4)]
    store.settle()
    Work(store, tmp_path).do()
    assert_done(store)


def test_prune_while_audit_reads_files_is_no_damage(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path)
    writer.commit_many(4)

    class Slow(FaultyStore):
        def read(self, path: str) -> bytes:
            prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(9))
            return super().read(path)

    assert audit(Ledger(Slow(writer.store), CHAIN), SAMPLES).problems == []


RIVAL = """
import sys
from pathlib import Path
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.storage.local import LocalStore
from trainflow.checkpoints.commit.commit import commit
from trainflow.errors import ChainMoved
from trainflow.testing.chains import ChainWriter, attempt_id, day

root, number, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
writer = ChainWriter(LocalStore(root / "store"), root / f"scratch-{number}")
writer.runs = 1_000 * number
for _ in range(rounds):
    parent = Ledger(writer.store, writer.chain).state().head
    request = writer.request(parent=parent, run_id=f"{number}-{writer.runs}")
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print(commit(writer.store, request, day(9)).sequence, flush=True)
    except ChainMoved as error:
        print("moved", error.expected_sequence, error.head_sequence, flush=True)
"""


@pytest.mark.slow
def test_processes_sharing_only_store_never_both_commit(tmp_path: Path) -> None:
    """Each trains from the head it saw; both commit at the same moment; one wins, the other is told, every time."""
    rounds = 12
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, str(tmp_path), str(number), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2)
    ]
    try:
        for number in range(1, rounds + 1):
            assert [line(rival) for rival in rivals] == ["ready", "ready"]
            for rival in rivals:
                assert rival.stdin is not None
                rival.stdin.write("\n")
                rival.stdin.flush()
            said = sorted(line(rival) for rival in rivals)
            assert said == [str(number), f"moved {number - 1} {number}"]
    finally:
        for rival in rivals:
            rival.kill()
            rival.communicate()
    report = audit(Ledger(LocalStore(tmp_path / "store"), CHAIN), SAMPLES)
    assert (report.problems, report.partitions, report.entries) == ([], rounds, rounds)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_commit_that_lost_race_and_comes_again_is_told_again(tmp_path: Path) -> None:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path)
    parent = writer.commit()
    requests = [writer.request(parent=parent), writer.request(parent=parent)]
    commit(writer.store, requests[0], day(3))

    for _ in range(2):
        with pytest.raises(ChainMoved, match="Nothing was changed"):
            commit(writer.store, requests[1], day(4))
    assert_sound(writer.store)
