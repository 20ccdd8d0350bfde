"""A throw-away project whose database is filled through the query functions, and the command line over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.command_line import run_command
from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.clock import ManualClock
from trainflow.executors import execution_socket
from trainflow.settings.project import MARKER


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without a database, the current folder."""
    (tmp_path / MARKER).parent.mkdir()
    (tmp_path / MARKER).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plane(folder: Path, clock: ManualClock) -> Iterator[ControlPlane]:
    """DAG `d`: a → b → c, with a param; no run yet."""
    with control_plane(folder, clock=clock) as plane:
        plane.add_dag(
            "d",
            empty_task("a"),
            empty_task("b", "a"),
            empty_task("c", "b"),
            max_active_runs=1,
            params={"rows": {"type": "integer", "default": 1}},
        )
        yield plane


@pytest.fixture
def nudged(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sockets of the engines that were told."""
    told: list[Path] = []
    monkeypatch.setattr(execution_socket, "nudge", told.append)
    return told


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = run_command(*arguments)
        return Said(code, *capsys.readouterr())

    return call
