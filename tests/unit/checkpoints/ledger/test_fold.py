from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import (
    Adoption,
    ArtifactFile,
    Artifacts,
    Author,
    Checkpoint,
    CheckpointRef,
    Fork,
    HoleFilled,
    HoleRecord,
    LedgerEntry,
    Promotion,
    Prune,
    Rewind,
    Skip,
    SplitSummary,
    encode_entry,
)
from trainflow.checkpoints.ledger.fold import SealedEntry, fold, refusal
from trainflow.checkpoints.ledger.pages import PAGE, decode_page
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary, Page
from trainflow.checkpoints.ledger.tiling import split_problem
from trainflow.errors import LedgerCorrupt
from trainflow.identifiers import digest
from trainflow.testing.chains import day, split_of

ORIGIN = CheckpointRef(ChainKey("p", "main", "main"), "x")


class MemoryShelf:
    """Finds what a state does not hold in the book it is of."""

    def __init__(self, sealed: list[SealedEntry]) -> None:
        self.sealed = sealed
        self.pages: dict[str, bytes] = {}

    def checkpoint(self, summary: CheckpointSummary) -> Checkpoint:
        entry = self.sealed[summary.sequence - 1].entry
        assert isinstance(entry, Checkpoint)
        return entry

    def page(self, page: Page) -> list[CheckpointSummary]:
        return decode_page(page, self.pages[page.name])

    def put(self, page: Page, data: bytes) -> None:
        self.pages[page.name] = data


class Book:
    """A ledger in memory: adds entries without asking, and folds them."""

    def __init__(self) -> None:
        self.sealed: list[SealedEntry] = []
        self.shelf = MemoryShelf(self.sealed)

    @property
    def state(self) -> ChainState:
        return fold(ChainState(), self.sealed, self.shelf)

    def refusal(self, entry: LedgerEntry) -> str | None:
        return refusal(self.state, entry, self.shelf)

    @property
    def line(self) -> list[CheckpointSummary]:
        state = self.state
        older = [summary for page in state.pages for summary in self.shelf.page(page)]
        return [summary for summary in [*older, *state.recent] if summary.on_line]

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

    def fill(self, name: str, first: int, days: int = 1, parent: str = "c", **fields: Any) -> HoleFilled:
        """A child of `parent` that trains what was a hole; the watermark is day 6's, as in `book`."""
        split = fields.pop("split", None) or split_of(first, days, fields.pop("skip", ()))
        artifacts = Artifacts(f"p/{name}", [ArtifactFile("m", 7, "sha256:00")])
        known = {"id": name, "parent_id": parent, "watermark": day(6), "split": split, "artifacts": artifacts}
        found = self.next(HoleFilled, **known | fields)
        assert isinstance(found, HoleFilled)
        return found

    def skip(self, first: int, days: int = 1, parent: str | None = "c", **fields: Any) -> Skip:
        known = {"parent_id": parent, "start": day(first), "end": day(first + days), "reason": "bad data"}
        found = self.next(Skip, **known | fields)
        assert isinstance(found, Skip)
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


def test_empty_ledger_has_no_head() -> None:
    state = fold(ChainState(), [], Book().shelf)

    assert (state.head, state.sequence, state.head_sequence, state.watermark) == (None, 0, 0, None)


def test_newest_checkpoint_is_head(book: Book) -> None:
    state = book.state

    assert state.head is not None
    assert (state.head.id, state.sequence, state.watermark) == ("c", 3, day(6))
    assert [(each.id, each.number, each.partitions) for each in book.line] == [("a", 1, 2), ("b", 2, 4), ("c", 3, 5)]
    assert [(each.sequence, each.hole.start) for each in state.holes] == [(2, day(3))]


def test_score_on_unseen_samples_belongs_to_parent(book: Book) -> None:
    assert [(each.metrics, each.scores) for each in book.line] == [
        ({"auc": 0.5}, {"auc": 0.4}),
        ({}, {"auc": 0.6}),
        ({}, {}),
    ]


