"""The commands that change the history of a chain, or look far back into it, over a real store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trainflow.checkpoints.artifacts import output_folder
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.local_store import LocalStore
from trainflow.cli import main
from trainflow.execution.parse_file import parse_file
from trainflow.messages.workload import ParseFile
from trainflow.settings.project import Project
from trainflow.testing.chains import ChainWriter, attempt_id

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
LONG_AGO = datetime(2014, 1, 1, tzinfo=UTC).timestamp()


class History:
    """A project whose chain is written directly, a day a checkpoint."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = project.root
        self.store = LocalStore(self.root / "checkpoints")
        self.main = ChainWriter(self.store, self.root / "scratch")
        self._capsys = capsys

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, ChainKey("flights"))

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and what went to stdout (or, when that is nothing, to stderr)."""
        code = main.run(list(arguments))
        said = self._capsys.readouterr()
        return code, said.out or said.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        found, out = self.run(*arguments, "--json")
        assert found == code, out
        return json.loads(out)


def _parse_here(request: bytes, _path: Path, _seconds: float) -> bytes:
    return msgspec.json.encode(parse_file(msgspec.json.decode(request, type=ParseFile)))


@pytest.fixture
def history(
    write_project: Callable[[dict[str, str]], Project],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> History:
    """Files are parsed in this process, which takes a tenth of the time."""
    project = write_project({"pipelines/flights.yaml": YAML})
    monkeypatch.chdir(project.root)
    monkeypatch.syspath_prepend(str(project.root))
    monkeypatch.setattr("trainflow.cli.parsed._ask", _parse_here)
    return History(project, capsys)


# -- prune and sweep -----------------------------------------------------------------------------------------------


def test_prune_keeps_one_a_week_of_what_was_trained(history: History) -> None:
    # 2013-01-01 was a Tuesday: Sundays are the days 6, 13, 20
    made = [each.id for each in history.main.commit_many(16)]

    said = history.json("checkpoints", "prune", "flights", "--dry-run")
    assert (said["dry_run"], len(said["pruned"]), len(history.ledger.kept())) == (True, 12, 16)
    history.json("checkpoints", "prune", "flights")

    assert [each.id for each in history.ledger.kept()] == [made[5], made[12], made[14], made[15]]
    assert history.json("checkpoints", "prune", "flights")["pruned"] == []


def leave_behind(history: History, chain: ChainKey, number: int) -> Path:
    folder = output_folder(history.store, chain, attempt_id(number), history.root)
    (folder / "model.bin").write_bytes(b"12345")
    os.utime(folder / "model.bin", (LONG_AGO, LONG_AGO))
    return folder


def test_sweep_takes_what_dead_attempts_left_in_every_branch(history: History) -> None:
    history.main.commit_many(2)
    left = [leave_behind(history, ChainKey("flights", "main", branch), 50) for branch in ("main", "deeper")]
    other = leave_behind(history, ChainKey("nights"), 50)

    said = history.json("checkpoints", "sweep", "flights", "--dry-run")
    assert [each["chain"] for each in said["swept"]] == ["flights/main/main", "flights/main/deeper"]
    assert (said["bytes"], said["dry_run"], said["swept"][0]["kind"]) == (10, True, "orphan")
    assert all(folder.exists() for folder in left)
    code, out = history.run("checkpoints", "sweep", "flights", "--branch", "deeper")
    assert (code, "1 leftovers, 5 bytes deleted" in out) == (0, True)
    assert [folder.exists() for folder in left] == [True, False]

    history.json("checkpoints", "sweep", "flights")

    assert [folder.exists() for folder in (*left, other)] == [False, False, True]
    assert history.run("checkpoints", "sweep", "flights") == (0, "nothing to sweep\n")
    assert history.json("audit", "flights", "--no-samples")["ok"]


def test_sweep_leaves_the_young_alone_and_what_it_does_not_know(history: History) -> None:
    folder = leave_behind(history, ChainKey("flights"), 50)
    unknown = leave_behind(history, ChainKey("flights"), 51)
    unknown = unknown.rename(unknown.with_name("my-own-folder"))

    assert history.json("checkpoints", "sweep", "flights", "--grace", "100000d")["swept"] == []
    assert len(history.json("checkpoints", "sweep", "flights", "--grace", "36h")["swept"]) == 1
    assert (folder.exists(), unknown.exists()) == (False, True)
    code, said = history.run("checkpoints", "sweep", "flights", "--grace", "soon")
    assert (code, "--grace soon: 'soon' is not a duration" in said) == (2, True)


def test_sweep_spares_what_a_run_that_has_not_ended_made(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leave_behind(history, ChainKey("flights"), 50)
    monkeypatch.setattr("trainflow.cli.retention.living_attempts", lambda *_: {attempt_id(50)})

    assert history.json("checkpoints", "sweep", "flights")["swept"] == []
    assert folder.exists()
