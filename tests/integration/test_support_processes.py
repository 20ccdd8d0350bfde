"""What tests leave behind: no process, and no port that two of them have."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ports
from tests.support.live_project import LiveProject, close_all
from trainflow.testing.processes import wait_for

REPOSITORY = Path(__file__).parents[2]
OF_ANOTHER_PROCESS = """
import itertools
from tests.support import ports
ports._NEXT = itertools.count()
print(*(ports.free_port() for _ in range(3)))
"""


def test_close_all_command_that_runs_is_ended(tmp_path: Path) -> None:
    project = LiveProject(tmp_path / "project")
    running = project.begin("standalone")
    wait_for(lambda: len(project.processes()) > 1, lambda: running.output)

    close_all()

    assert running.ended
    assert project.processes() == []


def test_free_port_is_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_NEXT", itertools.count())
    here = [ports.free_port() for _ in range(3)]

    said = subprocess.run(
        [sys.executable, "-c", OF_ANOTHER_PROCESS], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert not set(here) & {int(port) for port in said.stdout.split()}
