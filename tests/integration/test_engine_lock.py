"""One engine a home."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.engine_project import PIPELINE, WAITING, WriteProject
from trainflow.engine.lock import engine_lock, running_engine
from trainflow.errors import EngineAlreadyRunning, SettingsError
from trainflow.settings.home import Home
from trainflow.settings.project import Project


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project({"pipelines/p.py": PIPELINE, "operators/__init__.py": "", "operators/waiting.py": WAITING})


class TestLock:
    def test_lock_of_home_admits_one_engine(self, project: Project) -> None:
        with engine_lock(project.home):
            assert running_engine(project.home) == os.getpid()
            with pytest.raises(EngineAlreadyRunning) as caught, engine_lock(project.home):
                pass
            assert caught.value.pid == os.getpid()
        assert running_engine(project.home) is None

    def test_pid_of_killed_engine_is_not_believed(self, project: Project) -> None:
        """Its file is still there, and another process looks (and so holds the lock for an instant) just now."""
        import fcntl

        project.home.create()
        dead = os.fork()
        if dead == 0:
            os._exit(0)
        os.waitpid(dead, 0)
        project.home.engine_lock.write_text(f"{dead}\n")
        with project.home.engine_lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            release = threading.Timer(0.05, lambda: fcntl.flock(file, fcntl.LOCK_UN))
            release.start()
            with engine_lock(project.home):
                assert running_engine(project.home) == os.getpid()
            release.join()

    def test_lock_with_many_engines_at_once_admits_one(self, project: Project) -> None:
        barrier, won, lost = threading.Barrier(8), [], []
        done = threading.Event()

        def compete() -> None:
            barrier.wait()
            with ExitStack() as stack:
                try:
                    stack.enter_context(engine_lock(project.home))
                except EngineAlreadyRunning:
                    lost.append(1)
                else:
                    won.append(1)
                    done.wait(100)
                if len(lost) == 7:
                    done.set()

        threads = [threading.Thread(target=compete) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 7)


def test_home_on_disk_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    home = Home(tmp_path / "home")
    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(SettingsError, match=r"knows no file locks .*set TRAINFLOW_HOME"), engine_lock(home):
        raise AssertionError("it was taken")
    assert running_engine(home) is None
