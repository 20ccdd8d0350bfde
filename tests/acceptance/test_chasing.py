"""Chase-latest: each partition is trained on as soon as it is ready, through stops and kills."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.support.live_project import LiveProject, Running
from tests.support.tiny_project import (
    FILE,
    NAME,
    PIPELINE,
    ROWS_A_DAY,
    folder_of,
    model,
    publish,
    tiny_project,
)
from trainflow.testing.processes import ProcessKind, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def chasing(tmp_path: Path) -> LiveProject:
    """Four days are there, and the table has no end."""
    pipeline = PIPELINE.replace("pipeline: tiny", "pipeline: tiny\nmode: latest").replace("  end: 2024-01-31\n", "")
    return tiny_project(tmp_path / "chasing", days=4, pipeline=pipeline)


def wait_for_commits(project: LiveProject, number: int, running: Running) -> None:
    def look() -> bool:
        if running.ended:
            raise AssertionError(f"ended ({running.process.returncode}):\n{running.output}")
        return project.committed(NAME) >= number

    wait_for(look, lambda: f"{number} commits:\n{running.output}\n{project.engine_log()}")


def deferred(project: LiveProject) -> int:
    """How many tasks wait in the triggerer."""
    database = sqlite3.connect(project.home.database)
    try:
        return int(database.execute("select count(*) from task_instance where state = 'deferred'").fetchone()[0])
    finally:
        database.close()


def assert_rows_of_days(project: LiveProject, days: int) -> None:
    report = project.audit(NAME)
    assert (report.problems, report.partitions) == ([], days)
    assert sorted(model(project)[0].tolist()) == list(range(days * ROWS_A_DAY))


@pytest.mark.exhaustive
def test_latest_mode_new_days_are_trained_through_stops_and_kills(chasing: LiveProject) -> None:
    running = chasing.begin_start(FILE)
    running.wait_for_output("caught up, waits")
    assert chasing.committed(NAME) == 2  # three days and one
    assert deferred(chasing) == 1
    # waiting holds no process: what was forked ahead ends when nothing comes
    wait_for(lambda: not chasing.processes(ProcessKind.CHILD), lambda: str(chasing.processes()))

    # a day that is there and not complete is not taken
    publish(chasing, 4, marker=False)
    publish(chasing, 5, marker=False)
    (folder_of(chasing, 4) / "_SUCCESS").touch()
    wait_for_commits(chasing, 3, running)
    assert_rows_of_days(chasing, 5)

    # the process in which the wait happens is killed
    wait_for(lambda: deferred(chasing) == 1, "the next wait")
    event_loop = chasing.wait_for_process(ProcessKind.EVENT_LOOP)
    event_loop.kill()
    (folder_of(chasing, 5) / "_SUCCESS").touch()
    wait_for_commits(chasing, 4, running)
    assert_rows_of_days(chasing, 6)
    assert chasing.wait_for_process(ProcessKind.EVENT_LOOP).pid != event_loop.pid

    # Ctrl-C while it waits; a day comes while no engine looks
    wait_for(lambda: deferred(chasing) == 1, "the next wait")
    running.control_c()
    ended = running.wait()
    assert ended.code == 130, ended.output
    chasing.wait_until_quiet()
    publish(chasing, 6)
    # the run that waits keeps the pipeline it began with, and that is said
    running = chasing.begin_start(FILE, "--set", "description=changed")
    wait_for_commits(chasing, 5, running)
    assert_rows_of_days(chasing, 7)
    running.wait_for_output("tiny: goes on with run ")
    running.wait_for_output("began before the pipeline was changed")

    # the engine is killed while it waits
    wait_for(lambda: deferred(chasing) == 1, "the next wait")
    running.kill()
    wait_for(lambda: not chasing.processes(), "an event loop without its triggerer to end")
    publish(chasing, 7)
    running = chasing.begin_start(FILE)
    wait_for_commits(chasing, 6, running)
    assert_rows_of_days(chasing, 8)

    running.signal(signal.SIGTERM)
    assert running.wait().code == 130
    chasing.wait_until_quiet()
    assert [each.split.start.day for each in chasing.checkpoints(NAME)] == [1, 4, 5, 6, 7, 8]


@pytest.mark.exhaustive
def test_latest_mode_day_published_by_renaming_folder_is_seen_whole(chasing: LiveProject) -> None:
    running = chasing.begin_start(FILE)
    running.wait_for_output("caught up, waits")
    built = publish(chasing, 4).rename(chasing.root / "being built")
    assert not folder_of(chasing, 4).exists()
    os.rename(built, folder_of(chasing, 4))
    wait_for_commits(chasing, 3, running)
    assert_rows_of_days(chasing, 5)
    running.control_c()
    assert running.wait().code == 130
