"""What a look at a pipeline that trains says of the tasks of its run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.support.control_plane import control_plane, empty_task
from trainflow.insight.progress import _task_lines
from trainflow.messages.execution_api import OutcomeState


def test_task_is_at_work_in_its_attempts_and_not_between_them(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("train"), empty_task("next", "train"))
        run = plane.add_run("d")
        (work,) = plane.tick()
        plane.claim(work)
        plane.clock.advance(timedelta(seconds=30))
        plane.report(work, OutcomeState.PREEMPTED)
        plane.exit(work)
        plane.clock.advance(timedelta(hours=9))
        (again,) = plane.tick()
        plane.claim(again)

        with plane.database.reading() as connection:
            train, to_come = sorted(_task_lines(connection, run), key=lambda each: each.task_id, reverse=True)

    first, second = train.attempts
    assert first[1] is not None
    assert (first[1] - first[0], second[0] - first[1], second[1]) == (timedelta(seconds=30), timedelta(hours=9), None)
    assert to_come.attempts == []
