"""Stores that lie: half of a write, a reply that was lost, listings that come late, throttling, a disk that is full.

Whatever happens, at whichever call: no half checkpoint, no lost head, and the same work done again comes to the same
end.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.actions.promote import promote
from trainflow.checkpoints.actions.prune import prune
from trainflow.checkpoints.actions.rewind import rewind
from trainflow.checkpoints.actions.skip import skip
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.request import CommitRequest
from trainflow.checkpoints.ledger import snapshots
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import ChainMoved, StoreFailure
from trainflow.samples.spec import Samples
from trainflow.storage import throttling
from trainflow.storage.local import LocalStore
from trainflow.storage.object_store import ObjectStore
from trainflow.storage.store import Store
from trainflow.testing.chains import START, ChainWriter, append_many, attempt_id, day, split_of
from trainflow.testing.faulty_store import FaultyStore, LateListings

CHAIN = ChainKey("flights")
SAMPLES = Samples(path="{start:%Y%m%d}/", length_seconds=86_400, start=START)
ME = Author("person")
FAR = day(9_999)


class Work:
    """All that is ever done to a chain, in steps that may each be done again."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self.store = store
        self.scratch = scratch

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, CHAIN)

    def do(self) -> None:
        """Three checkpoints, the first pruned, the second promoted; a skip over day 3, a fill of day 1; swept."""
        first = self.train(1, None, split_of(0))
        second = self.train(2, first, split_of(1, 2, [1]))
        promote(self.ledger, second.id, "champion", by=ME, now=day(5))
        if self.ledger.state().head == second:
            skip(self.ledger, day(3), day(4), expected_head=second.id, by=ME, now=day(5), reason="bad")
        third = self.train(3, second, split_of(3, 2, [3]))
        fourth = self.train(4, third, split_of(1), fills=True)
        fifth = self.train(5, fourth, split_of(5))
        if self.ledger.state().head == fifth:
            rewind(self.ledger, fourth.id, expected_head=fifth.id, by=ME, now=day(6))
        prune(self.ledger, [KeepLatest(1)], by=ME, now=day(7))
        sweep_garbage(self.ledger, FAR, grace=timedelta(0))

    def train(self, number: int, parent: Checkpoint | None, split: Any, **others: Any) -> Checkpoint:
        """What run `number` does, at its first try or at a later one."""
        known = next((each for each in self.ledger.entries() if self._is_of(each, number)), None)
        if known is not None:
            return known
        attempt = attempt_id(number)
        folder = output_folder(self.store, CHAIN, attempt, self.scratch)
        (folder / "model.bin").write_bytes(b"weights of %d" % number)
        (folder / "notes.txt").write_bytes(b"of %d" % number)
        request = CommitRequest(
            chain=CHAIN,
            parent_id=parent.id if parent else None,
            split=split,
            artifacts=seal(self.store, CHAIN, attempt, folder),
            by=Author(f"run-{number}", attempt),
            **others,
        )
        made = commit(self.store, request, day(number))
        assert isinstance(made, Checkpoint)
        return made

    def _is_of(self, entry: object, number: int) -> bool:
        return isinstance(entry, Checkpoint) and entry.id == attempt_id(number)


def assert_sound(store: Store) -> None:
    """What has to hold at any moment."""
    report = audit(Ledger(store, CHAIN), SAMPLES, FAR)
    assert report.problems == []
    state = Ledger(store, CHAIN).state()
    assert (state.head.id if state.head else None, state.sequence) == (report.head_id, report.entries)


def assert_done(store: Store) -> None:
    """What the work comes to, however often it was begun."""
    report = audit(Ledger(store, CHAIN), SAMPLES, FAR)
    assert (report.problems, report.partitions, report.filled, report.watermark) == ([], 4, 1, day(5))
    assert [(hole.start, hole.reason) for hole in report.holes] == [(day(3), "missing")]
    assert report.promoted == {"champion": attempt_id(2)}
    assert [each.id for each in Ledger(store, CHAIN).kept()] == [attempt_id(2), attempt_id(4)]
    assert store.folders(CHAIN.artifacts) == sorted([attempt_id(2), attempt_id(4)])


def store_of(kind: str, folder: Path) -> Store:
    return LocalStore(folder) if kind == "local" else MemoryStore()


