"""Whatever is committed, rewound, forked, pruned and swept: what a kept checkpoint has in another one's folder stays,
and what no checkpoint has goes."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit import artifacts as artifacts_module
from trainflow.checkpoints.commit import commit as commit_module
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes import prune as prune_module
from trainflow.checkpoints.ledger_changes.fork import fork
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.upkeep import garbage, shared_files
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import ArtifactCorrupt, StoreFailure
from trainflow.identifiers import attempt_time
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.chains import ChainWriter, day, split_of
from trainflow.testing.faulty_store import FaultyStore

ME = Author("person")
LATER = day(4000)
CHAINS = [ChainKey("clicks"), ChainKey("clicks", branch="hot"), ChainKey("clicks", "mobile")]

which = st.integers(0, 2)
#: which of the chain's files are written anew
commits = st.tuples(st.just("commit"), which, st.integers(0, 7))
rewinds = st.tuples(st.just("rewind"), which, st.integers(1, 3))
prunes = st.tuples(st.just("prune"), which, st.integers(1, 3))
cut_prunes = st.tuples(st.just("cut prune"), which, st.integers(1, 30))
sweeps = st.tuples(st.just("sweep"), which, st.just(0))
Action = tuple[str, int, int]
histories = st.lists(st.one_of(commits, commits, commits, rewinds, prunes, prunes, cut_prunes, sweeps), max_size=24)


class Family:
    """A chain, a branch that was forked from it and a stage that starts from its checkpoints."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self.store = store
        self.writers = [ChainWriter(store, scratch / str(number), chain) for number, chain in enumerate(CHAINS)]
        for number, writer in enumerate(self.writers):
            writer.runs = 1000 * number  # attempts of their own
        self.versions = [0, 0, 0]

    def do(self, action: Action) -> None:
        kind, number, size = action
        writer = self.writers[number]
        line = Ledger(self.store, writer.chain).line()
        match kind:
            case "commit":
                self.commit(number, size)
            case "rewind" if len(line) > size:
                rewind(writer.ledger, line[-1 - size].id, expected_head=line[-1].id, by=ME, now=day(0))
            case "prune":
                prune(writer.ledger, [KeepLatest(size)], by=ME, now=day(0))
            case "cut prune":
                cut = Ledger(FaultyStore(self.store, fail_at=size, when="half"), writer.chain)
                with suppress(StoreFailure):
                    prune(cut, [KeepLatest(1)], by=ME, now=day(0))
                writer.ledger = Ledger(self.store, writer.chain)
            case "sweep":
                sweep_garbage(writer.ledger, LATER)

    def commit(self, number: int, changed: int) -> None:
        """Train on from the head, or from the first chain's: a branch begins there, a stage starts from there."""
        writer, base = self.writers[number], self.writers[0].ledger.state().head
        parent = writer.ledger.state().head
        starts = number == 2 or (number == 1 and parent is None)
        if starts and base is None:
            return
        if number == 1 and parent is None and base is not None:
            fork(writer.ledger, CheckpointRef(CHAINS[0], base.id), base.watermark, by=ME, now=day(0))
        for place in range(3):
            if changed >> place & 1:
                self.versions[place] += 1
        files = {f"shard-{place}.bin": b"%d of %d" % (self.versions[place], place) for place in range(3)}
        files["log.txt"] = b"%d" % writer.runs  # never shared: shorter than the others
        first = (writer.ledger.state().watermark or day(0)) - day(0)
        origin = CheckpointRef(CHAINS[0], base.id) if starts and base is not None else None
        writer.commit(
            files=files,
            split=split_of(first // timedelta(days=1)),
            earlier=[base.artifacts] if starts and base is not None else [],
            origin=origin,
        )


def problems(store: Store) -> list[str]:
    """What is missing of any kept checkpoint."""
    return [each for chain in CHAINS for each in audit(Ledger(store, chain), None).problems]


def leaks(store: Store) -> set[str]:
    """Files below the artifacts that no kept checkpoint has."""
    ledgers = [Ledger(store, chain) for chain in CHAINS]
    used = set()
    for ledger in ledgers:
        kept = {each.id for each in ledger.kept()}
        for entry in ledger.entries():
            if isinstance(entry, Checkpoint) and entry.id in kept:
                used.update(entry.artifacts.place(file) for file in entry.artifacts.files)
                used.update(f"{entry.artifacts.path}/{file.path}" for file in entry.artifacts.files)
    files = {file.path for chain in CHAINS for file in store.files(chain.artifacts)}
    of_attempts = {path for path in files if len(path.split("/")) > 5 and attempt_time(path.split("/")[4])}
    return of_attempts - used


@contextmanager
def family(kind: str) -> Iterator[Family]:
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts_module, "SHARED_BYTES", 5)
        if kind == "local":
            yield Family(LocalStore(Path(scratch) / "store"), Path(scratch))
            return
        store = open_store(f"memory://{uuid.uuid4().hex}")
        try:
            yield Family(store, Path(scratch))
        finally:
            store.delete_folder("")


@pytest.mark.parametrize("kind", ["memory", "local"])
@given(history=histories)
@settings(max_examples=40)
def test_retention_never_drops_what_is_referenced_and_sweep_the_rest(kind: str, history: list[Action]) -> None:
    with family(kind) as chains:
        for action in history:
            chains.do(action)
            assert problems(chains.store) == []
        for chain in CHAINS:
            sweep_garbage(Ledger(chains.store, chain), LATER)

        assert problems(chains.store) == []
        assert leaks(chains.store) == set()


