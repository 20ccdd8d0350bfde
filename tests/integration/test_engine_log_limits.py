"""Logs of a home stay within the limits of the settings."""

from __future__ import annotations

from pathlib import Path

from tests.support.control_plane import control_plane, empty_task
from trainflow.api.attempt_logs import AttemptLogs
from trainflow.engine import home_upkeep
from trainflow.messages.execution_api import AppendLog
from trainflow.metadata import attempt_credentials
from trainflow.metadata.queries import attempt_queries
from trainflow.settings.model import LoggingSettings

SMALL = LoggingSettings(max_bytes=10, backup_count=1)


def filled(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0123456789abcdef")
    return path


def test_log_limits_apply_to_engine_and_running_attempts_only(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("runs"), empty_task("ends"))
        plane.add_run("d")
        runs, ends = plane.tick()
        plane.claim(runs)
        plane.play(ends)
        with plane.database.reading() as connection:
            logs = [attempt_queries.log_name(connection, each.key.attempt_id) for each in (runs, ends)]
        running, ended = (filled(plane.project.home.logs / (name or "")) for name in logs)
        engine = filled(plane.project.home.engine_log)

        assert home_upkeep.limit_logs(plane.project.home, plane.database, SMALL) == [engine, running]
        assert (running.read_bytes(), running.with_name(f"{running.name}.1").read_bytes()) == (b"", b"6789abcdef")
        assert ended.stat().st_size == 16
        assert home_upkeep.limit_logs(plane.project.home, plane.database, SMALL) == []


def test_apply_log_that_cannot_be_rotated_stops_nothing(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        log = filled(plane.project.home.engine_log)
        log.with_name("engine.log.1").mkdir()
        mlflow = filled(plane.project.home.logs / "mlflow.log")
        assert home_upkeep.limit_logs(plane.project.home, plane.database, SMALL) == [mlflow]


def test_log_that_is_handed_in_stays_within_the_limits_where_no_engine_looks_after_it(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        plane.add_dag("d", empty_task("a"))
        plane.add_run("d")
        (work,) = plane.tick()
        with plane.database.transaction() as connection:
            attempt_credentials.issue(connection, work.key)
        logs = AttemptLogs(plane.database, plane.project.home, SMALL)
        for offset, data in ((0, b"0123456789"), (10, b"abc"), (13, b"defg")):
            assert logs.append(AppendLog(work.key, offset, data)).size == offset + len(data)
        path = Path(work.log_path)
        assert (path.read_bytes(), path.with_name(f"{path.name}.1").read_bytes()) == (b"defg", b"3456789abc")