def test_prune_drops_line_of_checkpoint_and_not_head(book: Book) -> None:
    state = book.add(book.next(Prune, checkpoint_ids=["a"]))

    assert [each.id for each in state.recent] == ["b", "c"]
    assert state.last_pruned == ["a"]
    assert (state.sequence, state.head_sequence, state.watermark) == (4, 3, day(6))
    assert book.line[-1].partitions == 5


def test_rewind_makes_ancestor_head_and_forgets_later_holes(book: Book) -> None:
    state = book.add(book.next(Rewind, to_checkpoint_id="a"))

    assert state.head is not None
    assert (state.head.id, state.watermark, state.holes) == ("a", day(2), [])
    assert [(each.id, each.on_line) for each in state.recent] == [("a", True), ("b", False), ("c", False)]

    forward = book.add(book.checkpoint("d", 2, 3, "a"))

    assert [(each.id, each.number) for each in book.line] == [("a", 1), ("d", 2)]
    assert forward.watermark == day(5)


def test_rewind_to_before_first_starts_again_anywhere(book: Book) -> None:
    assert book.add(book.next(Rewind, to_checkpoint_id=None)).head is None

    assert book.add(book.checkpoint("z", 30)).watermark == day(31)


def test_folding_on_from_state_is_folding_it_all(book: Book) -> None:
    book.add(book.next(Prune, checkpoint_ids=["a"]))
    book.add(book.next(Rewind, to_checkpoint_id="b"))
    for cut in range(len(book.sealed) + 1):
        part = fold(ChainState(), book.sealed[:cut], book.shelf)
        again = msgspec.json.decode(msgspec.json.encode(part), type=ChainState)
        assert fold(again, book.sealed[cut:], book.shelf) == book.state


def test_checkpoint_chain_started_from_is_remembered() -> None:
    book = Book()
    feeding = [CheckpointRef(ChainKey("p", "one"), name) for name in "xy"]

    book.add(book.checkpoint("a", 40, origin=feeding[0]))
    state = book.add(book.checkpoint("b", 41, parent="a", origin=feeding[1]))

    assert (state.origins, state.bases) == ([feeding[0]], feeding)


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
        ("prune head", lambda b: b.next(Prune, checkpoint_ids=["c"]), "prunes the head"),
        ("prune unknown", lambda b: b.next(Prune, checkpoint_ids=["a", "y"]), "not kept: y"),
        ("prune nothing", lambda b: b.next(Prune, checkpoint_ids=[]), "prunes nothing"),
        ("prune twice", lambda b: b.next(Prune, checkpoint_ids=["a", "a"]), "twice"),
        ("rewind unknown", lambda b: b.next(Rewind, to_checkpoint_id="y"), "not a kept checkpoint"),
        ("rewind to head", lambda b: b.next(Rewind, to_checkpoint_id="c"), "not an ancestor"),
        ("fill not the head", lambda b: b.fill("f", 3, parent="b"), "its parent is b, the head is c"),
        ("fill moves on", lambda b: b.fill("f", 3, watermark=day(7)), "its watermark 2013-01-08"),
        ("fill what was trained", lambda b: b.fill("f", 2, 2), "[2013-01-03T00:00Z, 2013-01-04"),
        ("fill what is to come", lambda b: b.fill("f", 6), "which is no hole of the line"),
        ("fill with nothing", lambda b: b.fill("f", 3, skip=[3]), "no partition"),
        ("fill again as b", lambda b: b.fill("b", 3), "b is in the ledger already"),
        ("skip not the head", lambda b: b.skip(6, parent="b"), "its parent is b, the head is c"),
        ("skip later", lambda b: b.skip(7), "it skips from 2013-01-08"),
        ("skip what was trained", lambda b: b.skip(5), "it skips from 2013-01-06"),
        ("skip nothing", lambda b: b.skip(6, 0), "is empty or ends before it starts"),
        ("promote unknown", lambda b: b.next(Promotion, checkpoint_id="y", alias="best"), "not a kept checkpoint"),
        ("promote to nothing", lambda b: b.next(Promotion, checkpoint_id="c", alias=""), "promotes to no name"),
        ("fork later", lambda b: b.next(Fork, origin=ORIGIN, watermark=day(6)), "the first entry of a ledger or none"),
        (
            "adopt later",
            lambda b: b.next(Adoption, uri="s3://x", watermark=day(6), files=[ArtifactFile("m", 1, "sha256:0")]),
            "the first entry of a ledger or none",
        ),
    ]


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in _bad_entries()], ids=[case[0] for case in _bad_entries()]
)
def test_fold_illegal_entry_is_refused_on_write_and_corrupt_on_read(
    book: Book, make: Callable[[Book], LedgerEntry], message: str
) -> None:
    entry = make(book)

    assert message in (book.refusal(entry) or "")
    with pytest.raises(LedgerCorrupt, match="restore it from a backup") as caught:
        book.add(entry)
    assert message in str(caught.value)
    assert caught.value.location == f"ledger/{entry.sequence}"


