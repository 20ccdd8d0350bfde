"""A project with a table of days, for tests of commands about chains and samples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command_line import CommandLine
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest, summary_of
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.identifiers import digest, new_attempt_id
from trainflow.samples.spec import Checks, GapPolicy, Samples, SplitLimits
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.settings.project import Project
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import resealed

START = datetime(2013, 1, 1, tzinfo=UTC)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


#: long before any clock that looks at it
WRITTEN = datetime(2014, 1, 1, tzinfo=UTC)


YAML = """
pipeline: days
samples:
  path: "data/date={start:%Y-%m-%d}/"
  length: 1d
  start: 2013-01-01
  end: 2013-01-15
  checks: {min_rows: 2, columns: {x: int64}}
  gaps: {then: skip}
split: {partitions: 3}
train: {command: ["true"]}
retention: {keep_latest: 2}
"""


PYTHON = """
from datetime import UTC, datetime

from trainflow import DAG
from trainflow.operators import CheckpointOperator, DataCheckerOperator, GapPolicy, Samples, SplitLimits

DAYS = Samples(
    path="data/date={start:%Y-%m-%d}/", length_seconds=86_400, start=datetime(2013, 1, 1, tzinfo=UTC),
    gaps=GapPolicy(then="skip"),
)

for name in ("days", "nights"):
    with DAG(f"{name}_py"):
        head = CheckpointOperator(pipeline=name)
        DataCheckerOperator(samples=DAYS, limits=SplitLimits(partitions=3), checkpoint=head.output)
"""


SAMPLES = Samples(
    path="data/date={start:%Y-%m-%d}/",
    length_seconds=86_400,
    start=START,
    end=START + timedelta(days=14),
    checks=Checks(min_rows=2, columns={"x": "int64"}),
    gaps=GapPolicy(then="skip"),
)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


class Days(CommandLine):
    """A project with a table of days, and a chain that is trained on it three days at a time."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(project, capsys)
        self.store = LocalStore(self.root / "checkpoints")
        self.ledger = Ledger(self.store, ChainKey("days"))

    def folder(self, number: int) -> Path:
        return self.root / f"data/date={day(number):%Y-%m-%d}"

    def publish(self, *numbers: int, rows: int = 5, marker: bool = True, column: str = "x") -> None:
        for number in numbers:
            self.folder(number).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({column: list(range(rows))}), self.folder(number) / "part.parquet")
            if marker:
                (self.folder(number) / "_SUCCESS").touch()
            for file in self.folder(number).iterdir():
                os.utime(file, (WRITTEN.timestamp(), WRITTEN.timestamp()))

    def train(self, runs: int = 1) -> list[Checkpoint]:
        """Commit `runs` checkpoints on what comes next."""
        return [self._train() for _ in range(runs)]

    def _train(self) -> Checkpoint:
        state = self.ledger.state()
        found = next_split(SAMPLES, state.watermark, SplitLimits(partitions=3), NOW, self.root)
        assert isinstance(found, SplitFound)
        attempt = new_attempt_id(NOW)
        folder = output_folder(self.store, self.ledger.chain, attempt, self.root / "scratch")
        (folder / "model.bin").write_bytes(f"weights of {attempt}".encode())
        request = CommitRequest(
            chain=self.ledger.chain,
            parent_id=state.head.id if state.head else None,
            split=summary_of(found.split),
            artifacts=seal(self.store, self.ledger.chain, attempt, folder),
            by=Author(run_id=f"run-{attempt}"),
            metrics={"auc": 0.75},
        )
        return commit(self.store, request, NOW)

    def entry(self, sequence: int) -> Path:
        path = self.store.local_path(self.ledger.chain.entry(sequence))
        assert path is not None
        return path

    def forge(self, sequence: int, change: Callable[[dict[str, Any]], None]) -> None:
        """Change an entry and mend every digest after it, as a person would who wants to hide it."""
        previous: str | None = None
        while self.entry(sequence).exists():
            raw = json.loads(self.entry(sequence).read_bytes())
            if previous is None:
                change(raw)
            else:
                raw["previous"] = previous
            self.entry(sequence).write_bytes(resealed(raw))
            previous = digest(self.entry(sequence).read_bytes())
            sequence += 1
