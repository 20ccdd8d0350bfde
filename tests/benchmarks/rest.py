"""The REST API over SQLite: a page of 10,000 runs, the partitions of a long chain, the page of a wide run, memory, and
whether a hundred clients in a loop keep an attempt's heartbeat waiting."""

from __future__ import annotations

import http.client
import socket
import statistics
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy import insert

from tests.benchmarks.processes import pss_mib, tree
from tests.benchmarks.workbench import show, throw_away_project
from tests.support.api import TOKEN
from tests.support.control_plane import ControlPlane, empty_task
from tests.support.rest import know_pipeline, write_pipeline
from trainflow.bootstrap import interpreter
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.clock import ManualClock
from trainflow.messages.execution_api import Heartbeat, Start
from trainflow.messages.http_protocol import PREFIX, TOKEN_HEADER
from trainflow.messages.workload import AttemptKey
from trainflow.metadata import attempt_credentials
from trainflow.metadata.models import DagRunTable
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import append_many

RUNS, CHECKPOINTS, CLIENTS, TIMES, BEATS = 10_000, 200, 100, 100, 40
TASKS = 300
RUNS_PAGE = "/api/v1/dags/d/dagRuns?order_by=-id&limit=100"
PARTITIONS = "/api/v1/chains/flights/main/main/partitions"


def main() -> None:
    """Print the figures."""
    with throw_away_project() as root, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        key, secret = prepare(root)
        command = interpreter("trainflow.api.main", str(root), str(listener.fileno()))
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            _measure(listener.getsockname()[1], process.pid, key, secret)
        finally:
            process.terminate()
            process.wait()


def _measure(port: int, pid: int, key: AttemptKey, secret: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    get(connection, "/health")
    show("API server, idle: memory (PSS)", [pss_mib(tree(pid))], "MiB", "≤ 60 MiB")
    pages = [get(connection, RUNS_PAGE) for _ in range(TIMES)]
    show("100 of 10,000 runs", [each * 1000 for each in pages], "ms", "")
    last = _cursor(connection)
    deep = [get(connection, f"{RUNS_PAGE}&cursor={last}") for _ in range(TIMES)]
    show("… the last page", [each * 1000 for each in deep], "ms", "as the first")
    ranges = [get(connection, PARTITIONS) for _ in range(50)]
    show(f"partitions of a chain of {CHECKPOINTS:,} checkpoints", [each * 1000 for each in ranges], "ms", "")
    # each has a query of its own: a page that is kept is not made again
    pages = [get(connection, f"/dags/wide/runs/w?again={number}") for number in range(30)]
    show(f"page of a run of {TASKS} tasks, the first", [pages[0] * 1000], "ms", "")
    show("… the others", [each * 1000 for each in pages[1:]], "ms", "≤ 100 ms")
    show("memory after that (PSS)", [pss_mib(tree(pid))], "MiB", "")
    beats = http.client.HTTPConnection("127.0.0.1", port)
    send(beats, "start", Start(key, 1, 1.0, "there"), secret, **{TOKEN_HEADER: TOKEN})
    show("heartbeat alone", [beat(beats, key) * 1000 for _ in range(BEATS)], "ms", "")
    asking = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.rest", str(port)])
    time.sleep(3)
    under_load = [beat(beats, key) * 1000 for _ in range(BEATS)]
    asking.kill()
    asking.wait()
    show(f"heartbeat beside {CLIENTS} clients in a loop", under_load, "ms", "≤ 100 ms more")
    slowest = statistics.quantiles(under_load, n=20)[-1]
    show("… of 100, the 5 slowest take longer than", [slowest], "ms", "≤ 100 ms more")


def get(connection: http.client.HTTPConnection, path: str) -> float:
    """Seconds until a path was answered."""
    began = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status in (200, 503), content
    return time.perf_counter() - began


def _cursor(connection: http.client.HTTPConnection) -> str:
    """Of the last page."""
    cursor = ""
    while True:
        connection.request("GET", f"/api/v1/dags/d/dagRuns?order_by=-id&limit=1000&cursor={cursor}")
        found = msgspec.json.decode(connection.getresponse().read())["next_cursor"]
        if found is None:
            return cursor
        cursor = found


def load(port: int) -> None:
    """Ask in a loop, as so many clients, in a process that does not measure."""

    def loop() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            get(connection, RUNS_PAGE)

    clients = [threading.Thread(target=loop, daemon=True) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    clients[0].join()


def beat(connection: http.client.HTTPConnection, key: AttemptKey) -> float:
    """Seconds until a heartbeat was answered."""
    began = time.perf_counter()
    send(connection, "heartbeat", Heartbeat(key), TOKEN)
    return time.perf_counter() - began


def send(connection: http.client.HTTPConnection, name: str, message: object, secret: str, **headers: str) -> None:
    """Ask something of the execution API."""
    given = {"X-Trainflow-Protocol": "1", "Authorization": f"Bearer {secret}", **headers}
    connection.request("POST", f"{PREFIX}/{name}", msgspec.json.encode(message), given)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content


def prepare(root: Path) -> tuple[AttemptKey, str]:
    """Many runs, a long chain, and an attempt that waits to be claimed on another host."""
    write_pipeline(root)
    ledger = Ledger(LocalStore(root / "checkpoints"), ChainKey("flights"))
    append_many(ledger, CHECKPOINTS)
    project, now = project_at(root), datetime.now(UTC)
    project.home.create()
    plane = ControlPlane(project, clock=ManualClock(now), settings=load_settings(project))
    know_pipeline(plane)
    plane.add_dag("d", empty_task("a"))
    plane.add_dag("e", empty_task("a"))
    plane.add_run("e")
    (work,) = plane.tick()
    with plane.database.transaction() as connection:
        secret = attempt_credentials.issue(connection, work.key)
        run = plane.run(1)._mapping
        for number in range(RUNS):
            at = now + timedelta(seconds=number)
            own = {"dag_id": "d", "run_id": f"manual__{number:05}", "number": number, "state": "success"}
            times = {"run_after": at, "queued_at": at, "started_at": at, "ended_at": at + timedelta(seconds=9)}
            kept = {name: run[name] for name in ("version_id", "run_type", "triggered_by", "clear_number")}
            connection.execute(insert(DagRunTable.table), {**kept, **own, **times, "conf": {"rows": 100}})
    names = [f"t{number:03}" for number in range(TASKS)]
    plane.add_dag(
        "wide", *(empty_task(name, *names[max(0, place - 10) : place // 10 * 10]) for place, name in enumerate(names))
    )
    plane.add_run("wide", "w")
    plane.tick()
    plane.close()
    return work.key, secret


if __name__ == "__main__":
    load(int(sys.argv[1])) if len(sys.argv) > 1 else main()
