"""The API server: memory and processor time when nothing is asked, and with a thousand attempts that say they live."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sqlalchemy import insert

from tests.benchmarks.processes import cpu_seconds, pss_mib, tree
from tests.benchmarks.workbench import show, throw_away_project
from tests.support.api import TOKEN
from tests.support.control_plane import ControlPlane, empty_task
from tests.support.local_databases import local_postgres
from trainflow.bootstrap import interpreter
from trainflow.clock import ManualClock
from trainflow.messages.execution_api import Heartbeat
from trainflow.messages.http_protocol import PREFIX
from trainflow.messages.workload import AttemptKey
from trainflow.metadata.attempt_credentials import digest
from trainflow.metadata.models import AttemptCredentialTable, AttemptTable, TaskInstanceTable
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at

ATTEMPTS, EVERY_SECONDS, CONNECTIONS = 1000, 10.0, 50


def main(seconds: float = 20.0) -> None:
    """Print what the API server costs, over PostgreSQL."""
    with local_postgres() as server:
        settings = f'[database]\nurl = "{server.new_database()}"\n'
        with throw_away_project(settings) as root, socket.create_server(("127.0.0.1", 0)) as listener:
            _prepare(root)
            command = interpreter("trainflow.api.main", str(root), str(listener.fileno()))
            process = subprocess.Popen(command, pass_fds=[listener.fileno()])
            try:
                port = listener.getsockname()[1]
                _ask(http.client.HTTPConnection("127.0.0.1", port), 0)
                show("API server, idle: processor", [_share(process.pid, seconds)], "% of a core", "≤ 0.5 %")
                show("API server, idle: memory (PSS)", [pss_mib(tree(process.pid))], "MiB", "≤ 60 MiB")
                over = threading.Event()
                for number in range(CONNECTIONS):
                    threading.Thread(target=_beat, args=(port, number, over), daemon=True).start()
                time.sleep(EVERY_SECONDS)
                show("1,000 heartbeating attempts: processor", [_share(process.pid, seconds)], "% of a core", "≤ 10 %")
                show("1,000 heartbeating attempts: memory (PSS)", [pss_mib(tree(process.pid))], "MiB", "")
                over.set()
                time.sleep(1.0)
            finally:
                process.terminate()
                process.wait()


def _share(pid: int, seconds: float) -> float:
    used, began = cpu_seconds(tree(pid)), time.perf_counter()
    time.sleep(seconds)
    return (cpu_seconds(tree(pid)) - used) / (time.perf_counter() - began) * 100


def _beat(port: int, number: int, over: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    mine = range(number, ATTEMPTS, CONNECTIONS)
    while not over.is_set():
        began = time.perf_counter()
        for place, attempt in enumerate(mine):
            if not over.is_set():
                _ask(connection, attempt)
            over.wait(max(0.0, began + (place + 1) * EVERY_SECONDS / len(mine) - time.perf_counter()))


def _ask(connection: http.client.HTTPConnection, number: int) -> None:
    headers = {"X-Trainflow-Protocol": "1", "Authorization": f"Bearer {TOKEN}{number}"}
    body = msgspec.json.encode(Heartbeat(AttemptKey(f"a{number}")))
    connection.request("POST", f"{PREFIX}/heartbeat", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content


def _prepare(root: Path) -> None:
    """Attempts that run on other hosts, each with its token."""
    project, now = project_at(root), datetime.now(UTC)
    plane = ControlPlane(project, clock=ManualClock(now), settings=load_settings(project))
    project.home.create()
    plane.add_dag("d", empty_task("a"))
    run = plane.add_run("d")
    task, attempt, credential = (each.table for each in (TaskInstanceTable, AttemptTable, AttemptCredentialTable))
    with plane.database.transaction() as connection:
        for number in range(ATTEMPTS):
            of_task = {"dag_run_id": run, "task_id": f"t{number}", "state": "running", "attempt_id": f"a{number}"}
            made = connection.execute(insert(task), {**of_task, "pool": "default_pool", **_DEFAULTS})
            (task_instance_id,) = made.inserted_primary_key
            of_attempt = {"attempt_id": f"a{number}", "task_instance_id": task_instance_id, "try_number": 1}
            connection.execute(insert(attempt), {**of_attempt, "queued_at": now, "log_name": f"{number}.log"})
            of_token = {"attempt_id": f"a{number}", "deferral_number": 0, "claim_hash": "", "heartbeats": 0}
            of_token |= {"token_hash": digest(f"{TOKEN}{number}"), "log_bytes": 0}
            connection.execute(insert(credential), of_token)
    plane.close()


_DEFAULTS = {
    "map_index": -1,
    "failures": 0,
    "max_tries": 0,
    "lost": 0,
    "deferral_number": 0,
    "reschedules": 0,
    "pool_slots": 1,
    "priority_weight": 1,
    "queue": "default",
    "resumed": False,
}


if __name__ == "__main__":
    main()
