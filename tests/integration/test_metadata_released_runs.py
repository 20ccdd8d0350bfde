"""A run that was released: the next one starts, a few of them; its end and its clearing are as ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.messages.execution_api import OutcomeState
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries import run_queries
from trainflow.states import MOST_AHEAD, DagRunState


@pytest.fixture
def plane(tmp_path: Path, database_url: str | None) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, database_url=database_url) as plane:
        commit, export = empty_task("commit", role="commit"), empty_task("export", "commit", role="after_commit")
        plane.add_dag("d", commit, export, max_active_runs=1)
        yield plane


def taken(plane: ControlPlane) -> dict[tuple[str, str], ExecuteTask]:
    """What is handed over in the next ticks: (run, task) → workload."""
    found = [each for _ in range(4) for each in plane.tick()]
    return {(each.run_id, each.task_id): each for each in found}


def test_next_run_starts_once_commit_is_in(plane: ControlPlane) -> None:
    first = plane.add_run("d", "r1")
    plane.add_run("d", "r2")
    work = taken(plane)
    assert set(work) == {("r1", "commit")}

    plane.play(work["r1", "commit"])

    work = taken(plane)
    assert set(work) == {("r1", "export"), ("r2", "commit")}
    assert plane.run(first).released_at is not None
    plane.play(work["r1", "export"])
    plane.tick()
    assert plane.run(first).state == DagRunState.SUCCESS


def test_released_runs_beyond_limit_do_not_start(plane: ControlPlane) -> None:
    for number in range(MOST_AHEAD + 2):
        plane.add_run("d", f"r{number}")
    exports: dict[str, ExecuteTask] = {}
    for _ in range(MOST_AHEAD + 3):
        for (run, task), workload in taken(plane).items():
            if task == "commit":
                plane.play(workload)
            else:
                exports[run] = workload
    assert set(exports) == {f"r{number}" for number in range(MOST_AHEAD + 1)}

    # the second one ending changes nothing: it is the oldest that the others must not leave behind
    plane.play(exports["r1"])
    assert taken(plane) == {}
    plane.play(exports["r0"])

    assert set(taken(plane)) == {(f"r{MOST_AHEAD + 1}", "commit")}


def test_run_that_fails_after_its_commit_stops_no_other(plane: ControlPlane) -> None:
    first = plane.add_run("d", "r1")
    plane.play(taken(plane)["r1", "commit"])
    plane.play(taken(plane)["r1", "export"], OutcomeState.FAILED)
    for _ in range(3):
        plane.tick()

    plane.add_run("d", "r2")

    assert plane.run(first).state == DagRunState.FAILED
    assert set(taken(plane)) == {("r2", "commit")}


def test_clearing_takes_place_back(plane: ControlPlane) -> None:
    first = plane.add_run("d", "r1")
    plane.play(taken(plane)["r1", "commit"])
    taken(plane)
    plane.database.write(lambda connection: run_queries.clear(connection, first, plane.clock.now()))
    plane.scheduler.sweep()
    plane.add_run("d", "r2")

    assert plane.run(first).released_at is None
    assert set(taken(plane)) == {("r1", "commit")}
