"""Homes of workers: gone with them, and those of killed ones with the next that begins."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trainflow.executors.worker import sweep_worker_homes, worker_home
from trainflow.observability.processes import started_at
from trainflow.settings.home import Home

KILLED = """
import os, signal
from trainflow.executors.worker import worker_home
from trainflow.settings.home import Home
with worker_home() as home:
    (home / "logs").mkdir()
    Home(home).socket_path.parent.mkdir(mode=0o700, exist_ok=True)
    Home(home).socket_path.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_home_of_killed_worker_goes_when_the_next_begins(temporary: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = temporary.iterdir()
    assert Home(left).socket_path.exists()
    with worker_home() as home:
        assert list(temporary.iterdir()) == [home]
        # of one that lives
        sweep_worker_homes(temporary)
        assert home.is_dir()
    assert list(temporary.iterdir()) == []
    assert not Home(left).socket_path.exists()


def test_home_that_another_host_or_program_made_stays(temporary: Path) -> None:
    started = f"{started_at(os.getpid()):.0f}"
    names = [
        f"trainflow_worker_{os.getpid()}_0_another-host.x1",
        "trainflow_worker_notes",
        f"trainflow_worker_{os.getpid()}_{started}_{socket.gethostname()}.a_b",
    ]
    gone = f"trainflow_worker_{os.getpid()}_{int(started) + 1}_{socket.gethostname()}.a_b"
    for name in (*names, gone):
        (temporary / name).mkdir()
    sweep_worker_homes(temporary)
    assert sorted(path.name for path in temporary.iterdir()) == sorted(names)
