"""Runs that ended long ago are deleted with what belongs to them; what is needed stays."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import func, select, update

from tests.support.control_plane import START, ControlPlane
from trainflow.actions.database import Cleanup, clean_up, plan_cleanup
from trainflow.errors import InputError
from trainflow.messages.execution_api import OutcomeState, XComItem
from trainflow.metadata.models import METADATA
from trainflow.metadata.queries import outbox_queries, run_queries
from trainflow.metadata.queries.cleanup_queries import KEPT_RUNS
from trainflow.metadata.queries.run_queries import RUN
from trainflow.settings.outbox_channels import OutboxChannel
from trainflow.workspace.workspace import Workspace

AGE = timedelta(days=90)
LATER = START + timedelta(days=100)


def rows_of(plane: ControlPlane, table: str) -> int:
    """How many rows a table has."""
    with plane.database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(METADATA.tables[table])).scalar_one())


def end_runs(plane: ControlPlane, count: int, *, dag_id: str = "next", failed: int = 0) -> list[Path]:
    """Runs that end at once, the last `failed` of them badly; the logs of their attempts."""
    logs = []
    for number in range(count):
        plane.add_run(dag_id, f"r{number}")
        [work] = plane.tick()
        log = Path(work.log_path)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("trained\n")
        os.utime(log, (START.timestamp(),) * 2)
        logs.append(log)
        state = OutcomeState.FAILED if number >= count - failed else OutcomeState.SUCCESS
        plane.play(work, state, xcoms=[XComItem("return_value", msgspec.Raw(b"7"))])
        plane.tick()
    return logs


def cleaned(plane: ControlPlane) -> Cleanup:
    """The plan, which is what is done."""
    workspace = Workspace(plane.project, plane.settings, plane.database)
    plan = plan_cleanup(workspace, AGE, LATER)
    assert clean_up(workspace, AGE, LATER) == plan
    return plan


def test_what_a_run_has_triggered_that_stays_or_was_cleared_lately_stays(plane: ControlPlane) -> None:
    """Cleared once more, the run would trigger it a second time: a second line of runs beside the first."""
    end_runs(plane, KEPT_RUNS + 8, failed=KEPT_RUNS + 4)  # r3 is the last success
    with plane.database.transaction() as connection:
        numbers = {name: run_queries.get(connection, "next", name).id for name in ("r0", "r1", "r3", "r4", "r5", "r6")}
        for parent, child in (("r0", "r1"), ("r3", "r4"), ("r5", "r6")):
            statement = update(RUN).where(RUN.c.id == numbers[child])
            connection.execute(statement.values(parent_id=numbers[parent], parent_task_id="next", parent_map_index=-1))
        recent = update(RUN).where(RUN.c.id == numbers["r5"]).values(ended_at=LATER - timedelta(days=1))
        connection.execute(recent)
    [of_dag] = cleaned(plane).dags
    with plane.database.reading() as connection:
        kept = [name for name in numbers if run_queries.find(connection, "next", name) is not None]
    assert (of_dag.runs, kept) == (4, ["r3", "r4", "r5", "r6"])


def test_runs_that_ended_long_ago_are_deleted_with_what_belongs_to_them(plane: ControlPlane) -> None:
    logs = end_runs(plane, KEPT_RUNS + 3)
    [of_dag] = cleaned(plane).dags
    assert (of_dag.dag_id, of_dag.runs) == ("next", 3)
    assert [log.exists() for log in logs] == [False] * 3 + [True] * KEPT_RUNS
    assert not logs[0].parent.parent.exists()
    for table in ("dag_run", "task_instance", "attempt", "xcom"):
        assert rows_of(plane, table) == KEPT_RUNS, table
    assert cleaned(plane).dags == []


def test_next_run_after_cleanup_has_next_number(plane: ControlPlane) -> None:
    end_runs(plane, KEPT_RUNS + 3)
    cleaned(plane)
    assert plane.run(plane.add_run("next", "more")).number == KEPT_RUNS + 4


def test_run_that_ended_lately_or_not_at_all_stays(plane: ControlPlane) -> None:
    end_runs(plane, 2)
    running = plane.add_run("next", "running")
    [work] = plane.tick()
    plane.claim(work)
    plane.clock.advance(timedelta(days=99))
    for number in range(2, KEPT_RUNS + 4):
        plane.add_run("next", f"r{number}")
        for work in plane.tick():
            plane.play(work)
        plane.tick()
    [of_dag] = cleaned(plane).dags
    assert (of_dag.runs, of_dag.last_ended_at) == (2, START)
    assert plane.run(running).state == "running"


def test_last_success_of_chain_that_fails_since_stays(plane: ControlPlane) -> None:
    end_runs(plane, KEPT_RUNS + 5, failed=KEPT_RUNS + 3)
    [of_dag] = cleaned(plane).dags
    assert of_dag.runs == 4
    with plane.database.reading() as connection:
        assert run_queries.find(connection, "next", "r1") is not None


def test_run_that_a_system_outside_is_still_to_be_told_of_stays(plane: ControlPlane) -> None:
    end_runs(plane, KEPT_RUNS + 2)
    with plane.database.transaction() as connection:
        row = run_queries.get(connection, "next", "r0")
        outbox_queries.add(connection, (OutboxChannel.MLFLOW,), "run_finished", row, plane.clock.now())
    found = cleaned(plane)
    assert (found.awaited, [each.runs for each in found.dags]) == (1, [1])


def test_run_that_was_cleared_after_the_plan_stays(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    end_runs(plane, KEPT_RUNS + 1)
    workspace, write = Workspace(plane.project, plane.settings, plane.database), plane.database.write

    def cleared_first(work: object) -> object:
        with plane.database.transaction() as connection:
            run_queries.clear(connection, run_queries.get(connection, "next", "r0").id, LATER)
        return write(work)  # type: ignore[arg-type]

    monkeypatch.setattr(plane.database, "write", cleared_first)
    assert clean_up(workspace, AGE, LATER).dags == []
    assert rows_of(plane, "dag_run") == KEPT_RUNS + 1


def test_old_log_of_no_run_is_deleted_and_nothing_else_of_the_logs(plane: ControlPlane) -> None:
    [known] = end_runs(plane, 1)
    attempt = known.name.partition(".")[0]
    unknown = known.parent.parent / "gone" / f"{attempt[:-4]}0000.r0.a.log"
    rotated, fresh = unknown.with_suffix(".log.1"), unknown.with_suffix(".log.2")
    foreign = unknown.with_name("notes.log")
    unknown.parent.mkdir(parents=True)
    for path in (unknown, rotated, foreign, fresh):
        path.write_text("12345")
        os.utime(path, ((LATER if path is fresh else START).timestamp(),) * 2)
    found = cleaned(plane)
    assert (found.dags, found.logs, found.log_bytes) == ([], 2, 10)
    assert [path.exists() for path in (known, unknown, rotated, foreign, fresh)] == [True, False, False, True, True]


def test_cleanup_of_what_ended_today_is_refused(plane: ControlPlane) -> None:
    workspace = Workspace(plane.project, plane.settings, plane.database)
    with pytest.raises(InputError, match="at least 1d"):
        plan_cleanup(workspace, timedelta(hours=23), LATER)


def test_log_that_cannot_be_deleted_is_told_and_not_counted(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    end_runs(plane, KEPT_RUNS + 1)

    def refuse(_path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    found = clean_up(Workspace(plane.project, plane.settings, plane.database), AGE, LATER)
    assert ([each.runs for each in found.dags], found.logs, found.log_bytes) == ([1], 0, 0)
    assert "cannot be deleted: Permission denied" in caplog.text