def test_fold_rewound_checkpoint_is_no_target_and_empty_chain_cannot_rewind(book: Book) -> None:
    book.add(book.next(Rewind, to_checkpoint_id="a"))
    assert "not an ancestor" in (book.refusal(book.next(Rewind, to_checkpoint_id="b")) or "")

    book.add(book.next(Rewind, to_checkpoint_id=None))
    assert "no head" in (book.refusal(book.next(Rewind, to_checkpoint_id="a")) or "")


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
def test_split_that_does_not_tile_its_time_is_refused(change: dict[str, Any], message: str) -> None:
    good: SplitSummary = split_of(1, 4, skip=[2])
    assert split_problem(good) is None

    assert message in (split_problem(msgspec.structs.replace(good, **change)) or "")


def test_fold_filled_hole_reopens_by_rewind(book: Book) -> None:
    state = book.add(book.fill("f", 3))

    assert state.head is not None
    assert (state.head.id, state.watermark, state.holes) == ("f", day(6), [])
    assert (book.line[-1].partitions, book.line[-1].number) == (6, 4)
    assert "no hole" in (book.refusal(book.fill("g", 3, parent="f")) or "")

    state = book.add(book.next(Rewind, to_checkpoint_id="c"))

    assert [(each.sequence, each.hole.start) for each in state.holes] == [(2, day(3))]
    assert book.refusal(book.fill("g", 3)) is None


def test_fold_long_hole_is_filled_in_pieces(book: Book) -> None:
    book.add(book.checkpoint("d", 6, 6, "c", skip=[7, 8, 9, 10]))
    state = book.add(book.fill("f", 8, 3, parent="d", skip=[9], watermark=day(12)))

    assert [(each.hole.start, each.hole.end) for each in state.holes] == [
        (day(3), day(4)),
        (day(7), day(8)),
        (day(9), day(10)),
    ]
    assert "which is no hole" in (book.refusal(book.fill("g", 7, 2, parent="f", watermark=day(12))) or "")
    assert book.add(book.checkpoint("e", 12, parent="f")).watermark == day(13)


def test_fold_fill_before_training_is_refused() -> None:
    book = Book()
    book.add(book.skip(0, parent=None))

    assert "has no checkpoint" in (book.refusal(book.fill("f", 0, parent="x")) or "")


def test_fold_skip_moves_neither_head_nor_watermark(book: Book) -> None:
    book.add(book.skip(6))
    state = book.add(book.skip(7, 2))

    assert state.head is not None
    assert (state.head.id, state.watermark, state.edge) == ("c", day(6), day(9))
    assert state.skips == [HoleRecord(day(6), day(7), "bad data"), HoleRecord(day(7), day(9), "bad data")]
    for bad in (
        book.checkpoint("d", 6, 5, "c"),
        book.checkpoint("d", 6, 5, "c", skip=[6, 7]),
        book.checkpoint("d", 6, 2, "c", skip=[6]),
    ):
        assert "which a skip stepped over" in (book.refusal(bad) or "")
    assert "its split starts at" in (book.refusal(book.checkpoint("d", 9, 1, "c")) or "")

    state = book.add(book.checkpoint("d", 6, 5, "c", skip=[6, 7, 8]))

    assert (state.skips, state.watermark) == ([], day(11))
    assert [each.hole.start for each in state.holes] == [day(3), day(6), day(7), day(8)]


