"""Samples that are changed while their chain lives: every command says so, and the ways out lead out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command_line import CommandLine
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest, summary_of
from trainflow.checkpoints.ledger.entries import Author, Fork
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.identifiers import new_attempt_id
from trainflow.insight.chains.chain_status import chain_status_of
from trainflow.samples.grid import grid_of
from trainflow.samples.spec import Ready, Samples, SplitLimits
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.storage.local import LocalStore

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
YAML = """
pipeline: hours
samples:
  path: "{path}"
  length: {length}
  start: {start}
  ready: {{min_files: 1}}
  gaps: {{then: skip}}
train: {{command: ["true"]}}
"""
PATH = "data/{start:%Y-%m-%dT%H}/"


class Hours(CommandLine):
    """A table of hours, and a chain that was trained on it."""

    def edit(self, path: str = PATH, length: str = "1h", start: str = "2024-01-01T02:00") -> None:
        text = YAML.format(path=path, length=length, start=start)
        (self.root / "pipelines/hours.yaml").write_text(text)

    def write(self, *hours: int, folder: str = "data") -> None:
        for hour in hours:
            target = self.root / folder / f"{START + hour * HOUR:%Y-%m-%dT%H}"
            target.mkdir(parents=True)
            pq.write_table(pa.table({"x": [hour]}), target / "a.parquet")

    def samples(self, path: str = PATH, length: int = 3600, hour: int = 2) -> Samples:
        return Samples(path=path, length_seconds=length, start=START + hour * HOUR, ready=Ready(min_files=1))

    def train(self, samples: Samples | None = None, count: int = 1, branch: str = "main") -> None:
        """Commit what a run would have trained, `count` partitions."""
        samples = samples or self.samples()
        store, chain = LocalStore(self.root / "checkpoints"), ChainKey("hours", branch=branch)
        state, attempt = Ledger(store, chain).state(), new_attempt_id(NOW)
        head, fork = state.head, state.start if isinstance(state.start, Fork) else None
        start = head or fork
        found = next_split(samples, start.watermark if start else None, SplitLimits(partitions=count), NOW, self.root)
        assert isinstance(found, SplitFound)
        folder = output_folder(store, chain, attempt, self.root / "scratch")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model").write_text(attempt)
        request = CommitRequest(
            chain=chain,
            parent_id=head.id if head else None,
            split=summary_of(found.split),
            artifacts=seal(store, chain, attempt, folder),
            by=Author(attempt, attempt),
            grid=grid_of(samples),
            origin=fork.origin if fork else None,
        )
        commit(store, request, NOW)


@pytest.fixture
def hours(inside: Callable[..., Any]) -> Hours:
    line = inside(Hours, {"pipelines/hours.yaml": ""})
    assert isinstance(line, Hours)
    line.edit()
    line.write(2, 3, 4, 6)
    line.train(count=2)
    return line


def test_longer_length_is_refused_and_told_by_every_command(hours: Hours) -> None:
    hours.edit(length="2h")
    for command in ("plan", "audit"):
        said = " ".join(hours.said(command, "hours", code=1).split())
        assert "a partition was 1h long and is 2h" in said, command
    planned = hours.json("plan", "hours", code=1)
    assert (planned["outcome"], planned["runs"]) == ("stopped", [])


def test_chain_status_with_changed_samples_says_so(hours: Hours) -> None:
    """What `status` and `why` tell."""
    ledger = Ledger(LocalStore(hours.root / "checkpoints"), ChainKey("hours"))
    known = chain_status_of(ledger, hours.samples(length=7200), hours.root, NOW)
    assert "a partition was 1h long and is 2h" in str(known.samples_changed)
    assert (known.head_number, known.lag) == (1, None)
    assert chain_status_of(ledger, hours.samples(), hours.root, NOW).samples_changed is None


def test_regrid_goes_on_where_chain_ends(hours: Hours) -> None:
    hours.edit(length="2h")
    assert hours.json("regrid", "hours", "--dry-run")["entry"] is None
    done = hours.json("regrid", "hours", "--reason", "two hours a file")
    assert (done["old"]["length"], done["new"]["length"], done["entry"]) == ("1h", "2h", 2)
    assert "a partition was" not in hours.said("audit", "hours")
    assert [run["partitions"] for run in hours.json("plan", "hours")["runs"]] == [2]
    hours.train(hours.samples(length=7200), count=2)
    assert hours.json("audit", "hours")["partitions"] == 4
    assert "regrid at 2024-01-01T04:00Z" in hours.said("checkpoints", "ledger", "hours")
    assert "differ in nothing that matters" in hours.said("regrid", "hours")


def test_regrid_of_branch_is_by_the_samples_that_it_was_forked_with(hours: Hours) -> None:
    hours.json("checkpoints", "fork", "hours", "--branch", "deep", "--set", "samples.length=2h")
    hours.train(branch="deep")
    planned = hours.json("regrid", "hours", "--branch", "deep", "--dry-run")
    assert planned["new"]["length"] == "2h"
    assert hours.json("regrid", "hours", "--dry-run")["new"] is None


def test_regrid_that_would_leave_something_out_is_refused(hours: Hours) -> None:
    hours.write(5)
    hours.edit(length="2h")
    said = hours.said("regrid", "hours", code=2)
    assert "there is something for 2024-01-01T05:00Z, too" in said
    hours.edit(length="3h", start="2024-01-01T00:00")
    assert "where no partition of the new grid begins" in hours.said("regrid", "hours", code=2)


def test_earlier_start_is_trained_by_repair(hours: Hours) -> None:
    hours.write(0)
    hours.edit(start="2024-01-01T00:00")
    assert "'trainflow repair hours --earlier'" in " ".join(hours.said("plan", "hours", code=1).split())
    assert "is no hole yet" in hours.said("repair", "hours", "--earlier", "--dry-run", code=2)
    hours.said("regrid", "hours")
    assert hours.json("audit", "hours")["hole_list"][0]["end"].startswith("2024-01-01T02:00")
    (repair,) = hours.json("repair", "hours", "--dry-run")["repairs"]
    assert (repair["start"][:13], repair["partitions"]) == ("2024-01-01T00", 1)
    lines = hours.json("samples", "list", "hours")
    assert [each["state"] for each in lines][:4] == ["ready", "hole", "trained", "trained"]


def test_repair_earlier_with_more_than_earlier_start_is_refused(hours: Hours) -> None:
    hours.edit(start="2024-01-01T00:00", length="2h")
    assert "more than an earlier start" in hours.said("repair", "hours", "--earlier", code=2)


def test_later_start_another_end_and_other_spelling_change_nothing(hours: Hours) -> None:
    hours.edit(start="2024-01-01T03:00", path="data/{start:%FT%H}")
    assert hours.json("plan", "hours")["outcome"] != "stopped"
    assert hours.json("regrid", "hours")["new"] is None
    assert hours.json("audit", "hours")["ok"]


def test_table_that_has_moved_is_taken_by_its_content(hours: Hours) -> None:
    root = hours.root
    shutil.copytree(root / "data", root / "moved", copy_function=shutil.copyfile)
    hours.write(2, folder="other")
    for name, code in (("empty", 2), ("moved", 0)):
        hours.edit(path=PATH.replace("data/", f"{name}/"))
        found = hours.run("regrid", "hours", "--dry-run")
        assert found[0] == 0
        assert hours.run("regrid", "hours")[0] == code, name
    assert hours.json("audit", "hours")["ok"]
    assert hours.json("plan", "hours")["runs"][0]["partitions"] == 2
