"""What is swept from a home, and what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.control_plane import START, ControlPlane, control_plane, empty_task
from tests.support.embedded import embedded
from trainflow.checkpoints.ledger.entries import Artifacts
from trainflow.engine.home_upkeep import OLD, UNUSED, HomeUpkeep, sweep_home
from trainflow.errors import EngineError
from trainflow.executors.reactor import Reactor
from trainflow.messages.execution_api import Deferral, OutcomeState
from trainflow.metadata.database import Database
from trainflow.operators.training.ended_training import read_ended, record_ended, record_uploaded
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


def test_sweep_keeps_what_was_trained_and_is_to_be_uploaded(plane: ControlPlane) -> None:
    """The store has been away for longer than a day; each try was an attempt of its own."""
    home = plane.project.home
    plane.add_run("d")
    trained, *_ = plane.tick()
    plane.claim(trained)
    output = old(home.attempts_scratch / trained.key.attempt_id, inside="output/model.bin")
    ended = record_ended(home.local_saves / "a", trained.key.attempt_id, output / "output", {})
    plane.report(trained, OutcomeState.PREEMPTED)
    (again,) = plane.tick()
    plane.claim(again)
    assert sweep_home(home, plane.database, NOW) == []
    assert read_ended(home.local_saves / "a", None) == ended
    record_uploaded(home.local_saves / "a", ended, Artifacts("p/main/main/artifacts/a", []))
    assert sweep_home(home, plane.database, NOW) == [output]


def test_sweep_that_fails_ends_no_engine_and_is_tried_again(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reactor = Reactor(plane.clock)
    none = dict.fromkeys(("_limit_logs", "_delete_runs"), lambda *_: None)
    for name, nothing in none.items():
        monkeypatch.setattr(HomeUpkeep, name, nothing)
    upkeep = HomeUpkeep(
        plane.project, plane.settings, plane.database, reactor, plane.clock, may_delete_runs=lambda _: False
    )
    left = old(plane.project.home.outcome("UNKNOWN", 0))
    for problem in (EngineError("the database is away"), PermissionError(1, "Operation not permitted")):
        with monkeypatch.context() as patched:
            if isinstance(problem, EngineError):
                patched.setattr(plane.database, "reading", _raising(problem))
            else:
                patched.setattr(Path, "unlink", _raising(problem))
            upkeep._sweep_leftovers()
        assert str(problem.args[-1]) in caplog.text
        assert left.exists()
    plane.clock.advance(OLD)
    os.utime(left, ((plane.clock.now() - OLD - timedelta(seconds=1)).timestamp(),) * 2)
    reactor.turn(0)
    assert not left.exists()
    reactor.close()


def _raising(error: Exception) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


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
