"""Logs of attempts in a store: sent from the home in which they are written, read in any other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from tests.support.local_object_stores import LocalS3
from tests.support.log_stores import plane_with_log_store, uploads
from trainflow.engine import log_uploads
from trainflow.errors import StoreFailure
from trainflow.insight.runs.logs import LogSource, StoredLog, log_source
from trainflow.insight.runs.tasks import attempt_log
from trainflow.messages.execution_api import Deferral, OutcomeState
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries import trigger_queries
from trainflow.observability.log_files import rotate
from trainflow.settings.home import Home
from trainflow.settings.model import LogStoreSettings, Settings
from trainflow.settings.project import Project
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.testing.processes import DEADLINE_SECONDS
from trainflow.workspace.workspace import Workspace


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with plane_with_log_store(tmp_path) as plane:
        yield plane


@pytest.fixture
def work(plane: ControlPlane) -> ExecuteTask:
    plane.add_run("d")
    (work,) = plane.tick()
    plane.claim(work)
    return work


def write(work: ExecuteTask, text: str) -> Path:
    path = Path(work.log_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)
    return path


def elsewhere(plane: ControlPlane) -> LogSource:
    """The log, as another host finds it: another home, the same database."""
    home = Home(plane.project.root.parent / "other")
    workspace = Workspace(Project(plane.project.root, home), plane.settings, plane.database)
    return log_source(workspace, attempt_log(workspace, "d", "r1", "a", None))


def whole(source: LogSource) -> bytes:
    return b"".join(each.read(0, 1 << 20).data for each in [*source.rotated(), source])


def test_log_is_read_elsewhere_while_it_grows_and_when_it_has_ended(plane: ControlPlane, work: ExecuteTask) -> None:
    sending = uploads(plane)
    assert whole(elsewhere(plane)) == b""
    write(work, "one\n")
    sending.look()
    source = elsewhere(plane)
    first = source.read(0)
    assert first.data == b"one\n"
    assert source.read(first.position).data == b""
    plane.clock.advance(timedelta(seconds=60))
    write(work, "two\n")
    plane.report(work)
    sending.look()
    assert source.read(first.position).data == b"two\n"
    assert "logs" in source.place


def test_log_of_attempt_that_began_and_ended_between_two_looks_is_sent(plane: ControlPlane) -> None:
    sending = uploads(plane)
    sending.look()
    plane.add_run("d")
    (work,) = plane.tick()
    write(work, "short\n")
    plane.play(work)
    sending.look()
    assert whole(elsewhere(plane)) == b"short\n"
    # what it has printed last comes after its end is known
    write(work, "at the exit\n")
    sending.look()
    assert whole(elsewhere(plane)) == b"short\nat the exit\n"
    plane.clock.advance(timedelta(seconds=61))
    sending.look()
    assert (sending._names, sending._sent) == ({}, {})


def test_log_of_attempt_that_went_on_after_a_wait_between_two_looks_is_sent(
    plane: ControlPlane, work: ExecuteTask
) -> None:
    sending = uploads(plane)
    write(work, "waits\n")
    plane.report(work, OutcomeState.DEFERRED, deferral=Deferral("tests.Trigger", {}, "execute_complete", {}))
    sending.look()
    plane.clock.advance(timedelta(hours=3))
    sending.look()
    assert sending._names == {}
    with plane.database.transaction() as connection:
        trigger = connection.execute(select(trigger_queries.TRIGGER.c.id)).scalar_one()
        trigger_queries.fire(connection, trigger, msgspec.Raw(b"null"), plane.clock.now())
    plane.scheduler.sweep()
    (resumed,) = plane.tick()
    write(work, "went on\n")
    plane.play(resumed)
    sending.look()
    assert whole(elsewhere(plane)) == b"waits\nwent on\n"


def test_log_of_attempt_of_a_scheduler_whose_clock_is_behind_is_sent(plane: ControlPlane) -> None:
    sending = uploads(plane)
    plane.clock.advance(timedelta(seconds=50))
    plane.add_run("d", "r0")
    plane.play(*plane.tick())
    sending.look()
    plane.clock.advance(timedelta(seconds=-50))
    plane.add_run("d")
    (work,) = plane.tick()
    write(work, "short\n")
    plane.play(work)
    plane.clock.advance(timedelta(seconds=60))
    sending.look()
    assert whole(elsewhere(plane)) == b"short\n"


def test_rotated_parts_are_read_in_their_order(plane: ControlPlane, work: ExecuteTask) -> None:
    sending = uploads(plane)
    path = write(work, "0123456789")
    rotate(path, 5, 2)
    write(work, "abcdefghij")
    rotate(path, 5, 2)
    write(work, "end")
    plane.report(work)
    sending.look()
    assert whole(elsewhere(plane)) == b"56789fghijend"


def test_log_that_has_become_shorter_is_read_from_its_beginning(plane: ControlPlane, work: ExecuteTask) -> None:
    sending = uploads(plane)
    path = write(work, "0123456789")
    sending.look()
    source = elsewhere(plane)
    position = source.read(0).position
    path.write_text("new")
    plane.report(work)
    sending.look()
    assert source.read(position) == (b"new", 3)


def test_store_that_is_away_fails_nothing_and_gets_all_of_it_afterwards(
    plane: ControlPlane, work: ExecuteTask, caplog: pytest.LogCaptureFixture
) -> None:
    from trainflow.storage.urls import open_store

    away = True
    assert plane.settings.logs.url is not None
    real = open_store(plane.settings.logs.url)

    def store() -> Store:
        if away:
            raise StoreFailure("no route to host", location="logs")
        return real

    sending = uploads(plane, store)
    write(work, "one\n")
    sending.look()
    sending.look()
    assert caplog.text.count("logs cannot be sent") == 1
    plane.report(work)
    assert plane.task(1, "a").state == "success"
    away = False
    sending.look()
    assert whole(elsewhere(plane)) == b"one\n"


def test_what_last_process_did_not_send_is_sent_by_next(plane: ControlPlane, work: ExecuteTask) -> None:
    write(work, "one\n")
    plane.report(work)
    uploads(plane).look()
    assert whole(elsewhere(plane)) == b"one\n"


def test_own_home_is_read_without_store(plane: ControlPlane, work: ExecuteTask) -> None:
    write(work, "here\n")
    workspace = Workspace(plane.project, plane.settings, plane.database)
    source = log_source(workspace, attempt_log(workspace, "d", "r1", "a", None))
    assert (source.place, whole(source)) == (work.log_path, b"here\n")


def test_log_in_bucket_is_read_part_by_part(tmp_path: Path, s3: LocalS3) -> None:
    settings = Settings(logs=LogStoreSettings(url=f"s3://{s3.make_bucket()}/logs", storage_options=s3.storage_options))
    with control_plane(tmp_path / "one", settings=settings) as plane:
        plane.add_dag("d", empty_task("a"))
        plane.add_run("d")
        (work,) = plane.tick()
        write(work, "one\ntwo\n")
        plane.play(work)
        uploads(plane).look()
        source = elsewhere(plane)
        first = source.read(0, 4)
        assert first == (b"one\n", 4)
        assert source.read(4).data == b"two\n"
        assert source.read(8).data == b""


class _Choosy(LocalStore):
    """Refuses one log, as a store does that a name is too long for; `asked`: what it was to take, in order."""

    def __init__(self, folder: Path, refused: str) -> None:
        super().__init__(folder)
        self._refused = refused
        self.asked: list[str] = []

    def replace(self, path: str, data: bytes) -> None:
        self.asked.append(path)
        if self._refused in path:
            raise StoreFailure(f"{path}: 400 the name is too long", location=path)
        super().replace(path, data)


def test_log_that_the_store_refuses_keeps_no_other_away(
    plane: ControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    works = []
    for _ in range(3):
        plane.add_run("d", f"r{len(works)}")
        works += plane.tick()
    # in the order of their paths, in which they are sent
    names = [Path(path).name for path in sorted(work.log_path for work in works)]
    for work in works:
        write(work, "one\n")
    opened: list[_Choosy] = []

    def store() -> Store:
        opened.append(_Choosy(tmp_path / "logs", names[0]))
        return opened[-1]

    sending = uploads(plane, store)
    sending.look()
    sending.look()

    # it comes last from then on, and by a store that is opened anew: its credentials may have expired
    asked = [[path.rpartition("/")[2] for path in each.asked] for each in opened]
    assert len(asked) == 2
    assert sorted([*asked[0], *asked[1]]) == sorted([names[0], *names])
    assert names[0] in asked[0]
    assert asked[1][-1] == names[0]
    sending.close()
    assert f"1 log is not in {tmp_path / 'logs'} yet: it stays in {plane.project.home.logs}" in caplog.text


def test_logs_are_sent_a_few_at_a_time(plane: ControlPlane, tmp_path: Path) -> None:
    """A store that is slow, or a log that is large, holds up no others."""
    together = threading.Barrier(log_uploads._AT_ONCE)

    class Slow(LocalStore):
        def replace(self, path: str, data: bytes) -> None:
            together.wait(DEADLINE_SECONDS)  # broken where they come one after another
            super().replace(path, data)

    for number in range(log_uploads._AT_ONCE):
        plane.add_run("d", f"r{number}")
        for work in plane.tick():
            write(work, "one\n")
    sending = uploads(plane, lambda: Slow(tmp_path / "logs"))
    sending.look()
    assert len([path for path in (tmp_path / "logs").rglob("*") if path.is_file()]) == log_uploads._AT_ONCE


def test_large_log_is_sent_in_pieces_and_never_seen_half(
    plane: ControlPlane, work: ExecuteTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_uploads, "_WHOLE", 10)
    path = write(work, "0123456789ab")
    sending = uploads(plane)
    sending.look()
    source = elsewhere(plane)
    seen: list[bytes] = []

    def copy(source_file: Path, target: Path) -> None:
        target.write_bytes(b"")
        seen.append(source.read(0).data)
        target.write_bytes(source_file.read_bytes())

    monkeypatch.setattr(log_uploads.shutil, "copyfile", copy)
    write(work, "cdef")
    plane.clock.advance(timedelta(seconds=60))
    sending.look()

    assert seen == [b"0123456789ab"]
    assert source.read(0).data == path.read_bytes()


def test_log_that_cannot_be_read_in_the_store_says_where_else_it_is(plane: ControlPlane, work: ExecuteTask) -> None:
    class Denied(LocalStore):
        def read_range(self, path: str, start: int, end: int) -> bytes:
            raise StoreFailure(f"{path}: 403 Access Denied", location=path)

    source = StoredLog(Denied(plane.project.root), "d/r1/a/x.log", "worker-7")
    with pytest.raises(StoreFailure, match=r"403 Access Denied\. The attempt ran on worker-7: its log is in the home"):
        source.read(0)
