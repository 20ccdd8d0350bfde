from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.entries import (
    ArtifactFile,
    Artifacts,
    Author,
    Checkpoint,
    CheckpointRef,
    LedgerEntry,
    Prune,
    Rewind,
    SplitSummary,
    encode_entry,
)
from trainflow.checkpoints.fold import ChainState, CheckpointSummary, SealedEntry, fold, refusal, split_problem
from trainflow.errors import LedgerCorrupt
from trainflow.identifiers import digest
from trainflow.testing.chains import day, split_of

Edit = Callable[..., Any]


class Book:
    """A ledger in memory: adds entries without asking, and folds them."""

    def __init__(self) -> None:
        self.sealed: list[SealedEntry] = []

    @property
    def state(self) -> ChainState:
        return fold(ChainState(), self.sealed, self.recall)

    def recall(self, summary: CheckpointSummary) -> Checkpoint:
        entry = self.sealed[summary.sequence - 1].entry
        assert isinstance(entry, Checkpoint)
        return entry

    def next(self, kind: type[Any], **fields: Any) -> Any:
        last = self.sealed[-1] if self.sealed else None
        numbered = {"sequence": len(self.sealed) + 1, "previous": last.digest if last else ""}
        return kind(**{**numbered, "at": day(0), "by": Author(f"run{len(self.sealed)}")} | fields)

    def checkpoint(self, name: str, first: int, days: int = 1, parent: str | None = None, **fields: Any) -> Checkpoint:
        split = fields.pop("split", None) or split_of(first, days, fields.pop("skip", ()))
        artifacts = Artifacts(f"p/{name}", [ArtifactFile("m", 7, "sha256:00")])
        known = {"id": name, "parent_id": parent, "watermark": split.end, "split": split, "artifacts": artifacts}
        found = self.next(Checkpoint, **known | fields)
        assert isinstance(found, Checkpoint)
        return found

    def add(self, *entries: LedgerEntry) -> ChainState:
        for entry in entries:
            self.sealed.append(SealedEntry(entry, digest(encode_entry(entry)), f"ledger/{entry.sequence}"))
        return self.state


@pytest.fixture
def book() -> Book:
    """a [0, 2) → b [2, 5) with day 3 a hole → c [5, 6)"""
    book = Book()
    book.add(book.checkpoint("a", 0, 2, metrics={"auc": 0.5}))
    book.add(book.checkpoint("b", 2, 3, "a", skip=[3], evaluation={"auc": 0.4}))
    book.add(book.checkpoint("c", 5, 1, "b", evaluation={"auc": 0.6}))
    return book


def test_an_empty_ledger_has_no_head() -> None:
    state = fold(ChainState(), [], Book().recall)

    assert (state.head, state.sequence, state.head_sequence, state.watermark) == (None, 0, 0, None)


def test_the_newest_checkpoint_is_the_head(book: Book) -> None:
    state = book.state

    assert state.head is not None
    assert (state.head.id, state.sequence, state.watermark) == ("c", 3, day(6))
    assert [(each.id, each.number, each.partitions) for each in state.line] == [("a", 1, 2), ("b", 2, 4), ("c", 3, 5)]
    assert [(each.sequence, each.hole.start) for each in state.holes] == [(2, day(3))]


def test_a_score_on_unseen_samples_belongs_to_the_parent(book: Book) -> None:
    assert [(each.metrics, each.scores) for each in book.state.line] == [
        ({"auc": 0.5}, {"auc": 0.4}),
        ({}, {"auc": 0.6}),
        ({}, {}),
    ]


def test_a_prune_drops_the_line_of_a_checkpoint_and_not_the_head(book: Book) -> None:
    state = book.add(book.next(Prune, checkpoint_ids=["a"]))

    assert [each.id for each in state.checkpoints] == ["b", "c"]
    assert state.last_pruned == ["a"]
    assert (state.sequence, state.head_sequence, state.watermark) == (4, 3, day(6))
    assert state.line[-1].partitions == 5


def test_a_rewind_makes_an_ancestor_the_head_and_forgets_later_holes(book: Book) -> None:
    state = book.add(book.next(Rewind, to_checkpoint_id="a"))

    assert state.head is not None
    assert (state.head.id, state.watermark, state.holes) == ("a", day(2), [])
    assert [(each.id, each.on_line) for each in state.checkpoints] == [("a", True), ("b", False), ("c", False)]

    forward = book.add(book.checkpoint("d", 2, 3, "a"))

    assert [(each.id, each.number) for each in forward.line] == [("a", 1), ("d", 2)]
    assert forward.watermark == day(5)


def test_a_rewind_to_before_the_first_starts_again_anywhere(book: Book) -> None:
    assert book.add(book.next(Rewind, to_checkpoint_id=None)).head is None

    assert book.add(book.checkpoint("z", 30)).watermark == day(31)


