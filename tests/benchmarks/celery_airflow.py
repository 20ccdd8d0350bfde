"""Airflow's CeleryExecutor beside ours: the same chain of no-op tasks, the same broker, the same PostgreSQL server.

`AIRFLOW_PYTHON=…/bin/python` is the interpreter of an environment with `apache-airflow`,
`apache-airflow-providers-celery[redis]`, `psycopg2-binary` and `asyncpg`; without it nothing is done."""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tests.benchmarks import celery_redis
from tests.benchmarks.airflow_peer import VARIABLE
from tests.benchmarks.workbench import show
from tests.support.local_brokers import local_broker
from tests.support.local_databases import local_postgres
from tests.support.ports import free_port

TASKS = 30
#: an EmptyOperator is never run there: the scheduler says that it was
CHAIN = f"""
from airflow.sdk import DAG, chain
from airflow.providers.standard.operators.python import PythonOperator

def nothing():
    return None

with DAG("chain_of_{TASKS}", schedule=None, catchup=False):
    chain(*[PythonOperator(task_id=f"t{{number:02d}}", python_callable=nothing) for number in range({TASKS})])
"""
#: what its own pages advise for short tasks: the scheduler does not sleep between two turns
TUNED = {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0"}
PARTS = ("api-server", "dag-processor", "scheduler", "celery worker --concurrency 4 --skip-serve-logs")
_DEADLINE_SECONDS = 300.0


def main(rounds: int = 2) -> None:
    """Print the latency of a transition of both, in milliseconds."""
    if VARIABLE not in os.environ:
        print(f"celery_airflow: set {VARIABLE} to the interpreter of an environment with apache-airflow and Celery")
        return
    python = Path(os.environ[VARIABLE])
    medians = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airflow-celery-")))
        broker = stack.enter_context(local_broker(folder))
        server = stack.enter_context(local_postgres(durable=True))
        for name, more in (("as it comes", {}), ("tuned", TUNED)):
            home = folder / name.replace(" ", "_")
            with _airflow(python, home, server.new_database(), broker.url, more) as airflow:
                gaps = [gap for _ in range(rounds) for gap in airflow.gaps()]
            show(f"Airflow's CeleryExecutor, {name}: transition", gaps, "ms", "")
            medians[name] = statistics.median(gaps)
        ours = celery_redis.transitions(broker.url, rounds, f'[database]\nurl = "{server.new_database()}"\n')
        show("transition over Celery and Redis, PostgreSQL", ours, "ms", "≤ 40 ms")
    for name, theirs in medians.items():
        show(f"… times faster than Airflow {name}", [theirs / statistics.median(ours)], "times", "≥ 20 times")


class _Airflow:
    """Its processes, and runs in it."""

    def __init__(self, python: Path, environ: dict[str, str], home: Path) -> None:
        self._command = str(python.with_name("airflow"))
        self._python = str(python)
        self._environ = environ
        self._home = home
        self._runs = 0

    def run(self, *words: str) -> str:
        """What a command prints."""
        asked = subprocess.run([self._command, *words], env=self._environ, capture_output=True, text=True, check=False)
        if asked.returncode != 0:
            raise RuntimeError(f"airflow {' '.join(words)}: {asked.stderr[-2000:]}")
        return asked.stdout

    @contextmanager
    def part(self, words: str) -> Iterator[None]:
        """One of its processes."""
        with (self._home / f"{words.split()[0]}.log").open("wb") as log:
            command = [self._command, *words.split()]
            process = subprocess.Popen(command, env=self._environ, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()

    def gaps(self) -> list[float]:
        """Milliseconds from the end of each task of a new run to the end of the next one."""
        self._runs += 1
        run = f"r{self._runs}"
        self._until_read()
        self.run("dags", "trigger", f"chain_of_{TASKS}", "--run-id", run)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while time.monotonic() < deadline:
            said = json.loads(self.run("tasks", "states-for-dag-run", f"chain_of_{TASKS}", run, "--output", "json"))
            if all(each["state"] == "success" for each in said):
                ends = sorted(datetime.fromisoformat(each["end_date"]) for each in said)
                return [(b - a).total_seconds() * 1000 for a, b in pairwise(ends)]
            if any(each["state"] == "failed" for each in said):
                break
            time.sleep(5)
        raise RuntimeError(f"Airflow's run {run} did not end well: {said}")

    def _until_read(self) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while f"chain_of_{TASKS}" not in self.run("dags", "list", "--output", "plain"):
            if time.monotonic() > deadline:
                raise TimeoutError("Airflow does not read the DAG")
            time.sleep(2)
        self.run("dags", "unpause", f"chain_of_{TASKS}")


@contextmanager
def _airflow(python: Path, home: Path, database: str, broker: str, more: dict[str, str]) -> Iterator[_Airflow]:
    """All that it takes to run tasks over Celery."""
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "chain.py").write_text(CHAIN)
    port = free_port()
    url = database.replace("postgresql+psycopg:", "postgresql+psycopg2:", 1)
    environ = {
        **os.environ,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__CELERY__BROKER_URL": broker,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{url}",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        **more,
    }
    made = _Airflow(python, environ, home)
    made.run("db", "migrate")
    with ExitStack() as stack:
        for words in PARTS:
            stack.enter_context(made.part(words))
        yield made


if __name__ == "__main__":
    main()