def calls_needed(kind: str, folder: Path) -> int:
    """Of the undisturbed work."""
    inner = store_of(kind, folder / "rehearsal/store")
    counted = FaultyStore(inner)
    Work(counted, folder / "rehearsal").do()
    assert_done(inner)
    return len(counted.calls)


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
    append_many(Ledger(ready, CHAIN), 16 * snapshots.INTERVAL - 1)
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


# -- listings that come late ---------------------------------------------------------------------------------------


def test_late_listing_hides_no_head_and_raises_no_false_alarm(tmp_path: Path) -> None:
    store = LateListings(MemoryStore())
    append_many(Ledger(store, CHAIN), 5)
    store.settle()

    append_many(Ledger(store, CHAIN), 2 * snapshots.INTERVAL)

    assert len(store.files(CHAIN.ledger)) == 5
    assert Ledger(store, CHAIN).state().head_sequence == 5 + 2 * snapshots.INTERVAL
    report = audit(Ledger(store, CHAIN), SAMPLES, FAR, verify_files=False)
    assert (report.problems, report.entries) == ([], 5 + 2 * snapshots.INTERVAL)


def test_listing_without_entry_before_shown_one_is_no_gap() -> None:
    store = LateListings(MemoryStore())
    append_many(Ledger(store, CHAIN), 3)
    store.settle()
    store._young = {CHAIN.entry(2)}

    assert audit(Ledger(store, CHAIN), SAMPLES, FAR, verify_files=False).problems == []


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

    assert audit(Ledger(Slow(writer.store), CHAIN), SAMPLES, FAR).problems == []


# -- throttling ----------------------------------------------------------------------------------------------------


class Throttled:
    """A file system that refuses so many requests in a row, and then does what it is asked."""

    def __init__(self, inner: Any, error: Callable[[], Exception]) -> None:
        self._inner = inner
        self._error = error
        self.refuses = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found) or name == "invalidate_cache":
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.refuses > 0:
                self.refuses -= 1
                raise self._error()
            return found(*args, **kwargs)

        return call


def slow_down() -> Exception:
    """As s3fs passes it on."""
    return OSError(errno.EBUSY, "Please reduce your request rate.")


def too_many() -> Exception:
    """As gcsfs does."""
    error = RuntimeError("quota")
    error.code = 429  # type: ignore[attr-defined]
    return error


@contextmanager
def throttled(error: Callable[[], Exception]) -> Iterator[tuple[ObjectStore, Throttled, list[float]]]:
    import fsspec

    memory, base = fsspec.core.url_to_fs(f"memory://{uuid.uuid4().hex}")
    filesystem, waits = Throttled(memory, error), list[float]()
    try:
        yield ObjectStore(filesystem, base, url="memory://x", sleep=waits.append), filesystem, waits
    finally:
        with suppress(FileNotFoundError):
            memory.rm(base, recursive=True)


@pytest.mark.parametrize("error", [slow_down, too_many])
def test_store_that_asks_for_patience_gets_some(tmp_path: Path, error: Callable[[], Exception]) -> None:
    with throttled(error) as (store, filesystem, waits):
        calls: list[Callable[[], object]] = [
            lambda: store.create_exclusive("a/b", b"x"),
            lambda: store.replace("a/c", b"y"),
            lambda: store.put_file(Path(__file__), "a/d"),
            lambda: store.get_file("a/b", tmp_path / "b"),
            lambda: [store.read("a/b"), *store.read_many(["a/c"])],
            lambda: list(store.chunks("a/b")),
            lambda: (store.files("a"), store.folders("")),
            lambda: store.exists("a/b"),
            lambda: store.delete("a/c"),
            lambda: store.delete_folder("a"),
        ]
        for call in calls:
            filesystem.refuses = 2
            call()
            assert filesystem.refuses == 0

        assert len(waits) == 2 * len(calls)
        assert all(0.5 <= wait <= 2.0 for wait in waits)


def test_patience_ends_and_message_says_what_to_do() -> None:
    with throttled(slow_down) as (store, filesystem, waits):
        filesystem.refuses = 1_000
        with pytest.raises(StoreFailure, match="asks for fewer requests, and went on asking: try again later"):
            store.create_exclusive("a/b", b"x")

        assert len(waits) == throttling.TRIES - 1
        assert sum(waits) < 60
        filesystem.refuses = 0
        assert store.files("") == []


