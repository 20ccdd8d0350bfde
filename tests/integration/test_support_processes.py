"""What tests leave behind: no process, and no port that two of them have."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.support import ports
from tests.support.live_project import LiveProject, close_all
from trainflow.testing.processes import MARK, marked, wait_for

REPOSITORY = Path(__file__).parents[2]
OF_ANOTHER_PROCESS = """
import itertools
from tests.support import ports
ports._NEXT = itertools.count()
print(*(ports.free_port() for _ in range(3)))
"""

SERVES = """
import sys, time
from pathlib import Path
from tests.support.local_databases import local_mariadb, local_postgres
from tests.support.local_object_stores import local_azure, local_gcs
from tests.support.local_sftp import local_sftp

folder = Path(sys.argv[1])
with {server}:
    print("it answers", flush=True)
    time.sleep(600)
"""
SERVERS = ["local_postgres()", "local_gcs()", "local_azure(folder / 'log')", "local_sftp(folder)"]


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS, ids=lambda words: words.partition("(")[0])
def test_server_of_test_run_that_is_killed_ends(tmp_path: Path, server: str) -> None:
    mark = uuid.uuid4().hex
    words = [sys.executable, "-c", SERVES.format(server=server), str(tmp_path)]
    environ = {**os.environ, MARK: mark}
    with subprocess.Popen(words, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        said = run.stdout.readline()
        there = marked(mark)
        run.kill()
    assert said == "it answers\n"
    assert len(there) > 1

    wait_for(lambda: not marked(mark), lambda: f"the end of {marked(mark)}")


def test_close_all_command_that_runs_is_ended(tmp_path: Path) -> None:
    project = LiveProject(tmp_path / "project")
    running = project.begin("standalone")
    wait_for(lambda: len(project.processes()) > 1, lambda: running.output)

    close_all()

    assert running.ended
    assert project.processes() == []


def test_free_port_is_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_NEXT", itertools.count())
    here = [ports.free_port() for _ in range(3)]

    said = subprocess.run(
        [sys.executable, "-c", OF_ANOTHER_PROCESS], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert not set(here) & {int(port) for port in said.stdout.split()}
