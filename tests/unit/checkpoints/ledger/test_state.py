"""The numbers that people call checkpoints by: the rule as a table."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests.unit.checkpoints.ledger.book import ORIGIN, Book
from trainflow.checkpoints.ledger.entries import (
    Adoption,
    ArtifactFile,
    Checkpoint,
    Fork,
    HoleFilled,
    Loss,
    Promotion,
    Prune,
    Rewind,
)
from trainflow.checkpoints.ledger.state import last_number, with_numbers
from trainflow.testing.chains import day

Add = Callable[[Book], None]


def commit(book: Book) -> None:
    """The next day, as a child of the head."""
    head = book.state.head
    first = 0 if head is None else (head.watermark - day(0)).days
    book.add(book.checkpoint(f"c{len(book.sealed) + 1}", first, 1, head.id if head else None))


def rewind(to: str | None) -> Add:
    return lambda book: book.add(book.next(Rewind, to_checkpoint_id=to)) and None


def prune(*names: str) -> Add:
    return lambda book: book.add(book.next(Prune, checkpoint_ids=list(names))) and None


def promote(book: Book) -> None:
    head = book.state.head
    assert head is not None
    book.add(book.next(Promotion, checkpoint_id=head.id, alias="a"))


def fork(number: int) -> Add:
    return lambda book: book.add(book.next(Fork, origin=ORIGIN, watermark=day(0), number=number)) and None


def adopt(book: Book) -> None:
    book.add(book.next(Adoption, uri="x", watermark=day(0), files=[ArtifactFile("m", 7, "sha256:00")]))


def lose(first: int, last: int) -> Add:
    def add(book: Book) -> None:
        head = book.state.head
        parent_id = head.id if head else None
        known = {"parent_id": parent_id, "first": first, "last": last, "checkpoint_ids": [], "evidence": []}
        book.add(book.next(Loss, **known))

    return add


def begin_branch(book: Book) -> None:
    """The first checkpoint of a branch: it was trained from what the branch was forked from."""
    book.add(book.checkpoint("first", 0, 1, None, origin=ORIGIN))


@pytest.mark.parametrize(
    ("steps", "numbers", "line"),
    [
        ([commit] * 3, [1, 2, 3], [1, 2, 3]),
        pytest.param([commit, commit, promote, commit, prune("c1"), commit], [2, 3, 4], [2, 3, 4], id="other entries"),
        pytest.param([commit] * 3 + [prune("c1", "c2"), commit], [3, 4], [3, 4], id="pruned keep theirs"),
        pytest.param([commit] * 3 + [rewind("c1"), commit], [1, 2, 3, 4], [1, 4], id="undone keep theirs"),
        pytest.param([commit, commit, rewind(None), commit], [1, 2, 3], [3], id="rewound to the beginning"),
        pytest.param([commit, commit, rewind("c1"), commit, rewind("c1"), commit], [1, 2, 3, 4], [1, 4], id="twice"),
        pytest.param([fork(23), begin_branch, commit], [24, 25], [24, 25], id="a branch counts on"),
        pytest.param([fork(23), begin_branch, rewind(None), begin_branch], [24, 25], [25], id="branch rewound"),
        pytest.param([fork(0), begin_branch], [1], [1], id="a branch of before numbers"),
        pytest.param([adopt, commit], [1], [1], id="adopted weights have none"),
        pytest.param([commit, commit, lose(3, 6), commit], [1, 2, 7], [1, 2, 7], id="lost ones may have had some"),
    ],
)
def test_number_of_each_checkpoint_follows_rule(steps: list[Add], numbers: list[int], line: list[int]) -> None:
    book = Book()
    for number, step in enumerate(steps):
        if step is begin_branch and number > 1:
            book.add(book.checkpoint("again", 0, 1, None, origin=ORIGIN))
        else:
            step(book)

    assert [each.number for each in book.state.recent] == numbers
    assert [each.number for each in book.line] == line
    assert book.state.head_number == line[-1]
    assert book.state.last_number == numbers[-1]


def test_filled_hole_is_checkpoint_with_next_number() -> None:
    book = Book()
    book.add(book.checkpoint("a", 0, 2))
    book.add(book.checkpoint("b", 2, 3, "a", skip=[3]))
    book.add(book.checkpoint("c", 5, 1, "b"))

    state = book.add(book.fill("d", 3))

    assert isinstance(state.head, HoleFilled)
    assert state.head.number == 4


@pytest.mark.parametrize("said", [1, 3, 47])
def test_entry_that_says_another_number_is_refused(said: int) -> None:
    book = Book()
    book.add(book.checkpoint("a", 0, 1))

    problem = book.refusal(book.checkpoint("b", 1, 1, "a", number=said))

    assert problem == f"it calls itself checkpoint {said}, checkpoint 2 is due"


def test_checkpoint_that_is_committed_again_keeps_its_number() -> None:
    book = Book()
    book.add(book.checkpoint("a", 0, 1, number=1))
    lose(2, 4)(book)

    book.add(book.checkpoint("b", 1, 1, "a", number=3, recovered=3))
    commit(book)

    assert [each.number for each in book.line] == [1, 3, 5]


def test_number_that_line_has_passed_is_no_recovered_ones() -> None:
    book = Book()
    book.add(book.checkpoint("a", 0, 1, number=1))

    assert book.refusal(book.checkpoint("b", 1, 1, "a", number=1, recovered=3)) is not None


def test_entries_that_do_not_say_it_are_numbered_alike() -> None:
    book = Book()
    for step in [*[commit] * 3, rewind("c2"), commit, commit]:
        step(book)
    entries = [each.entry for each in book.sealed]

    said = [each.number for each in with_numbers(entries) if isinstance(each, Checkpoint)]

    assert said == [1, 2, 3, 4, 5]
    assert all(each.number == 0 for each in entries if isinstance(each, Checkpoint))


def test_numbers_go_on_from_any_entry() -> None:
    book = Book()
    for step in [*[commit] * 2, rewind("c1"), *[commit] * 3]:
        step(book)
    entries = list(with_numbers([each.entry for each in book.sealed]))
    bare = [msgspec.structs.replace(each, number=0) if isinstance(each, Checkpoint) else each for each in entries]

    for cut in range(len(entries) + 1):
        last = 0
        for each in bare[:cut]:
            last = last_number(last, each)
        assert list(with_numbers(bare[cut:], last)) == entries[cut:]
