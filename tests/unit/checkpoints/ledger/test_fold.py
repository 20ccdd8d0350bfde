from __future__ import annotations

import msgspec
import pytest

from tests.unit.checkpoints.ledger.book import ORIGIN, Book
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import (
    Adoption,
    ArtifactFile,
    CheckpointRef,
    Fork,
    HoleRecord,
    Promotion,
    Prune,
    Rewind,
)
from trainflow.checkpoints.ledger.fold import fold
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.testing.chains import day


def test_empty_ledger_has_no_head() -> None:
    state = fold(ChainState(), [], Book().page_source)

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

    assert [(each.id, each.number, each.place) for each in book.line] == [("a", 1, 1), ("d", 4, 2)]
    assert forward.watermark == day(5)


def test_rewind_to_before_first_starts_again_anywhere(book: Book) -> None:
    assert book.add(book.next(Rewind, to_checkpoint_id=None)).head is None

    assert book.add(book.checkpoint("z", 30)).watermark == day(31)


def test_folding_on_from_state_is_folding_it_all(book: Book) -> None:
    book.add(book.next(Prune, checkpoint_ids=["a"]))
    book.add(book.next(Rewind, to_checkpoint_id="b"))
    for cut in range(len(book.sealed) + 1):
        part = fold(ChainState(), book.sealed[:cut], book.page_source)
        again = msgspec.json.decode(msgspec.json.encode(part), type=ChainState)
        assert fold(again, book.sealed[cut:], book.page_source) == book.state


def test_checkpoint_chain_started_from_is_remembered() -> None:
    book = Book()
    feeding = [CheckpointRef(ChainKey("p", "one"), name) for name in "xy"]

    book.add(book.checkpoint("a", 40, origin=feeding[0]))
    state = book.add(book.checkpoint("b", 41, parent="a", origin=feeding[1]))

    assert (state.origins, state.upstreams) == ([feeding[0]], feeding)


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


@pytest.mark.parametrize(("to", "again"), [("b", "c"), ("a", "b"), (None, "a"), ("b", "missing")])
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
    assert state.upstreams == [ORIGIN]
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
