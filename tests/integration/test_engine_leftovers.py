"""What is swept from a home, and what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.control_plane import START, ControlPlane, control_plane, empty_task
from tests.support.embedded import embedded
from trainflow.engine.home_upkeep import OLD, UNUSED, sweep_home
from trainflow.messages.execution_api import Deferral, OutcomeState
from trainflow.metadata.database import Database
from trainflow.settings.home import Home

NOW = START
LONG_AGO = NOW - OLD - timedelta(seconds=1)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("runs"), empty_task("waits"), empty_task("ends"))
        yield plane


def old(path: Path, *, inside: str | None = None) -> Path:
    """A file, or a folder with a file, that was not touched for long."""
    file = path / inside if inside else path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")
    for each in {file, *([file.parent, path] if inside else [])}:
        os.utime(each, (LONG_AGO.timestamp(),) * 2)
    return path


def everything(home: Home, attempt: str, run: str = "r1") -> list[Path]:
    return [
        old(home.outcome(attempt, 0)),
        old(home.attempts_scratch / attempt, inside="output/model.bin"),
        old(home.run_scratch("d", run), inside="parent/model.bin"),
    ]


def test_sweep_removes_what_ended_and_keeps_what_is_under_way(plane: ControlPlane) -> None:
    home = plane.project.home
    plane.add_run("d")
    runs, waits, ends = plane.tick()
    plane.claim(runs)
    plane.play(waits, OutcomeState.DEFERRED, deferral=Deferral("m.T", {}, "execute_complete"))
    plane.play(ends)
    stays = [*everything(home, runs.key.attempt_id), *everything(home, waits.key.attempt_id)]
    goes = [*everything(home, ends.key.attempt_id, "over"), *everything(home, "UNKNOWN", "never heard of")]
    assert sorted(sweep_home(home, plane.database, NOW)) == sorted(goes)
    assert [path.exists() for path in stays] == [True] * 6
    assert [path.exists() for path in goes] == [False] * 6
    assert sweep_home(home, plane.database, NOW) == []


def test_sweep_keeps_what_was_touched_lately(plane: ControlPlane) -> None:
    """An attempt whose database was lost goes on training: it is told by its files."""
    home = plane.project.home
    paths = everything(home, "ORPHAN")
    for file in (paths[0], paths[1] / "output/model.bin", paths[2] / "parent/model.bin"):
        os.utime(file, ((NOW - OLD).timestamp(),) * 2)
    assert sweep_home(home, plane.database, NOW) == []
    assert all(path.exists() for path in paths)


def test_sweep_keeps_what_is_known_of_stores_until_it_is_long_unused(plane: ControlPlane) -> None:
    home = plane.project.home
    known = [old(folder / "a") for folder in (home.store_copies, home.store_probes, home.artifact_cache)]
    assert sweep_home(home, plane.database, NOW) == []
    for path in known:
        os.utime(path, ((NOW - UNUSED - timedelta(seconds=1)).timestamp(),) * 2)
    assert sorted(sweep_home(home, plane.database, NOW)) == sorted(known)


def test_home_without_leftovers_costs_no_question(plane: ControlPlane) -> None:
    nowhere = Database("sqlite:////nowhere/at/all.db")
    assert sweep_home(plane.project.home, nowhere, NOW) == []


def test_engine_sweeps_when_it_starts(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        project = plane.project
    paths = everything(project.home, "UNKNOWN")
    with embedded(project):
        assert not any(path.exists() for path in paths)
