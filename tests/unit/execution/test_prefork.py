"""What the warm process does before it forks the first attempt."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trainflow.authoring.operator import BaseOperator
from trainflow.execution import prefork
from trainflow.settings.load import load_settings
from trainflow.settings.project import Project, project_at


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "trainflow.toml").write_text("")
    return project_at(tmp_path)


def test_rehearsal_performed_in_full_executes_its_task_nine_times(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[str] = []
    monkeypatch.setattr(BaseOperator, "post_execute", lambda self, _context, _result: executed.append(self.task_id))
    prefork.Rehearsal(project, load_settings(project)).perform_all()
    assert executed == ["task"] * 9


def test_rehearsal_leaves_nothing_behind(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    def state() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
        return handlers, dict(os.environ), os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else ()

    before = state()
    prefork.Rehearsal(project, load_settings(project)).perform_all()
    assert state() == before
    assert sorted(path.name for path in project.root.rglob("*")) == ["configs", "trainflow.toml"]
    assert capfd.readouterr() == ("", "")


def test_rehearsal_speaks_to_no_engine(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_args: object) -> None:
        raise AssertionError("it connects")

    monkeypatch.setattr(socket.socket, "connect", connect)
    prefork.Rehearsal(project, load_settings(project)).perform_all()


def test_warm_process_has_imported_nothing_that_makes_fork_dear() -> None:
    """`random` reseeds in each child; the others are read and kept for nothing in each."""
    dear = ("random", "tempfile", "subprocess", "pickle", "shutil", "jinja2", "asyncio", "pydantic", "pyarrow", "numpy")
    code = f"import sys, trainflow.execution.forkserver; print([name for name in {dear!r} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