#: the first shard stays as it was written first, by a checkpoint that is pruned; the branch and the stage have it too
ONE_UNCHANGED: list[Action] = [
    *(("commit", 0, 7), ("commit", 0, 6), ("commit", 0, 6), ("commit", 1, 6), ("commit", 1, 6), ("commit", 2, 6)),
    *(("prune", 0, 1), ("sweep", 0, 0), ("commit", 0, 7), ("commit", 0, 7), ("commit", 2, 7), ("prune", 0, 1)),
    ("sweep", 0, 0),
    # what the stage's second checkpoint has of the chain's newest stays, when both have gone on
    *(("commit", 0, 7), ("commit", 2, 6), ("commit", 0, 7), ("commit", 2, 6), ("commit", 0, 7), ("commit", 2, 6)),
    ("prune", 0, 1),
]


def test_history_without_a_bug_keeps_everything() -> None:
    with family("memory") as chains:
        for action in ONE_UNCHANGED:
            chains.do(action)
        sources = [file.source for file in chains.writers[1].ledger.checkpoint().artifacts.files]

        assert problems(chains.store) == []
        assert any(source.startswith("clicks/main/main/artifacts/") for source in sources)


def _nothing_shared(patch: pytest.MonkeyPatch) -> None:
    """Retention does not know that files are shared."""
    for module in (prune_module, garbage):
        patch.setattr(module, "shared_files", lambda *_: shared_files.SharedFiles(set(), set()))


def _own_chain_alone(patch: pytest.MonkeyPatch) -> None:
    """What branches and stages have is forgotten."""
    patch.setattr(shared_files, "registered_chains", lambda *_: [])


def _sweep_forgets(patch: pytest.MonkeyPatch) -> None:
    """A sweep takes the folder of a pruned checkpoint for garbage, all of it."""
    patch.setattr(garbage, "shared_files", lambda *_: shared_files.SharedFiles(set(), set()))


@pytest.mark.parametrize("plant", [_nothing_shared, _own_chain_alone, _sweep_forgets])
def test_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with family("memory") as chains:
        for action in ONE_UNCHANGED:
            chains.do(action)

        assert any("is missing" in each for each in problems(chains.store))


class _Interrupted(FaultyStore):
    """Another writer comes before the call number `at` (from 1)."""

    def __init__(self, inner: Store, at: int, other: Callable[[], object]) -> None:
        super().__init__(inner)
        self._at = at
        self._other = other

    def _pass(self, *call: Any) -> Any:
        if len(self.calls) + 1 == self._at:
            self._other()
        return super()._pass(*call)


def _prune_and_begin(chains: Family, at: int, *, prune_first: bool) -> tuple[int, bool]:
    """A stage of another pipeline begins with a checkpoint that nothing keeps while its chain prunes it. Returns how
    many calls the one made that was interrupted, and whether the stage has begun."""
    for changed in (7, 7, 7):  # nothing else has the files
        chains.commit(0, changed)
    ledger = chains.writers[0].ledger
    base = ledger.checkpoint(ledger.line()[0].id)
    stage = chains.writers[2]
    files = {"shard-0.bin": b"1 of 0", "log.txt": b"0"}
    ref = CheckpointRef(CHAINS[0], base.id)
    request = stage.request(files=files, split=split_of(0), earlier=[base.artifacts], origin=ref)
    assert request.artifacts.owners == (base.artifacts.path,)
    begun = []

    def begin(store: Store) -> None:
        with suppress(ArtifactCorrupt):
            begun.append(commit(store, request, day(0)))

    def delete(store: Store) -> None:
        prune(Ledger(store, CHAINS[0]), [KeepLatest(1)], by=ME, now=day(0))

    first, second = (delete, begin) if prune_first else (begin, delete)
    store = _Interrupted(chains.store, at, lambda: second(chains.store))
    first(store)
    return len(store.calls), bool(begun)


@pytest.mark.parametrize("prune_first", [True, False])
def test_stage_begins_while_its_checkpoint_is_pruned_has_its_files_or_is_refused(prune_first: bool) -> None:
    outcomes, at, calls = [], 1, 1
    while at <= calls:
        with family("memory") as chains:
            calls, begun = _prune_and_begin(chains, at, prune_first=prune_first)
            assert problems(chains.store) == [], f"call {at} of {calls}"
            outcomes.append(begun)
            sweep_garbage(Ledger(chains.store, CHAINS[0]), LATER)
            assert problems(chains.store) == [], f"call {at} of {calls}, swept"
            assert not begun or not leaks(chains.store)
        at += 1
    assert set(outcomes) == {True, False}


def _prune_waits_for_none(patch: pytest.MonkeyPatch) -> None:
    """Who deletes does not look for chains that are about to begin."""
    patch.setattr(shared_files, "is_awaited", lambda *_: False)


def _commit_does_not_look(patch: pytest.MonkeyPatch) -> None:
    """Who begins does not look whether its checkpoint is kept."""
    steps = [(name, step) for name, step in commit_module.STEPS if name != "check_origin"]
    patch.setattr(commit_module, "STEPS", steps)


@pytest.mark.parametrize("plant", [_prune_waits_for_none, _commit_does_not_look])
def test_planted_race_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    places = ((at, prune_first) for prune_first in (True, False) for at in range(44, 0, -1))

    assert any("is missing" in each for at, prune_first in places for each in _problems_after_race(at, prune_first))


def _problems_after_race(at: int, prune_first: bool) -> list[str]:
    with family("memory") as chains:
        _prune_and_begin(chains, at, prune_first=prune_first)
        sweep_garbage(Ledger(chains.store, CHAINS[0]), LATER)
        return problems(chains.store)
