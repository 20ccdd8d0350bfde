"""Airflow's API server beside ours, over SQLite: a page of 100 of 10,000 runs, asked in turns, and memory.

`AIRFLOW_PYTHON=…/bin/python` is the interpreter of an environment with `apache-airflow`; without it nothing is done."""

from __future__ import annotations

import http.client
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.benchmarks.processes import cpu_seconds, pss_mib, tree
from tests.benchmarks.rest import RUNS, TIMES, prepare
from tests.benchmarks.workbench import show, throw_away_project
from tests.support.ports import free_port
from trainflow.bootstrap import interpreter

VARIABLE = "AIRFLOW_PYTHON"
ROWS = str(Path(__file__).with_name("airflow_rows.py"))
QUERY = "dags/~/dagRuns?order_by=-id&limit=100"


def main() -> None:
    """Print the figures of both."""
    if VARIABLE not in os.environ:
        print(f"airflow_peer: set {VARIABLE} to the interpreter of an environment with apache-airflow")
        return
    with _airflow(os.environ[VARIABLE]) as (theirs, airflow), _ours() as (ours, trainflow):
        headers = _token(theirs)
        times: tuple[list[float], list[float]] = ([], [])
        connections = [http.client.HTTPConnection("127.0.0.1", port) for port in (theirs, ours)]
        for number in range(TIMES + 1):
            for connection, found in zip(connections, times, strict=True):
                took = _asked(connection, f"/api/v2/{QUERY}", headers)
                # the first one of each imports and compiles
                if number:
                    found.append(took * 1000)
        costs = [
            _processor(connection, pid, headers)
            for connection, pid in zip(connections, (airflow, trainflow), strict=True)
        ]
        memory = [pss_mib(tree(pid)) for pid in (airflow, trainflow)]
    show(f"Airflow: 100 of {RUNS:,} runs", times[0], "ms", "")
    show(f"trainflow: 100 of {RUNS:,} runs", times[1], "ms", "≤ 1/10")
    show("… times faster, at the median", [statistics.median(times[0]) / statistics.median(times[1])], "", "≥ 10")
    show("Airflow: processor of a page", costs[:1], "ms", "")
    show("trainflow: processor of a page", costs[1:], "ms", "≤ 1/10")
    show("Airflow: memory of the API server (PSS)", memory[:1], "MiB", "")
    show("trainflow: memory of the API server (PSS)", memory[1:], "MiB", "≤ 1/3")
    show("… of Airflow's", [memory[1] / memory[0] * 100], "%", "≤ 33 %")


def _asked(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> float:
    began = time.perf_counter()
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    took = time.perf_counter() - began
    assert len(msgspec.json.decode(content)["dag_runs"]) == 100, content[:1000]
    return took


def _processor(connection: http.client.HTTPConnection, pid: int, headers: dict[str, str]) -> float:
    """Milliseconds of all processes of a server for a page: what others do on the machine changes little of it."""
    began = cpu_seconds(tree(pid))
    for _ in range(TIMES):
        _asked(connection, f"/api/v2/{QUERY}", headers)
    return (cpu_seconds(tree(pid)) - began) * 1000 / TIMES


def _token(port: int) -> dict[str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/auth/token")
    found = msgspec.json.decode(connection.getresponse().read())
    return {"Authorization": f"Bearer {found['access_token']}"}


@contextmanager
def _airflow(python: str) -> Iterator[tuple[int, int]]:
    """Its port, and its process."""
    with tempfile.TemporaryDirectory(prefix="airflow-") as home:
        environ = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        quiet = {"env": environ, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([python, ROWS, str(RUNS)], check=True, **quiet)  # type: ignore[call-overload]
        port = free_port()
        command = [str(Path(python).with_name("airflow")), "api-server", "--host", "127.0.0.1", "--port", str(port)]
        with subprocess.Popen(command, **quiet) as process:  # type: ignore[call-overload]
            try:
                _wait_for(port)
                yield port, process.pid
            finally:
                process.terminate()


@contextmanager
def _ours() -> Iterator[tuple[int, int]]:
    with throw_away_project() as root, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        prepare(root)
        command = interpreter("trainflow.api.main", str(root), str(listener.fileno()))
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as process:
            try:
                yield listener.getsockname()[1], process.pid
            finally:
                process.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("Airflow's API server does not answer")


if __name__ == "__main__":
    main()