def test_skip_before_first_checkpoint_says_where_chain_begins() -> None:
    book = Book()
    book.add(book.skip(5, 2, parent=None))

    assert "the chain's beginning is" in (book.refusal(book.checkpoint("a", 7)) or "")
    assert book.add(book.checkpoint("a", 5, 3, skip=[5, 6])).watermark == day(8)


@pytest.mark.parametrize("target", ["c", "a", None], ids=["where the head is", "an ancestor", "the beginning"])
def test_rewind_takes_skips_back(book: Book, target: str | None) -> None:
    book.add(book.skip(6))
    book.add(book.fill("f", 3))
    assert book.state.skips

    state = book.add(book.next(Rewind, to_checkpoint_id=target, cause="person"))

    assert (state.skips, state.generation) == ([], 1)


def test_newest_promotion_of_name_counts_until_its_checkpoint_is_rewound(book: Book) -> None:
    for name, alias in [("a", "best"), ("c", "best"), ("b", "safe")]:
        state = book.add(book.next(Promotion, checkpoint_id=name, alias=alias))

    assert state.promoted == {"best": "c", "safe": "b"}
    assert "promoted to 'safe'" in (book.refusal(book.next(Prune, checkpoint_ids=["b"])) or "")
    assert book.refusal(book.next(Prune, checkpoint_ids=["a"])) is None

    state = book.add(book.next(Rewind, to_checkpoint_id="b"))

    assert state.promoted == {"safe": "b"}
    assert "a rewind left behind" in (book.refusal(book.next(Promotion, checkpoint_id="c", alias="best")) or "")
    assert book.refusal(book.next(Prune, checkpoint_ids=["c"])) is None


def test_alias_goes_back_to_who_had_it_before(book: Book) -> None:
    for name in ("a", "c"):
        book.add(book.next(Promotion, checkpoint_id=name, alias="best"))

    state = book.add(book.next(Rewind, to_checkpoint_id="b", promoted={"best": "a"}))
    assert (state.promoted, state.demoted) == ({"best": "a"}, {"best": ["c"]})

    state = book.add(book.next(Rewind, to_checkpoint_id=None))
    assert (state.promoted, state.demoted) == ({}, {"best": ["c", "a"]})

    book.add(book.checkpoint("z", 0))
    state = book.add(book.next(Promotion, checkpoint_id="z", alias="best"))
    assert (state.promoted, state.demoted) == ({"best": "z"}, {})


@pytest.mark.parametrize(("to", "again"), [("b", "c"), ("a", "b"), (None, "a"), ("b", "nobody")])
def test_alias_cannot_go_back_to_who_is_left_behind(book: Book, to: str | None, again: str) -> None:
    problem = book.refusal(book.next(Rewind, to_checkpoint_id=to, promoted={"best": again}))
    assert f"gives 'best' back to {again}" in (problem or "")


def test_fold_counts_rewinds(book: Book) -> None:
    assert book.state.generation == 0
    assert book.add(book.next(Rewind, to_checkpoint_id="a")).generation == 1
    book.add(book.checkpoint("d", 2, 1, "a"))
    assert book.add(book.next(Rewind, to_checkpoint_id=None)).generation == 2


def test_fold_fork_goes_on_with_watermark_and_weights_of_origin() -> None:
    book = Book()
    state = book.add(book.next(Fork, origin=ORIGIN, watermark=day(6), overrides={"depth": "3"}))

    assert (state.head, state.watermark, state.start) == (None, day(6), book.sealed[0].entry)
    assert state.bases == [ORIGIN]
    other = CheckpointRef(ORIGIN.chain, "y")
    for bad, message in [
        (book.checkpoint("a", 6), "its origin is None, the fork's is x"),
        (book.checkpoint("a", 6, origin=other), "its origin is y, the fork's is x"),
        (book.checkpoint("a", 7, origin=ORIGIN), "the chain's beginning is 2013-01-07"),
    ]:
        assert message in (book.refusal(bad) or "")
    feeding = CheckpointRef(ChainKey("p", "base"), "z")
    assert book.refusal(book.checkpoint("a", 6, origin=feeding)) is None

    book.add(book.checkpoint("a", 6, origin=ORIGIN))
    book.add(book.checkpoint("b", 7, parent="a"))
    state = book.add(book.next(Rewind, to_checkpoint_id=None))

    assert state.watermark == day(6)
    assert "its origin is None" in (book.refusal(book.checkpoint("c", 6)) or "")


