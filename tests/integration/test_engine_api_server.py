"""The API server beside `trainflow standalone`: it answers, comes back when it is killed, and ends with the engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.api import ask
from tests.support.live_project import LiveProject
from tests.support.ports import free_port
from trainflow.testing.processes import wait_for


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def project(tmp_path: Path) -> LiveProject:
    return LiveProject(tmp_path / "project")


def _servers(project: LiveProject) -> list[int]:
    commands = ((int(each.name), each / "cmdline") for each in Path("/proc").iterdir() if each.name.isdigit())
    return [pid for pid, command in commands if _is_server(command, project.root)]


def _is_server(command: Path, root: Path) -> bool:
    try:
        words = command.read_bytes().decode().split("\0")
    except OSError:
        return False
    return "trainflow.api.main" in words and str(root) in words


@pytest.mark.slow
def test_standalone_has_an_api_server_until_it_ends(project: LiveProject, port: int) -> None:
    environ = {"TRAINFLOW__API__ENABLED": "true", "TRAINFLOW__API__PORT": str(port)}
    engine = project.begin("standalone", environ=environ)
    engine.wait_for_output(f"http://127.0.0.1:{port}")
    # who asks before it has begun waits
    assert ask(port, "GET", "/ready")[:2] == (200, {"status": "ready"})
    (server,) = _servers(project)
    os.kill(server, signal.SIGKILL)
    assert ask(port, "GET", "/health").status == 200
    (again,) = _servers(project)
    assert again != server
    second = project.begin("api-server", "--port", str(port)).wait()
    assert (second.code, f"cannot listen on 127.0.0.1 port {port}" in second.output) == (2, True)
    assert project.run("stop").code == 0
    assert engine.wait().code == 0
    wait_for(lambda: not _servers(project), lambda: "the end of the API server")


@pytest.mark.slow
def test_api_server_dies_with_its_engine(project: LiveProject, port: int) -> None:
    environ = {"TRAINFLOW__API__ENABLED": "true", "TRAINFLOW__API__PORT": str(port)}
    engine = project.begin("standalone", environ=environ)
    engine.wait_for_output(f"http://127.0.0.1:{port}")
    assert ask(port, "GET", "/health").status == 200
    engine.kill()
    wait_for(lambda: not _servers(project), lambda: "the end of the API server")
