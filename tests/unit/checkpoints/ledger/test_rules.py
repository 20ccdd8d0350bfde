"""Illegal entries are refused before they are written, and called corrupt when read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.unit.checkpoints.ledger.book import ORIGIN, Book
from trainflow.checkpoints.ledger.entries import (
    Adoption,
    ArtifactFile,
    Artifacts,
    Fork,
    LedgerEntry,
    Promotion,
    Prune,
    Rewind,
    SplitSummary,
)
from trainflow.checkpoints.ledger.rules import split_problem
from trainflow.errors import LedgerCorrupt
from trainflow.testing.chains import day, split_of


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
