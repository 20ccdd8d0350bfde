"""Samples that come late, or again: repaired and replayed by the installed command, through kills."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.live_project import LiveProject, Running
from tests.support.tiny_project import FILE, NAME, PIPELINE, ROWS_A_DAY, folder_of, model, publish, tiny_project
from trainflow.checkpoints.ledger.entries import HoleFilled, Rewind
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow

LATE = PIPELINE.replace("  checks:", "  gaps: {then: skip}\n  republished: replay\n  checks:")


@pytest.fixture
def late(tmp_path: Path) -> LiveProject:
    """Seven days, of which the fourth and the sixth are missing."""
    return _project(tmp_path, LATE)


@pytest.fixture
def chasing(tmp_path: Path) -> LiveProject:
    """The same, and the table has no end."""
    text = LATE.replace("pipeline: tiny", "pipeline: tiny\nmode: latest").replace("  end: 2024-01-31\n", "")
    return _project(tmp_path, text)


def _project(tmp_path: Path, pipeline: str) -> LiveProject:
    project = tiny_project(tmp_path / "late", days=7, pipeline=pipeline)
    for day in (3, 5):
        shutil.rmtree(folder_of(project, day))
    return project


def kill_while_it_trains(project: LiveProject, running: Running) -> None:
    """kill -9 of everything, in the middle of a training that is held up."""
    journal = project.root / "journal.txt"
    wait_for(lambda: journal.exists() and "holding" in journal.read_text(), lambda: running.output)
    project.kill_everything()
    (project.root / "hold").unlink()


def assert_every_row_once(project: LiveProject, days: int) -> None:
    report = project.audit(NAME)
    assert (report.problems, report.gaps, report.duplicates, report.holes) == ([], [], [], [])
    assert report.partitions == days
    rows, _ = model(project)
    assert sorted(rows.tolist()) == list(range(days * ROWS_A_DAY))


@pytest.mark.exhaustive
def test_repair_that_is_killed_fills_each_hole_once(late: LiveProject) -> None:
    assert late.start(FILE).code == 0
    assert [len(entry.split.partitions) for entry in late.checkpoints(NAME)] == [3, 2]
    assert "no partition of the 2 that tiny/main/main stepped over" in late.ask("repair", NAME).output
    publish(late, 3)
    publish(late, 5)
    shown = json.loads(late.ask("repair", NAME, "--dry-run", "--json").output)
    assert [each["partitions"] for each in shown["repairs"]] == [1, 1]
    assert (shown["repaired"], shown["holes"]) == (0, 2)

    (late.root / "hold").touch()
    kill_while_it_trains(late, late.begin("repair", NAME, "--plain"))
    ended = late.run("repair", NAME, "--plain")
    assert ended.code == 0, ended.output
    assert "no hole is left" in ended.output
    entries = list(late.ledger(NAME).entries())
    assert [type(entry) for entry in entries[2:]] == [HoleFilled, HoleFilled]
    assert_every_row_once(late, 7)
    assert late.start(FILE).code == 0
    assert len(list(late.ledger(NAME).entries())) == 4


@pytest.mark.exhaustive
def test_replay_killed_after_its_rewind_goes_on(late: LiveProject) -> None:
    for day in (3, 5):
        publish(late, day)
    assert late.start(FILE).code == 0
    publish(late, 4, edition=1)  # the same rows with other values
    late.write("hold", "")
    (late.root / "journal.txt").write_text("")
    kill_while_it_trains(late, late.begin_start(FILE))
    rewinds = [entry for entry in late.ledger(NAME).entries() if isinstance(entry, Rewind)]
    assert [entry.cause for entry in rewinds] == ["replay"]

    assert late.start(FILE).code == 0
    entries = [type(entry).__name__ for entry in late.ledger(NAME).entries()]
    assert entries == ["Checkpoint"] * 3 + ["Rewind"] + ["Checkpoint"] * 2
    assert_every_row_once(late, 7)


@pytest.mark.exhaustive
def test_run_that_waits_repairs_and_waits_on(chasing: LiveProject) -> None:
    running = chasing.begin_start(FILE, "--plain")
    running.wait_for_output("caught up, waits")
    publish(chasing, 3)
    ended = chasing.run("repair", NAME, "--json")
    assert ended.code == 0, ended.output
    report = json.loads(ended.output[ended.output.index("{") :])
    assert (report["repaired"], report["holes"], report["watermark"]) == (1, 1, "2024-01-08T00:00:00Z")
    publish(chasing, 5)
    assert chasing.run("repair", NAME).code == 0
    publish(chasing, 7)
    wait_for(lambda: chasing.committed(NAME) == 5, lambda: running.output)
    running.control_c()
    assert running.wait().code == 130
    assert_every_row_once(chasing, 8)
