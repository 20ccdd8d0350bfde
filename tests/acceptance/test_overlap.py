"""The next run starts once the checkpoint is in, while the slow tail of the one before goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live_project import LiveProject
from tests.support.tiny_project import (
    FILE,
    FUNCTIONS,
    NAME,
    PIPELINE,
    assert_trained_exactly_once,
    tiny_project,
)
from trainflow.states import MOST_AHEAD
from trainflow.testing.processes import wait_for

pytestmark = pytest.mark.slow

EXPORT = """

def export(ctx):
    hold("hold-export")
    note("exported", ctx.checkpoint.number, len(np.load(ctx.checkpoint.path / "rows.npy")))
"""
TAIL = 'after_commit:\n  - {name: export, function: "operators.tiny:export"}\n'


@pytest.fixture
def project(tmp_path: Path) -> LiveProject:
    project = tiny_project(tmp_path / "tail", days=18, pipeline=PIPELINE + TAIL)
    project.write("operators/tiny.py", FUNCTIONS + EXPORT)
    return project


def noted(project: LiveProject, what: str) -> list[list[str]]:
    return [words[1:] for words in project.journal() if words[0] == what]


@pytest.mark.exhaustive
def test_exports_are_not_waited_for(project: LiveProject) -> None:
    project.write("hold-export", "")
    running = project.begin_start(FILE)

    # the first export holds, and so many runs train and begin to export meanwhile
    wait_for(lambda: len(noted(project, "holding")) == MOST_AHEAD + 1, lambda: running.output)
    assert project.committed(NAME) == MOST_AHEAD + 1
    assert noted(project, "exported") == []
    (project.root / "hold-export").unlink()
    ended = running.wait()

    assert ended.code == 0, ended.output
    exported = sorted((int(number), int(rows)) for number, rows in noted(project, "exported"))
    assert exported == [(number, number * 120) for number in range(1, 7)]
    assert_trained_exactly_once(project, 18)
