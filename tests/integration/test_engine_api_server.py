"""The API server beside `trainflow standalone`: it answers, comes back when it is killed, and ends with the engine."""

from __future__ import annotations

import http.client
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


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _family(project: LiveProject) -> tuple[int, list[int]]:
    """The process that the engine has started, and those that it has forked, the oldest first."""
    found = _servers(project)
    parents = {each: _parent(each) for each in found}
    (top,) = (each for each in found if parents[each] not in found)
    return top, sorted(each for each in found if each != top)


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
    server, (execution,) = _family(project)
    assert ask(port, "GET", "/version").status == 200
    assert (server, execution) == (_family(project)[0], _family(project)[1][0])
    os.kill(server, signal.SIGKILL)
    # a connection that one of those takes which end with it is reset
    wait_for(lambda: not {server, execution} & set(_servers(project)), lambda: "the end of what was killed")
    assert ask(port, "GET", "/health").status == 200
    assert ask(port, "GET", "/version").status == 200
    assert not {server, execution} & set(_servers(project))
    second = project.begin("api-server", "--port", str(port)).wait()
    assert (second.code, f"cannot listen on 127.0.0.1 port {port}" in second.output) == (2, True)
    assert project.run("stop").code == 0
    assert engine.wait().code == 0
    wait_for(lambda: not _servers(project), lambda: "the end of the API server")


@pytest.mark.slow
def test_each_process_of_api_server_is_started_again_without_the_other(project: LiveProject, port: int) -> None:
    environ = {"TRAINFLOW__API__ENABLED": "true", "TRAINFLOW__API__PORT": str(port)}
    engine = project.begin("standalone", environ=environ)
    engine.wait_for_output(f"http://127.0.0.1:{port}")
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    kept.request("GET", "/health")
    assert kept.getresponse().read().startswith(b'{"status":"ok"')
    assert ask(port, "GET", "/version").status == 200
    server, (execution, web) = _family(project)
    os.kill(web, signal.SIGKILL)
    assert ask(port, "GET", "/version").status == 200
    # the connection of an attempt notices nothing of that
    kept.request("GET", "/health")
    assert kept.getresponse().read().startswith(b'{"status":"ok"')
    os.kill(execution, signal.SIGKILL)
    assert ask(port, "GET", "/health").status == 200
    assert ask(port, "GET", "/version").status == 200
    kept.close()
    again, children = _family(project)
    assert (again, len(children), {execution, web} & set(children)) == (server, 2, set())
    assert project.run("stop").code == 0
    assert engine.wait().code == 0


@pytest.mark.slow
def test_api_server_dies_with_its_engine(project: LiveProject, port: int) -> None:
    environ = {"TRAINFLOW__API__ENABLED": "true", "TRAINFLOW__API__PORT": str(port)}
    engine = project.begin("standalone", environ=environ)
    engine.wait_for_output(f"http://127.0.0.1:{port}")
    assert ask(port, "GET", "/health").status == 200
    engine.kill()
    wait_for(lambda: not _servers(project), lambda: "the end of the API server")