def test_imported_chain_goes_on_at_its_watermark() -> None:
    book = Book()
    files = [ArtifactFile("model.bin", 1, "sha256:0")]
    assert "adopts no file" in (book.refusal(book.next(Adoption, uri="x", watermark=day(6), files=[])) or "")
    state = book.add(book.next(Adoption, uri="s3://old/20130106", watermark=day(6), files=files))

    assert (state.watermark, state.start) == (day(6), book.sealed[0].entry)
    assert "the chain's beginning is" in (book.refusal(book.checkpoint("a", 0)) or "")
    assert book.add(book.checkpoint("a", 6)).watermark == day(7)


def test_fold_long_chain_keeps_newest_and_pages_rest() -> None:
    book = Book()
    long_line(book, 5 * PAGE)
    state = book.state

    assert PAGE <= len(state.recent) < 2 * PAGE
    assert [page.count for page in state.pages] == [PAGE] * 4
    assert [each.id for each in book.line] == [f"c{number}" for number in range(5 * PAGE)]
    assert len(msgspec.json.encode(state)) < 400 * 2 * PAGE

    book.add(book.next(Prune, checkpoint_ids=["c3", f"c{5 * PAGE - 2}"]))
    assert [each.number for each in book.line][:4] == [1, 2, 3, 5]
    assert "not kept: c3" in (book.refusal(book.next(Prune, checkpoint_ids=["c3"])) or "")
    assert "not a kept checkpoint" in (book.refusal(book.next(Rewind, to_checkpoint_id="c3")) or "")


@pytest.mark.parametrize("target", [None, "c2", f"c{PAGE + 7}", f"c{5 * PAGE - 3}"])
def test_long_chain_may_be_rewound_however_far(target: str | None) -> None:
    book = Book()
    long_line(book, 5 * PAGE)
    book.add(book.next(Promotion, checkpoint_id="c1", alias="old"))
    book.add(book.next(Promotion, checkpoint_id=f"c{5 * PAGE - 1}", alias="new"))

    state = book.add(book.next(Rewind, to_checkpoint_id=target))

    left = 0 if target is None else int(target[1:]) + 1
    assert [each.id for each in book.line] == [f"c{number}" for number in range(left)]
    assert state.promoted == ({"old": "c1"} if left > 1 else {})
    assert book.add(book.checkpoint("new", left, 1, target)).watermark == day(left + 1)
    assert book.line[-1].number == left + 1


def test_fold_start_makes_no_difference_to_pages() -> None:
    book = Book()
    long_line(book, 3 * PAGE)
    book.add(book.next(Rewind, to_checkpoint_id="c10"))
    book.add(book.checkpoint("d", 11, 1, "c10"))
    book.add(book.next(Prune, checkpoint_ids=["c4"]))
    for cut in (1, PAGE, 2 * PAGE, 2 * PAGE + 1, 3 * PAGE, 3 * PAGE + 1, 3 * PAGE + 2):
        part = fold(ChainState(), book.sealed[:cut], book.shelf)
        again = msgspec.json.decode(msgspec.json.encode(part), type=ChainState)
        assert fold(again, book.sealed[cut:], book.shelf) == book.state


def long_line(book: Book, count: int) -> None:
    for number in range(count):
        entry = book.checkpoint(f"c{number}", number, 1, f"c{number - 1}" if number else None)
        book.sealed.append(SealedEntry(entry, f"sha256:{number}", f"ledger/{entry.sequence}"))
