"""A ledger that has lost entries: nothing is appended, deleted or called sound, whichever they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import pytest

from tests.simulation.memory_store import MemoryStore
from tests.unit.checkpoints.ledger.lost_entries import BESIDE, CHAIN, LAST, NOW, Make, appends, skip_of
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger.entries import Author, CheckpointRef
from trainflow.checkpoints.ledger.entry_files import StorePages
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import raise_if_short
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.saves.intermediate_saves import IntermediateSaves
from trainflow.checkpoints.saves.training_identity import training_name
from trainflow.checkpoints.stages.dependents import register_origin
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import LedgerCorrupt
from trainflow.storage import local as local_store
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, attempt_id

EVERYTHING = range(1, LAST + 1)


def begins(store: MemoryStore) -> None:
    raise_if_short(Ledger(store, CHAIN))


def sweeps(store: MemoryStore) -> None:
    sweep_garbage(Ledger(store, CHAIN), NOW)


def prunes(store: MemoryStore) -> None:
    prune(Ledger(store, CHAIN), [KeepLatest(1)], by=Author(), now=NOW)


def assert_refused(store: MemoryStore, *actions: Callable[[MemoryStore], None]) -> None:
    before = dict(store.contents)
    for action in actions:
        # where so little is left that retention keeps all of it, there is nothing to prune
        refused = pytest.raises(LedgerCorrupt, match=r"missing|short|not the one")
        with suppress(LedgerCorrupt) if action == prunes else refused:
            action(store)
        assert store.contents == before
    assert not audit(Ledger(store, CHAIN), None, verify_files=False).ok


def test_whole_ledger_is_appended_to_swept_and_sound(make: Make) -> None:
    for action in (appends, sweeps, prunes):
        for store in (make([]), make([], BESIDE)):
            before = dict(store.contents)
            action(store)
            assert (store.contents != before) is (action != sweeps)
    begins(make([]))
    assert audit(Ledger(make([]), CHAIN), None).problems == []
    assert audit(Ledger(make([], BESIDE), CHAIN), None).problems == []


@pytest.mark.parametrize("lost", EVERYTHING)
def test_ledger_without_one_entry_is_refused(make: Make, lost: int) -> None:
    assert_refused(make([lost]), appends, sweeps, prunes)
    if lost != LAST:
        # a later entry is proof enough
        assert_refused(make([lost], BESIDE), appends, sweeps, prunes)


@pytest.mark.parametrize("first", EVERYTHING)
def test_ledger_without_two_entries_is_refused(make: Make, first: int) -> None:
    for lost in combinations(EVERYTHING, 2):
        if lost[0] == first:
            assert_refused(make(lost), appends)
            if LAST not in lost:
                assert_refused(make(lost, BESIDE), appends)


@pytest.mark.parametrize("left", [(CHAIN.mark,), (CHAIN.snapshots,), (CHAIN.pages,)])
@pytest.mark.parametrize("first", EVERYTHING)
def test_ledger_without_tail_is_refused_while_any_trace_knows(make: Make, first: int, left: tuple[str]) -> None:
    """A snapshot is there up to entry 25, a page up to the entry that it ends with."""
    store = make(range(first, LAST + 1), set(BESIDE) - {*left})
    knows = {CHAIN.mark: LAST, CHAIN.snapshots: 25}.get(left[0])
    if knows is None:
        names = [path.rpartition("/")[2] for path in store.contents if path.startswith(CHAIN.pages)]
        knows = max(int(name.split("-")[1]) for name in names)
        assert 8 <= knows < LAST
    if first <= knows:
        assert_refused(store, appends, sweeps, prunes)
    else:
        assert_refused(store, sweeps, prunes)


@pytest.mark.parametrize("first", EVERYTHING)
def test_ledger_without_tail_and_neighbours_is_never_swept(make: Make, first: int) -> None:
    """A backup of everything but the artifacts, put back: these are sealed, and in no entry. What an append cannot know
    an audit does, and a run before it begins."""
    store = make(range(first, LAST + 1), BESIDE)
    assert_refused(store, sweeps, begins)
    appends(store)
    assert_refused(store, sweeps)


def test_run_on_ledger_with_pages_reads_none_of_them(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make([])
    assert Ledger(store, CHAIN).state().pages
    monkeypatch.setattr(StorePages, "pages", lambda *_: pytest.fail("a page was read"))
    begins(store)


def test_run_on_ledger_that_was_rewound_begins(make: Make) -> None:
    """What a rewind left behind is sealed, younger than the head, and in an entry."""
    store = make([])
    rewound = Ledger(store, CHAIN)
    (target, *_) = rewound.line()
    rewind(rewound, target.id, expected_head=rewound.checkpoint().id, by=Author(), now=NOW)
    begins(store)


def test_ledger_without_tail_or_traces_is_like_a_shorter_one(make: Make) -> None:
    """The one loss that nothing shows: entries without artifacts of their own, together with what lies beside."""
    store = make([], BESIDE)
    promote(Ledger(store, CHAIN), Ledger(store, CHAIN).checkpoint().id, "other", by=Author(), now=NOW)
    store.delete(CHAIN.entry(LAST + 1))
    assert_refused(store, appends)
    for path in [path for path in store.contents if path.startswith(BESIDE)]:
        store.delete(path)
    assert audit(Ledger(store, CHAIN), None).ok
    sweeps(store)
    appends(store)


@pytest.mark.parametrize("trace", ["save", "follower", "artifact"])
def test_deletion_with_one_trace_of_lost_tail_is_refused(make: Make, tmp_path: Path, trace: str) -> None:
    store = make([], BESIDE)
    head = Ledger(store, CHAIN).checkpoint()
    artifacts = {path: store.contents.pop(path) for path in list(store.contents) if head.artifacts.path in path}
    store.delete(CHAIN.entry(LAST))
    sweep_garbage(Ledger(store, CHAIN), NOW, dry_run=True)
    match trace:
        case "save":
            saves = IntermediateSaves(store, CHAIN, training_name(head.id, "x"), attempt_id(99), tmp_path)
            saves.begin()
            saves.complete({"row": 1}, {}, NOW)
        case "follower":
            dependent = ChainWriter(store, tmp_path, ChainKey("flights", "mobile"))
            register_origin(store, CHAIN, dependent.chain)
            dependent.commit(origin=CheckpointRef(CHAIN, head.id))
        case "artifact":
            store.contents.update(artifacts)
    assert_refused(store, sweeps, prunes)


def test_commit_whose_parent_is_in_no_entry_is_refused(tmp_path: Path) -> None:
    """The head that the run has read was lost while it trained."""
    writer = ChainWriter(MemoryStore(), tmp_path, CHAIN)
    *_, parent = writer.commit_many(3)
    request = writer.request(parent=parent)
    for path in (CHAIN.entry(3), CHAIN.mark):
        writer.store.delete(path)
    with pytest.raises(LedgerCorrupt, match=rf"1 checkpoint was committed and is in no entry .{parent.id}"):
        commit(writer.store, request, NOW)


def test_append_of_ledger_that_had_read_more_is_refused(make: Make) -> None:
    """The older copy is put back under a process that lives on."""
    store = make([])
    living = Ledger(store, CHAIN)
    assert living.state().sequence == LAST
    for path in [CHAIN.mark, *(CHAIN.entry(number) for number in range(20, LAST + 1))]:
        store.delete(path)
    before = dict(store.contents)
    with pytest.raises(LedgerCorrupt, match="entries 20 to 30 are missing"):
        living.append(skip_of)
    assert store.contents == before


def test_entry_of_another_copy_put_over_newest_is_refused(make: Make, tmp_path: Path) -> None:
    """A copy that went on by itself has an entry of the same number that follows the one before as well."""
    other = make([LAST], BESIDE)
    appends(other)
    forged = other.contents[CHAIN.entry(LAST)]
    store = make([])
    store.contents[CHAIN.entry(LAST)] = forged
    assert_refused(store, appends, sweeps, prunes)


def test_snapshot_of_another_entry_than_is_there_is_refused(make: Make) -> None:
    """It is whole, and was made of an entry with another digest: entries do not change."""
    other = make(range(24, LAST + 1), BESIDE)
    for _ in range(24, LAST + 1):
        appends(other)
    store = make([], [CHAIN.mark, CHAIN.pages])
    for number in range(24, LAST + 1):
        store.contents[CHAIN.entry(number)] = other.contents[CHAIN.entry(number)]
    with pytest.raises(LedgerCorrupt, match=r"25\.json is not the one that the snapshot .* was made of"):
        Ledger(store, CHAIN).state()
    assert_refused(store, appends)


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 40])
@pytest.mark.parametrize("number", [1, 17, LAST])
def test_entry_that_is_torn_is_refused(make: Make, number: int, content: bytes) -> None:
    """A power cut on a disk that lies, a copy that was cut short."""
    store = make([], BESIDE)
    store.contents[CHAIN.entry(number)] = content
    before = dict(store.contents)
    for action in (appends, sweeps, prunes):
        with pytest.raises(LedgerCorrupt):
            action(store)
    assert store.contents == before
    assert not audit(Ledger(store, CHAIN), None, verify_files=False).ok


def test_ledger_of_another_chain_copied_in_is_refused(make: Make) -> None:
    store, other = make([]), ChainKey("copied")
    for number in EVERYTHING:
        store.contents[other.entry(number)] = store.contents[CHAIN.entry(number)]
    before = dict(store.contents)
    with pytest.raises(LedgerCorrupt, match="belongs to another chain"):
        Ledger(store, other).append(skip_of)
    assert store.contents == before


def test_creation_flushes_folder_after_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a power cut takes the name of an entry whose commit was told."""
    flushed: list[tuple[str, list[str]]] = []

    def note(folder: Path) -> None:
        flushed.append((folder.name, sorted(path.name for path in folder.iterdir() if path.suffix == ".json")))

    store = LocalStore(tmp_path)
    store.create_exclusive(CHAIN.entry(1), b"1")
    monkeypatch.setattr(local_store, "fsync_folder", note)
    store.create_exclusive(CHAIN.entry(2), b"2")
    assert flushed[-1] == ("ledger", ["0000000001.json", "0000000002.json"])