def test_error_of_another_kind_is_not_waited_for() -> None:
    with throttled(lambda: PermissionError(errno.EACCES, "no")) as (store, filesystem, waits):
        filesystem.refuses = 1
        with pytest.raises(StoreFailure, match="the right to read"):
            store.read("a")
        assert waits == []


def test_throttled_in_middle_of_file_goes_on_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.storage.object_store.CHUNK_BYTES", 4)
    with throttled(slow_down) as (store, _, waits):
        store.replace("a/b", b"0123456789")
        inner = store._open_unbuffered

        class Refusing:
            """Every other read is refused."""

            def __init__(self, file: Any) -> None:
                self._file, self._times = file, 0

            def __enter__(self) -> Refusing:
                return self

            def __exit__(self, *_: object) -> None:
                self._file.close()

            def read(self, count: int) -> bytes:
                self._times += 1
                if self._times % 2:
                    raise slow_down()
                return bytes(self._file.read(count))

        monkeypatch.setattr(store, "_open_unbuffered", lambda path: Refusing(inner(path)))
        assert list(store.chunks("a/b")) == [b"0123", b"4567", b"89"]
        assert len(waits) == 4


def test_throttled_among_many_files_asks_again_for_refused_ones_only() -> None:
    with throttled(slow_down) as (store, filesystem, waits):
        for number in range(6):
            store.replace(f"a/{number}", b"%d" % number)
        asked: list[list[str]] = []
        inner = filesystem._inner.cat

        def cat(paths: list[str], on_error: str) -> dict[str, Any]:
            asked.append([path[-1] for path in paths])
            found: dict[str, Any] = inner(paths, on_error=on_error)
            # half of them, each time
            return found | {path: slow_down() for path in paths[len(paths) // 2 :] if len(paths) > 1}

        filesystem.cat = cat  # type: ignore[attr-defined]
        paths = [f"a/{number}" for number in (0, 1, 2, 9, 4, 5)]
        assert store.read_many(paths) == [b"0", b"1", b"2", None, b"4", b"5"]
        assert asked == [["0", "1", "2", "9", "4", "5"], ["9", "4", "5"], ["4", "5"], ["5"]]
        assert len(waits) == 3


def test_throttled_store_commits_in_end(tmp_path: Path) -> None:
    with throttled(slow_down) as (store, filesystem, waits):
        writer = ChainWriter(store, tmp_path)
        for _ in range(4):
            filesystem.refuses = 3
            writer.commit()

        assert audit(writer.ledger, SAMPLES, FAR).problems == []
        assert len(waits) == 12


# -- a disk that is full -------------------------------------------------------------------------------------------


class FullDisk:
    """From the n-th call on that needs room, there is none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, calls: int | None) -> None:
        self.left = calls
        self.made = 0
        for owner, name in ((os, "link"), (os, "fsync"), (Path, "mkdir"), (Path, "replace")):
            self._limit(monkeypatch, owner, name)

    def _limit(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def limited(*args: Any, **kwargs: Any) -> Any:
            self.made += 1
            if self.left is not None and self.made > self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, limited)


def room_needed(tmp_path: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        disk = FullDisk(patch, None)
        Work(LocalStore(tmp_path / "rehearsal/store"), tmp_path / "rehearsal").do()
    return disk.made


def test_disk_that_is_full_at_any_step(tmp_path: Path) -> None:
    steps = room_needed(tmp_path)
    assert steps > 60
    said: list[str] = []
    for left in range(0, steps, 2):
        folder = tmp_path / str(left)
        store = LocalStore(folder / "store")
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, left)
            # one that is met after the last entry is written, while a snapshot is saved, is no error
            try:
                Work(store, folder).do()
            except StoreFailure as error:
                said.append(str(error))
        assert_sound(store)

        Work(store, folder).do()

        assert_done(store)
        assert store.temporary("") == []
    assert len(said) >= steps // 2 - 2
    assert all("No space left" in each and "the store is full: free space" in each for each in said)


# -- two writers that know nothing of each other -------------------------------------------------------------------

RIVAL = """
import sys
from pathlib import Path
from trainflow.checkpoints.ledger.ledger import Ledger
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
def test_two_processes_sharing_only_the_store_never_both_commit(tmp_path: Path) -> None:
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
    report = audit(Ledger(LocalStore(tmp_path / "store"), CHAIN), SAMPLES, FAR)
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
