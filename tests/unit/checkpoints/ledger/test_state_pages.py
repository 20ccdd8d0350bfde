"""Of a long chain the state holds the newest checkpoints, pages the rest."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.checkpoints.ledger.book import Book
from trainflow.checkpoints.ledger.entries import (
    Promotion,
    Prune,
    Rewind,
)
from trainflow.checkpoints.ledger.fold import SealedEntry, fold
from trainflow.checkpoints.ledger.state import PAGE, ChainState
from trainflow.testing.chains import day


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
    assert (book.line[-1].place, book.line[-1].number) == (left + 1, 5 * PAGE + 1)


def test_fold_start_makes_no_difference_to_pages() -> None:
    book = Book()
    long_line(book, 3 * PAGE)
    book.add(book.next(Rewind, to_checkpoint_id="c10"))
    book.add(book.checkpoint("d", 11, 1, "c10"))
    book.add(book.next(Prune, checkpoint_ids=["c4"]))
    for cut in (1, PAGE, 2 * PAGE, 2 * PAGE + 1, 3 * PAGE, 3 * PAGE + 1, 3 * PAGE + 2):
        part = fold(ChainState(), book.sealed[:cut], book.page_source)
        again = msgspec.json.decode(msgspec.json.encode(part), type=ChainState)
        assert fold(again, book.sealed[cut:], book.page_source) == book.state


def long_line(book: Book, count: int) -> None:
    for number in range(count):
        entry = book.checkpoint(f"c{number}", number, 1, f"c{number - 1}" if number else None)
        book.sealed.append(SealedEntry(entry, f"sha256:{number}", f"ledger/{entry.sequence}"))
