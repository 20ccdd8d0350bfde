"""What gates do to a chain, over a store that fails at any call and in a process that is killed at any step: once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.promote import Promote
from trainflow.errors import ChainStopped, StoreFailure
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.testing.chains import ChainWriter, day
from trainflow.testing.faulty_store import FaultyStore

#: what is trained → the kinds of the entries that come of it
OUTCOMES = {
    "stop": ["Stop"],
    "skip": ["Skip"],
    "rewind 1": ["Rewind"],
    "promote": ["Checkpoint", "Promotion", "Promotion"],
}
MOST_CALLS = 48


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    writer.commit_many(2, metrics={"auc": 0.7})
    return writer


def trained(writer: ChainWriter, what: str) -> CommitRequest:
    head = Ledger(writer.store, writer.chain).state().head
    if what == "promote":
        promotes = (Promote("champion", ("auc >= previous",)), Promote("newest"))
        return writer.request(parent=head, metrics={"auc": 0.8}, promotes=promotes)
    return writer.request(parent=head, metrics={"auc": 0.5}, gates=(Gate("auc >= 0.6", what),))


def concluded(writer: ChainWriter, what: str) -> None:
    entries = list(Ledger(writer.store, writer.chain).entries())
    assert [type(entry).__name__ for entry in entries] == ["Checkpoint", "Checkpoint", *OUTCOMES[what]]
    assert audit(Ledger(writer.store, writer.chain), None).problems == []


def commit_again(writer: ChainWriter, request: CommitRequest, number: int) -> None:
    with contextlib.suppress(ChainStopped):
        commit(writer.store, request, day(number))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", OUTCOMES)
def test_store_that_fails_at_any_call(tmp_path: Path, what: str, when: str) -> None:
    for fail_at in range(1, MOST_CALLS):
        folder = tmp_path / str(fail_at)
        writer = ChainWriter(LocalStore(folder / "store"), folder / "scratch")
        writer.commit_many(2, metrics={"auc": 0.7})
        request = trained(writer, what)
        faulty = FaultyStore(writer.store, fail_at=fail_at, when=when)  # type: ignore[arg-type]
        with contextlib.suppress(StoreFailure, ChainStopped):
            commit(faulty, request, day(8))

        for number in (9, 10):
            commit_again(writer, request, number)

        concluded(writer, what)
        if len(faulty.calls) < fail_at:
            return
    raise AssertionError(f"it makes more than {MOST_CALLS} calls: not every one was tried")


@pytest.mark.slow
@pytest.mark.parametrize("last", ["before link", "append"])
@pytest.mark.parametrize("what", OUTCOMES)
def test_process_killed_at_any_step(
    writer: ChainWriter, commit_and_die: Callable[[Store, CommitRequest, str], None], what: str, last: str
) -> None:
    request = trained(writer, what)

    commit_and_die(writer.store, request, last)

    for number in (6, 7):
        commit_again(writer, request, number)
    concluded(writer, what)
