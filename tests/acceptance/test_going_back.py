"""A base goes back, and so does what was trained from it: by the installed command, through a kill."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.live_project import LiveProject
from tests.support.tiny_project import FILE, NAME, PIPELINE, ROWS_A_DAY, folder_of, publish, tiny_project
from trainflow.checkpoints.ledger.ancestors import line_from_head
from trainflow.checkpoints.ledger.entries import Checkpoint, Rewind
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow

DAYS = 4
ONE_A_RUN = PIPELINE.replace("split: {partitions: 3}", "split: {partitions: 1}")
FAMILY = """\
stages:
  base: {samples: {republished: replay}}
  fine: {init_from: {stage: base}}
  once: {init_from: {stage: base, once: true}}
"""
CIRCLE = """\
stages:
  first: {init_from: {stage: second}}
  second: {init_from: {stage: first}}
"""


def line(project: LiveProject, stage: str) -> list[Checkpoint]:
    """From the first checkpoint to the head."""
    ledger = project.ledger(NAME, stage=stage)
    return list(line_from_head(ledger, ledger.state()))[::-1]


def contents(project: LiveProject, stage: str) -> list[tuple[Any, ...]]:
    """What each checkpoint of the line was trained on, by the digests of the samples, and the rows in its weights.
    Their order is another one each time that a split is trained anew."""
    return [(each.split.digest, sorted(rows(project, each))) for each in line(project, stage)]


def rows(project: LiveProject, entry: Checkpoint) -> list[int]:
    """The rows in the weights of a checkpoint, in the order they were trained on."""
    folder = project.ledger(NAME).store.local_path(entry.artifacts.path)
    assert folder is not None
    found: list[int] = np.load(folder / "rows.npy").tolist()
    return found


def rewinds(project: LiveProject, stage: str) -> list[str]:
    """Who asked for the rewinds of a chain."""
    return [entry.cause for entry in project.ledger(NAME, stage=stage).entries() if isinstance(entry, Rewind)]


def assert_each_row(project: LiveProject, stage: str, times: list[int]) -> None:
    """So often is each day in the weights of the head, whole."""
    report = project.audit(NAME, stage=stage)
    assert (report.problems, report.gaps, report.duplicates, report.holes) == ([], [], [], [])
    counts = np.bincount(rows(project, line(project, stage)[-1])).reshape(-1, ROWS_A_DAY)
    assert counts.tolist() == [[each] * ROWS_A_DAY for each in times]


@pytest.mark.exhaustive
def test_replay_of_republished_day_reaches_upstream_and_all_stages(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "replayed", days=DAYS, pipeline=ONE_A_RUN + FAMILY)
    assert project.start(FILE).code == 0
    shutil.rmtree(folder_of(project, 1))
    publish(project, 1, edition=1)

    # killed when the base has gone back, and the others have not
    project.write("hold", "")
    running = project.begin_start(FILE)
    wait_for(lambda: rewinds(project, "base") == ["replay"], lambda: running.output)
    project.kill_everything()
    (project.root / "hold").unlink()
    ended = project.start(FILE)
    assert ended.code == 0, ended.output
    project.wait_until_quiet()

    assert rewinds(project, "base") == ["replay"]
    assert rewinds(project, "fine") == rewinds(project, "once") == ["upstream"]
    undisturbed = tiny_project(tmp_path / "undisturbed", days=DAYS, pipeline=ONE_A_RUN + FAMILY, samples_of=project)
    assert undisturbed.start(FILE).code == 0
    for stage in ("base", "fine", "once"):
        assert contents(project, stage) == contents(undisturbed, stage)
    assert_each_row(project, "base", [1, 1, 1, 1])
    assert_each_row(project, "fine", [1, 1, 1, 2])
    assert_each_row(project, "once", [2, 2, 2, 2])
    # and there is nothing left to do
    entries = project.committed(NAME)
    assert project.start(FILE).code == 0
    assert project.committed(NAME) == entries


@pytest.mark.exhaustive
def test_stage_of_circle_is_rewound_and_circle_goes_round_again(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "circle", days=DAYS, pipeline=ONE_A_RUN + CIRCLE)
    assert project.start(FILE).code == 0
    before = [contents(project, stage) for stage in ("first", "second")]
    refused = project.ask("checkpoints", "rewind", FILE, "--stage", "second", "--to", "2")
    assert (refused.code, "--cascade rewinds them as well" in refused.output) == (2, True), refused.output
    ended = project.ask("checkpoints", "rewind", FILE, "--stage", "second", "--to", "2", "--cascade")
    assert ended.code == 0, ended.output
    # the first has trained on the third day from what is the head again
    assert [len(line(project, stage)) for stage in ("first", "second")] == [3, 2]

    assert project.start(FILE).code == 0
    assert [contents(project, stage) for stage in ("first", "second")] == before
    assert [rewinds(project, stage) for stage in ("first", "second")] == [["person"], ["person"]]
    assert_each_row(project, "second", [2, 2, 2, 2])


@pytest.mark.exhaustive
def test_replay_in_circle_of_stages_ends(tmp_path: Path) -> None:
    shared = ONE_A_RUN.replace("  checks:", "  republished: replay\n  checks:")
    project = tiny_project(tmp_path / "circle", days=DAYS, pipeline=shared + CIRCLE)
    assert project.start(FILE).code == 0
    shutil.rmtree(folder_of(project, 1))
    publish(project, 1, edition=1)
    assert project.start(FILE).code == 0

    undisturbed = tiny_project(tmp_path / "undisturbed", days=DAYS, pipeline=shared + CIRCLE, samples_of=project)
    assert undisturbed.start(FILE).code == 0
    for stage in ("first", "second"):
        assert contents(project, stage) == contents(undisturbed, stage)
    assert_each_row(project, "second", [2, 2, 2, 2])


@pytest.mark.exhaustive
def test_start_goes_on_after_cleared_run_whose_successor_has_ended(tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "tiny", days=DAYS, pipeline=ONE_A_RUN)
    assert project.start(FILE).code == 0
    assert project.ask("checkpoints", "rewind", NAME, "--to", "2").code == 0
    assert project.ask("runs", "clear", NAME, "3").code == 0

    ended = project.start(FILE, "--plain")

    assert ended.code == 0, ended.output
    assert "tiny: run 3 ended and triggered no other: going on with a new one" in ended.output
    assert [entry.split.start.day for entry in line(project, "main")] == [1, 2, 3, 4]
