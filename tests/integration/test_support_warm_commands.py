"""A command that a warm interpreter became is, for all who look, one with an interpreter of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import warm_commands
from tests.support.live_project import COMMAND
from tests.support.tiny_project import FILE, tiny_project
from trainflow.testing.processes import MARK, ProcessKind, wait_for

pytestmark = pytest.mark.exhaustive


def _words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")


@pytest.mark.slow
@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_command_looks_and_ends_the_same_cold_or_warm(tmp_path: Path, cold: bool) -> None:
    project = tiny_project(tmp_path / "tiny", days=1)
    project.cold, project.environ["OF_THE_TEST"] = cold, "a b"
    project.write("hold", "")
    running = project.begin_start(FILE, "--plain")
    wait_for(lambda: any(words[0] == "holding" for words in project.journal()), lambda: running.output)

    (command,) = project.processes(ProcessKind.COMMAND)
    (worker,) = project.processes(ProcessKind.WARM_WORKER)
    assert (command.pid, worker.parent) == (running.pid, running.pid)
    assert _words_of(command.pid)[1:] == [str(COMMAND), "start", FILE, "--plain"]
    assert _words_of(worker.pid)[1:4] == ["-P", "-m", "trainflow.execution.forkserver"]
    assert [os.getsid(each.pid) for each in (command, worker)] == [command.pid, worker.pid]
    assert os.readlink(f"/proc/{command.pid}/cwd") == str(project.root)
    shown = Path(f"/proc/{command.pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    assert {b"OF_THE_TEST=a b", f"{MARK}={project.mark}".encode()} <= set(shown)
    given = {*os.environ, *project.environ, MARK, "TRAINFLOW__API__ENABLED"}
    assert {each.partition(b"=")[0].decode() for each in shown} <= given

    running.control_c()
    assert running.wait().code == 130, running.output
    project.wait_until_quiet()

    assert project.run("start", "pipelines/other.yaml").code == 2
    project.begin("standalone").kill()


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONWARNINGS", "TRAINFLOW_FAILPOINT", "OMP_NUM_THREADS"])
def test_what_an_interpreter_reads_once_makes_a_command_cold(name: str) -> None:
    assert warm_commands._interpreter_for({**os.environ, name: "1"}) is None
