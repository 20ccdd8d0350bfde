"""Make chains quickly: a day a partition, a few bytes a checkpoint, no training."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.ledger.entries import (
    ArtifactFile,
    Artifacts,
    Author,
    Checkpoint,
    HoleRecord,
    SplitSummary,
    TrainedPartition,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.identifiers import digest
from trainflow.storage.store import Store

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class NoColumnUnifier:
    """What comes together of partitions whose files have no columns: for a table that is only imagined."""

    columns = ()

    def add(self, start: datetime) -> None:
        """Accept any partition."""


def day(number: int) -> datetime:
    """Start of day `number` (0: 2013-01-01)."""
    return START + number * DAY


def attempt_id(number: int) -> str:
    """An attempt id that is the same in every test run, made on day `number`."""
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    random = int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:10], "big")
    value = (int(day(number).timestamp() * 1000) << 80) | random
    return "".join(alphabet[(value >> shift) & 31] for shift in range(125, -1, -5))


def split_of(first: int, days: int = 1, skip: Sequence[int] = ()) -> SplitSummary:
    """A split of `days` days from day `first`; the days in `skip` are holes."""
    trained = [number for number in range(first, first + days) if number not in skip]
    return SplitSummary(
        start=day(first),
        end=day(first + days),
        partitions=[TrainedPartition(day(n), day(n + 1), fingerprint_of(day(n)), 10) for n in trained],
        holes=[HoleRecord(day(n), day(n + 1), "missing") for n in range(first, first + days) if n in skip],
        rows=10 * len(trained),
        bytes=100 * len(trained),
        digest=digest(b"%d %d" % (first, days)),
    )


def fingerprint_of(start: datetime) -> str:
    """What the partition that starts then was when it was trained."""
    return digest(start.isoformat().encode())


def append_many(ledger: Ledger, count: int, *trained: TrainedPartition) -> None:
    """Append `count` checkpoints of a day each that have no files: for ledgers too long to train. `trained`: what the
    first of them were trained on, where it is not imagined."""
    head = ledger.state().head
    first = (head.watermark - START) // DAY if head else 0
    for number in range(first, first + count):
        split = split_of(number)
        known = trained[number - first : number - first + 1]
        split = msgspec.structs.replace(split, partitions=list(known)) if known else split
        ledger.append(partial(_entry_of, ledger, number, split))


def _entry_of(ledger: Ledger, number: int, split: SplitSummary, state: ChainState) -> Checkpoint:
    name = attempt_id(state.sequence)
    return Checkpoint(
        **state.header(Author(f"run-{number}", name), split.end),
        id=name,
        number=state.last_number + 1,
        parent_id=state.head.id if state.head else None,
        watermark=split.end,
        split=split,
        artifacts=Artifacts(ledger.chain.attempt(name), [ArtifactFile("model.bin", 7, digest(name.encode()))]),
        metrics={"auc": 0.5, "loss": 1.0},
        evaluation={"auc": 0.5},
    )


def resealed(raw: dict[str, Any]) -> bytes:
    """An entry's file as a person forges it who knows about seals."""
    data = json.dumps({**raw, "seal": ""}).encode()
    return data.replace(b'"seal": ""', b'"seal": "%b"' % digest(data).encode(), 1)


class ChainWriter:
    """Commits one checkpoint after the other. `runs` counts the runs; each has its own attempt."""

    def __init__(self, store: Store, scratch: Path, chain: ChainKey | None = None) -> None:
        self.store = store
        self.scratch = scratch
        self.chain = chain or ChainKey("flights")
        self.ledger = Ledger(store, self.chain)
        self.runs = 0

    def request(
        self,
        *,
        parent: Checkpoint | None = None,
        days: int = 1,
        skip: Sequence[int] = (),
        files: Mapping[str, bytes] | None = None,
        run_id: str | None = None,
        split: SplitSummary | None = None,
        earlier: Sequence[Artifacts] = (),
        **others: Any,
    ) -> CommitRequest:
        """A request to commit a child of `parent`, its artifacts sealed. `skip` counts from the first day; `earlier`:
        of checkpoints of other chains that files may be shared with."""
        self.runs += 1
        attempt = attempt_id(self.runs)
        first = (parent.watermark - START) // DAY if parent else 0
        folder = output_folder(self.store, self.chain, attempt, self.scratch)
        for name, content in (files or {"model.bin": b"weights of " + attempt.encode()}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        of_parent = [parent.artifacts] if parent else []
        artifacts = seal(self.store, self.chain, attempt, folder, [*of_parent, *earlier])
        shutil.rmtree(folder)
        return CommitRequest(
            chain=self.chain,
            parent_id=parent.id if parent else None,
            split=split or split_of(first, days, [first + number for number in skip]),
            artifacts=artifacts,
            by=Author(run_id or f"run-{self.runs}", attempt),
            **others,
        )

    def commit(self, **request: Any) -> Checkpoint:
        """Commit a child of the head."""
        parent = request.pop("parent", None) or self.ledger.state().head
        made = commit(self.store, self.request(parent=parent, **request), day(self.runs))
        assert isinstance(made, Checkpoint)
        return made

    def commit_many(self, count: int, **request: Any) -> list[Checkpoint]:
        """Commit `count` checkpoints, one after the other."""
        return [self.commit(**request) for _ in range(count)]