def test_folding_on_from_a_state_is_folding_it_all(book: Book) -> None:
    book.add(book.next(Prune, checkpoint_ids=["a"]))
    book.add(book.next(Rewind, to_checkpoint_id="b"))
    for cut in range(len(book.sealed) + 1):
        part = fold(ChainState(), book.sealed[:cut], book.recall)
        again = msgspec.json.decode(msgspec.json.encode(part), type=ChainState)
        assert fold(again, book.sealed[cut:], book.recall) == book.state


def test_the_checkpoint_a_chain_started_from_is_remembered() -> None:
    book = Book()
    origin = CheckpointRef(ChainKey("p", "one"), "x")

    assert book.add(book.checkpoint("a", 40, origin=origin)).origins == [origin]


def _bad_entries() -> list[tuple[str, Callable[[Book], LedgerEntry], str]]:
    return [
        ("number", lambda b: b.checkpoint("d", 6, parent="c", sequence=5), "calls itself number 5, number 4 is due"),
        ("digest", lambda b: b.checkpoint("d", 6, parent="c", previous="sha256:0"), "digest of the entry before it"),
        ("not the head", lambda b: b.checkpoint("d", 5, parent="b"), "its parent is b, the head is c"),
        ("no parent", lambda b: b.checkpoint("d", 6), "its parent is none, the head is c"),
        ("gap", lambda b: b.checkpoint("d", 7, parent="c"), "its split starts at"),
        ("overlap", lambda b: b.checkpoint("d", 5, parent="c"), "its split starts at"),
        ("watermark", lambda b: b.checkpoint("d", 6, parent="c", watermark=day(9)), "is not the end of its split"),
        ("twice", lambda b: b.checkpoint("b", 6, parent="c"), "b is in the ledger already"),
        ("empty", lambda b: b.checkpoint("d", 6, parent="c", artifacts=Artifacts("x", [])), "no artifacts"),
        (
            "origin",
            lambda b: b.checkpoint("d", 6, parent="c", origin=CheckpointRef(ChainKey("p"), "x")),
            "an origin in another chain",
        ),
        ("prune head", lambda b: b.next(Prune, checkpoint_ids=["c"]), "prunes the head"),
        ("prune unknown", lambda b: b.next(Prune, checkpoint_ids=["a", "y"]), "not kept: y"),
        ("prune nothing", lambda b: b.next(Prune, checkpoint_ids=[]), "prunes nothing"),
        ("prune twice", lambda b: b.next(Prune, checkpoint_ids=["a", "a"]), "twice"),
        ("rewind unknown", lambda b: b.next(Rewind, to_checkpoint_id="y"), "not a kept checkpoint"),
        ("rewind to head", lambda b: b.next(Rewind, to_checkpoint_id="c"), "not an ancestor"),
    ]


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in _bad_entries()], ids=[case[0] for case in _bad_entries()]
)
def test_an_illegal_entry_is_refused_before_it_is_written_and_corrupt_when_read(
    book: Book, make: Callable[[Book], LedgerEntry], message: str
) -> None:
    entry = make(book)

    assert message in (refusal(book.state, entry) or "")
    with pytest.raises(LedgerCorrupt, match="restore it from a backup") as caught:
        book.add(entry)
    assert message in str(caught.value)
    assert caught.value.location == f"ledger/{entry.sequence}"


def test_what_a_rewind_left_behind_is_no_target_and_an_empty_chain_cannot_rewind(book: Book) -> None:
    book.add(book.next(Rewind, to_checkpoint_id="a"))
    assert "not an ancestor" in (refusal(book.state, book.next(Rewind, to_checkpoint_id="b")) or "")

    book.add(book.next(Rewind, to_checkpoint_id=None))
    assert "no head" in (refusal(book.state, book.next(Rewind, to_checkpoint_id="a")) or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partitions": []}, "no partition"),
        ({"start": day(0)}, "gap that no hole records"),
        ({"start": day(2)}, "overlaps"),
        ({"end": day(9)}, "says it ends at"),
        ({"holes": []}, "gap that no hole records"),
        ({"holes": split_of(1, 4, [2, 3]).holes}, "overlaps"),
        ({"partitions": split_of(1, 1).partitions, "holes": split_of(2, 2, [2, 3]).holes, "end": day(4)}, "hole"),
    ],
)
def test_a_split_that_does_not_tile_its_time_is_refused(change: dict[str, Any], message: str) -> None:
    good: SplitSummary = split_of(1, 4, skip=[2])
    assert split_problem(good) is None

    assert message in (split_problem(msgspec.structs.replace(good, **change)) or "")
