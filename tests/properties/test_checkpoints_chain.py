"""Whatever legal entries come, a chain tiles time; of several in a race one wins and the ledger stays whole."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.audit.lineage import lineage_of
from trainflow.checkpoints.commit.commit import STEPS, Commit, commit
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, CheckpointRef
from trainflow.checkpoints.ledger.entry_files import StorePages, batches
from trainflow.checkpoints.ledger.fold import SealedEntry, fold
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind, skip
from trainflow.checkpoints.upkeep.retention import KeepAll, KeepBest, KeepEvery, KeepLatest, Policy, removable
from trainflow.errors import ChainMoved
from trainflow.samples.spec import Samples
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.chains import START, ChainWriter, day, split_of

ME = Author("person")
SAMPLES = Samples(path="{start:%Y%m%d}/", length_seconds=86_400, start=START)

commits = st.tuples(st.just("commit"), st.integers(1, 4), st.booleans())
rewinds = st.tuples(st.just("rewind"), st.integers(0, 5), st.booleans())
prunes = st.tuples(st.just("prune"), st.integers(1, 3), st.booleans())
skips = st.tuples(st.just("skip"), st.integers(1, 3), st.booleans())
fills = st.tuples(st.just("fill"), st.integers(1, 3), st.booleans())
promotions = st.tuples(st.just("promote"), st.integers(0, 3), st.booleans())
histories = st.lists(st.one_of(commits, commits, commits, rewinds, prunes, skips, fills, promotions), max_size=16)
policies: st.SearchStrategy[Policy] = st.one_of(
    st.just(KeepAll()),
    st.integers(1, 4).map(KeepLatest),
    st.integers(1, 4).map(KeepEvery),
    st.builds(KeepBest, st.sampled_from(["auc", "loss"]), st.sampled_from(["max", "min"]), st.integers(1, 3)),
)


@contextmanager
def memory_writer() -> Iterator[ChainWriter]:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            yield ChainWriter(store, Path(scratch))
        finally:
            store.delete_folder("")


def replay(writer: ChainWriter, history: list[tuple[str, int, bool]]) -> None:
    for kind, number, flag in history:
        ACTIONS[kind](writer, number, flag)


def advance(writer: ChainWriter, number: int, flag: bool) -> None:
    """Step over what was skipped, then train `number` days, the first a hole if told so."""
    state = writer.ledger.state()
    first = ((state.watermark or START) - START) // timedelta(days=1)
    skipped = sum((each.end - each.start) // timedelta(days=1) for each in state.skips)
    holes = range(first, first + skipped + (1 if flag and number > 1 else 0))
    writer.commit(split=split_of(first, skipped + number, holes), metrics={"auc": number / 4, "loss": 1.0 / number})


def go_back(writer: ChainWriter, number: int, flag: bool) -> None:
    state = writer.ledger.state()
    line = writer.ledger.line()
    target = None if number == 0 else line[max(0, len(line) - number)].id if line else None
    head = line[-1].id if line else None
    if target != head or state.skips:
        rewind(writer.ledger, target, expected_head=head, by=ME, now=day(0))


def drop(writer: ChainWriter, number: int, flag: bool) -> None:
    prune(writer.ledger, [KeepLatest(number)], by=ME, now=day(0))


def step_over(writer: ChainWriter, number: int, flag: bool) -> None:
    state = writer.ledger.state()
    edge, head = state.edge or START, state.head.id if state.head else None
    skip(writer.ledger, edge, edge + timedelta(days=number), expected_head=head, by=ME, now=day(0), reason="bad")


def fill_a_hole(writer: ChainWriter, number: int, flag: bool) -> None:
    state = writer.ledger.state()
    if state.holes and state.head:
        hole = state.holes[number % len(state.holes)].hole
        first, days = (hole.start - START) // timedelta(days=1), (hole.end - hole.start) // timedelta(days=1)
        trained = [first + days - 1] if flag else range(first, first + days)
        missing = [each for each in range(first, first + days) if each not in trained]
        writer.commit(fills=True, split=split_of(first, days, missing))


def name_one(writer: ChainWriter, number: int, flag: bool) -> None:
    line = writer.ledger.line()
    if line:
        promote(writer.ledger, line[-1 - number % len(line)].id, "ab"[flag], by=ME, now=day(0))


ACTIONS = {
    "commit": advance,
    "rewind": go_back,
    "prune": drop,
    "skip": step_over,
    "fill": fill_a_hole,
    "promote": name_one,
}


@given(histories)
@settings(max_examples=60)
def test_legal_history_tiles_time_from_start_to_watermark(history: list[tuple[str, int, bool]]) -> None:
    with memory_writer() as writer:
        replay(writer, history)
        ledger = Ledger(writer.store, writer.chain)
        state, line = ledger.state(), ledger.line()
        report = audit(Ledger(writer.store, writer.chain), SAMPLES)
        head, entries = state.head, list(ledger.entries())
        eaten = lineage_of(CheckpointRef(writer.chain, head.id), lambda _: entries) if head else None

    assert report.problems == []
    steps = [(step.start, step.end) for step in eaten.partitions] if eaten else []
    assert len(set(steps)) == len(steps) == report.partitions
    assert (report.watermark, report.head_number) == (state.watermark, state.head_number)
    missing = sum((each.end - each.start) // timedelta(days=1) for each in report.holes)
    covered = report.partitions + missing
    assert covered == ((state.watermark - START) // timedelta(days=1) if state.watermark else 0)
    assert [each.hole.start for each in state.holes] == [each.start for each in report.holes]
    assert [each.start for each in state.skips] == [each.start for each in report.skips]
    assert (state.promoted, state.generation) == (report.promoted, report.rewinds)
    assert report.partitions == (line[-1].partitions if line else 0)


def numbers_of(ledger: Ledger) -> dict[str, int]:
    return {each.id: each.number for each in ledger.entries() if isinstance(each, Checkpoint)}


@given(histories, histories)
@settings(max_examples=40)
def test_numbers_of_checkpoints_stay_and_are_unique(
    history: list[tuple[str, int, bool]], later: list[tuple[str, int, bool]]
) -> None:
    with memory_writer() as writer:
        replay(writer, history)
        before = numbers_of(Ledger(writer.store, writer.chain))
        replay(writer, later)
        ledger = Ledger(writer.store, writer.chain)
        after, state = numbers_of(ledger), ledger.state()
        kept = {each.id: each.number for each in ledger.kept()}
        line = [each.number for each in ledger.line()]
        back = {each.id: each.number for each in line_from_head(ledger, state)}
        report = audit(Ledger(writer.store, writer.chain), SAMPLES)

    assert list(after.values()) == list(range(1, len(after) + 1))
    assert before.items() <= after.items()
    assert kept.items() <= after.items()
    assert back.items() <= after.items()
    assert line == sorted(line)
    assert (state.last_number, state.head_number) == (len(after), report.head_number)


@given(histories, st.integers(0, 14))
@settings(max_examples=40)
def test_fold_may_be_cut_anywhere(history: list[tuple[str, int, bool]], cut: int) -> None:
    with memory_writer() as writer:
        replay(writer, history)
        ledger = Ledger(writer.store, writer.chain)
        page_source = StorePages(writer.store, writer.chain)
        sealed = [each for batch in batches(writer.store, writer.chain, 1) for each in batch]
        parts: list[list[SealedEntry]] = [sealed[:cut], sealed[cut:]]
        state = ChainState()
        for part in parts:
            state = fold(state, part, page_source)

        assert state == ledger.state()


@given(histories, st.lists(policies, max_size=3), st.sets(st.integers(0, 13), max_size=3))
@settings(max_examples=60)
def test_retention_never_drops_head_nor_what_is_referred_to(
    history: list[tuple[str, int, bool]], chosen: list[Policy], pinned_places: set[int]
) -> None:
    with memory_writer() as writer:
        replay(writer, history)
        state, kept = writer.ledger.state(), writer.ledger.kept()
    pinned = {each.id for place, each in enumerate(kept) if place in pinned_places}

    going = removable(state, kept, chosen, pinned)

    assert state.head is None or state.head.id not in going
    assert {*pinned, *state.promoted.values()}.isdisjoint(going)
    assert len(set(going)) == len(going)
    assert set(going) <= {each.id for each in kept}
    for policy in chosen:
        assert policy.keep([each for each in kept if each.on_line]).isdisjoint(going)
    if not chosen:
        assert going == []


class Rival(Store):
    """Lets another process act just before the entry is created: the worst moment there is."""

    def __init__(self, inner: Store, act: Callable[[], object]) -> None:
        self.inner, self.url, self._act = inner, inner.url, act

    def __getattribute__(self, name: str) -> object:
        if name in ("inner", "url", "_act", "create_exclusive", "__class__"):
            return object.__getattribute__(self, name)
        return getattr(self.inner, name)

    def create_exclusive(self, path: str, data: bytes) -> None:
        act, self._act = self._act, lambda: None
        act()
        self.inner.create_exclusive(path, data)


Rival.__abstractmethods__ = frozenset()


@given(st.integers(0, 3), st.lists(st.booleans(), max_size=2 * len(STEPS)), st.booleans())
@settings(max_examples=60)
def test_racing_committers_one_wins(before: int, schedule: list[bool], at_the_worst_moment: bool) -> None:
    with memory_writer() as writer:
        writer.commit_many(before)
        parent = writer.ledger.state().head
        requests = [writer.request(parent=parent, days=2), writer.request(parent=parent, days=1)]
        store = writer.store
        if at_the_worst_moment:
            store = Rival(store, lambda: commit(writer.store, requests[1], day(9)))
        outcomes = race([Commit(Ledger(store, writer.chain), request, day(8)) for request in requests], schedule)
        head = Ledger(writer.store, writer.chain).state().head
        report = audit(Ledger(writer.store, writer.chain), SAMPLES)
        again = [outcome_of(lambda request=request: commit(writer.store, request, day(10))) for request in requests]

    assert sorted(type(each).__name__ for each in outcomes) == ["ChainMoved", "Checkpoint"]
    assert head in outcomes
    assert report.ok
    assert report.head_number == before + 1
    assert [type(each) for each in again] == [type(each) for each in outcomes]


def race(works: list[Commit], schedule: list[bool]) -> list[Checkpoint | ChainMoved]:
    """Run the steps of two commits in the order of `schedule`, then what is left of each."""
    places, outcomes = [0, 0], {}
    for turn in [*map(int, schedule), *([0] * len(STEPS)), *([1] * len(STEPS))]:
        work = works[turn]
        if turn in outcomes:
            continue
        result = outcome_of(lambda work=work, place=places[turn]: STEPS[place][1](work))
        places[turn] += 1
        if isinstance(result, ChainMoved):
            outcomes[turn] = result
        elif work.done is not None:
            outcomes[turn] = work.done
    return [outcomes[0], outcomes[1]]


def outcome_of(call: Callable[[], object]) -> object:
    try:
        return call()
    except ChainMoved as error:
        return error
