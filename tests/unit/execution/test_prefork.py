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
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.settings.load import load_settings
from trainflow.settings.project import Project, project_at


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "trainflow.toml").write_text("")
    return project_at(tmp_path)


def test_rehearse_executes_its_task_nine_times(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[str] = []
    monkeypatch.setattr(BaseOperator, "post_execute", lambda self, _context, _result: executed.append(self.task_id))
    prefork.rehearse(project, load_settings(project))
    assert executed == ["task"] * 9


def test_rehearse_leaves_nothing_behind(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    def state() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
        return handlers, dict(os.environ), os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else ()

    before = state()
    prefork.rehearse(project, load_settings(project))
    assert state() == before
    assert sorted(path.name for path in project.root.rglob("*")) == ["configs", "trainflow.toml"]
    assert capfd.readouterr() == ("", "")


def test_rehearse_speaks_to_no_engine(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_args: object) -> None:
        raise AssertionError("it connects")

    monkeypatch.setattr(socket.socket, "connect", connect)
    prefork.rehearse(project, load_settings(project))


def test_warm_process_has_imported_nothing_that_makes_fork_dear() -> None:
    """`random` reseeds in each child; the others are read and kept for nothing in each."""
    dear = ("random", "tempfile", "subprocess", "pickle", "shutil", "jinja2", "asyncio", "pydantic", "pyarrow", "numpy")
    code = f"import sys, trainflow.execution.forkserver; print([name for name in {dear!r} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def _workload(task_id: str) -> ExecuteTask:
    key, source = AttemptKey(f"attempt of {task_id}"), DagSource("pipelines/a.py")
    return ExecuteTask(key, 0, "run", "dag", task_id, -1, source, "/", "/", "/dev/null")


def test_import_reports_take_a_task_once_its_child_has_said_so() -> None:
    reports, pid = prefork.ImportReports(), os.getpid()
    train = _workload("train")
    reports.await_from(pid, train)
    assert reports.take() == []
    report = reports.reporter(train)
    assert report is not None
    report()
    assert reports.take() == [train]
    # what is known is neither waited for nor said again
    assert reports.reporter(train) is None
    reports.await_from(pid, train)
    report()
    assert reports.take() == []


def test_import_reports_of_child_that_was_not_asked_or_has_ended_are_nothing() -> None:
    reports, train = prefork.ImportReports(), _workload("train")
    report = reports.reporter(train)
    assert report is not None
    report()
    assert reports.take() == []
    reports.await_from(os.getpid(), train)
    reports.forget(os.getpid())
    report()
    assert reports.take() == []
