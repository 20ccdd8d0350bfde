"""All that is ever done to a chain, in steps that may each be done again, and what must hold after it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind, skip
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.samples.spec import Samples
from trainflow.storage.store import Store
from trainflow.testing.chains import START, attempt_id, day, split_of

CHAIN = ChainKey("flights")


SAMPLES = Samples(path="{start:%Y%m%d}/", length_seconds=86_400, start=START)


ME = Author("person")


FAR = day(9_999)


class Work:
    """All that is ever done to a chain, in steps that may each be done again."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self.store = store
        self.scratch = scratch

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, CHAIN)

    def do(self) -> None:
        """Three checkpoints, the first pruned, the second promoted; a skip over day 3, a fill of day 1; swept."""
        first = self.train(1, None, split_of(0))
        second = self.train(2, first, split_of(1, 2, [1]))
        promote(self.ledger, second.id, "champion", by=ME, now=day(5))
        if self.ledger.state().head == second:
            skip(self.ledger, day(3), day(4), expected_head=second.id, by=ME, now=day(5), reason="bad")
        third = self.train(3, second, split_of(3, 2, [3]))
        fourth = self.train(4, third, split_of(1), fills=True)
        fifth = self.train(5, fourth, split_of(5))
        if self.ledger.state().head == fifth:
            rewind(self.ledger, fourth.id, expected_head=fifth.id, by=ME, now=day(6))
        prune(self.ledger, [KeepLatest(1)], by=ME, now=day(7))
        sweep_garbage(self.ledger, FAR, grace=timedelta(0))

    def train(self, number: int, parent: Checkpoint | None, split: Any, **others: Any) -> Checkpoint:
        """What run `number` does, at its first try or at a later one."""
        known = next((each for each in self.ledger.entries() if self._is_of(each, number)), None)
        if known is not None:
            return known
        attempt = attempt_id(number)
        folder = output_folder(self.store, CHAIN, attempt, self.scratch)
        (folder / "model.bin").write_bytes(b"weights of %d" % number)
        (folder / "notes.txt").write_bytes(b"of %d" % number)
        request = CommitRequest(
            chain=CHAIN,
            parent_id=parent.id if parent else None,
            split=split,
            artifacts=seal(self.store, CHAIN, attempt, folder),
            by=Author(f"run-{number}", attempt),
            **others,
        )
        made = commit(self.store, request, day(number))
        assert isinstance(made, Checkpoint)
        return made

    def _is_of(self, entry: object, number: int) -> bool:
        return isinstance(entry, Checkpoint) and entry.id == attempt_id(number)


def assert_sound(store: Store) -> None:
    """What has to hold at any moment."""
    report = audit(Ledger(store, CHAIN), SAMPLES)
    assert report.problems == []
    state = Ledger(store, CHAIN).state()
    assert (state.head.id if state.head else None, state.sequence) == (report.head_id, report.entries)


def assert_done(store: Store) -> None:
    """What the work comes to, however often it was begun."""
    report = audit(Ledger(store, CHAIN), SAMPLES)
    assert (report.problems, report.partitions, report.filled, report.watermark) == ([], 4, 1, day(5))
    assert [(hole.start, hole.reason) for hole in report.holes] == [(day(3), "missing")]
    assert report.promoted == {"champion": attempt_id(2)}
    assert [each.id for each in Ledger(store, CHAIN).kept()] == [attempt_id(2), attempt_id(4)]
    assert store.folders(CHAIN.artifacts) == sorted([attempt_id(2), attempt_id(4)])
