"""A project with a chain, for tests of commands that change its history."""

from __future__ import annotations

import pytest

from tests.support.command_line import CommandLine
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.settings.project import Project
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, split_of

YAML = """
pipeline: flights
samples:
  path: "data/date={start:%Y-%m-%d}/"
  length: 1d
  start: 2013-01-01
split: {partitions: 1}
train: {command: ["true"]}
retention: {keep_latest: 2, keep_weekly: 4}
"""


class History(CommandLine):
    """A project whose chain is written directly, a day a checkpoint."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(project, capsys)
        self.store = LocalStore(self.root / "checkpoints")
        self.main = ChainWriter(self.store, self.root / "scratch")

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, ChainKey("flights"))


def forked(history: History) -> ChainWriter:
    """main: [0, 4); deep: forked after day 1, [2, 5) with day 3 a hole."""
    made = [history.main.commit(evaluation={"auc": 0.5 + number / 10}) for number in range(4)]
    history.json("checkpoints", "fork", "flights", "--from", "2", "--branch", "deep")
    branch = ChainWriter(history.store, history.root / "deep", ChainKey("flights", "main", "deep"))
    origin = CheckpointRef(history.main.chain, made[1].id)
    branch.commit(split=split_of(2, 3, [3]), origin=origin, evaluation={"auc": 0.9})
    return branch
