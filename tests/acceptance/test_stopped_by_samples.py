"""A chain that its samples stopped goes on after a person's decision, which is in the ledger."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.live_project import LiveProject
from tests.support.tiny_project import FILE, NAME, PIPELINE, folder_of, publish, tiny_project
from trainflow.checkpoints.ledger.entries import Skip

pytestmark = pytest.mark.slow

#: the second and third day are missing, the sixth is empty
DAYS = 7
STRICT = PIPELINE.replace("  checks:", "  gaps: {then: fail}\n  ready: {unfinished: 0s}\n  checks:").replace(
    "pipeline: tiny", "pipeline: tiny\nretries: 0"
)


@pytest.fixture
def project(tmp_path: Path) -> LiveProject:
    made = tiny_project(tmp_path / "p", days=DAYS, pipeline=STRICT)
    for day in (1, 2):
        shutil.rmtree(folder_of(made, day))
    publish(made, 5, rows=0)
    return made


@pytest.mark.exhaustive
def test_skip_by_hand_leaves_out_missing_and_bad_partitions(project: LiveProject) -> None:
    ended = project.start(FILE)
    assert ended.code == 1
    assert "leave this one out: 'trainflow resume PIPELINE --skip'" in " ".join(ended.output.split())
    for option, says in (
        ("--accept", "Nothing was trained on it, so there is no checkpoint to accept"),
        ("--rewind=1", "To go back, 'trainflow checkpoints rewind "),
        ("--no-start", "There is nothing to record"),
    ):
        refused = project.ask("resume", FILE, option)
        told = " ".join(refused.output.split())
        assert refused.code == 2
        assert "tiny/main/main is stopped by its samples: 2024-01-02T00:00Z to 2024-01-04T00:00Z is missing" in told
        assert says in told
    ended = project.run("resume", FILE, "--skip", "--reason", "the source was down")
    # up to the day that is empty
    assert ended.code == 1, ended.output
    assert "2024-01-02T00:00Z to 2024-01-04T00:00Z is left out: it is missing" in ended.output
    plan = json.loads(project.ask("plan", FILE, "--json").output)
    assert (plan["outcome"], plan["runs"]) == ("stopped", [])
    ended = project.run("resume", FILE, "--skip")
    assert ended.code == 0, ended.output
    assert "2024-01-06T00:00Z to 2024-01-07T00:00Z is left out: it is not good" in ended.output
    refused = project.ask("resume", FILE, "--skip")
    assert (refused.code, "is stopped by a gate or by its samples" in " ".join(refused.output.split())) == (2, True)

    skips = [entry for entry in project.ledger(NAME).entries() if isinstance(entry, Skip)]
    assert [(skip.start.day, skip.end.day, bool(skip.by.person)) for skip in skips] == [(2, 4, True), (6, 7, True)]
    assert skips[0].reason == "the source was down"
    publish(project, 1)
    report = project.audit_command(NAME)
    assert (report["ok"], report["partitions"], report["gaps"], report["arrived"]) == (True, 4, 0, [])
    assert [each["start"][:10] for each in report["left_out"]] == ["2024-01-02", "2024-01-06"]
    assert "2024-01-02" in project.ask("repair", FILE, "--dry-run", "--skipped").output
    assert "--skipped trains what a gate or a person skipped" in project.ask("repair", FILE, "--dry-run").output


@pytest.mark.exhaustive
def test_person_leaves_out_what_cannot_be_read(project: LiveProject) -> None:
    publish(project, 1)
    publish(project, 2)
    publish(project, 5)
    file = next(folder_of(project, 1).glob("*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    ended = project.start(FILE)
    assert ended.code == 1
    assert "leave the partition out: 'trainflow resume PIPELINE --skip'" in " ".join(ended.output.split())
    ended = project.run("resume", FILE, "--skip")
    assert ended.code == 0, ended.output
    assert "2024-01-02T00:00Z to 2024-01-03T00:00Z is left out: it is not readable" in " ".join(ended.output.split())
    report = project.audit_command(NAME)
    assert (report["ok"], report["partitions"], report["gaps"]) == (True, DAYS - 1, 0)
