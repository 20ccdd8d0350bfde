"""Celery and Redis: a chain of 30 no-op tasks, and 100 at a time, beside a bare Celery in the same run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from sqlalchemy import select

from tests.benchmarks.fan_out import PIPELINE as WIDE
from tests.benchmarks.transition import PIPELINE as CHAIN
from tests.benchmarks.workbench import Bench, bench, show
from tests.support.local_brokers import local_broker
from tests.support.ports import free_port
from trainflow.bootstrap import interpreter
from trainflow.metadata.queries.task_queries import TASK

SLOTS = 4
BARE = """
import os
import sys
import time
from celery import Celery, chain, group

app = Celery("bare", broker=sys.argv[1], backend=sys.argv[1])

@app.task
def nothing(_=None):
    return 1

@app.task
def fork(_=None):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(0)
    return os.waitpid(pid, 0)[1]

if __name__ == "__main__":
    task = {"nothing": nothing, "fork": fork}[sys.argv[3]]
    children = int(sys.argv[4]) or None
    if sys.argv[2] == "worker":
        app.Worker(concurrency=4, loglevel="ERROR", pool="prefork", max_tasks_per_child=children).start()
        sys.exit()
    length, wide = (5, 10) if children else (30, 100)
    chain(task.s() for _ in range(3))().get(timeout=60)
    for _ in range(int(sys.argv[5])):
        began = time.monotonic(); chain(task.s() for _ in range(length))().get(timeout=60)
        print((time.monotonic() - began) / length * 1000)
        began = time.monotonic(); group(task.s() for _ in range(wide))().get(timeout=60)
        print(wide / (time.monotonic() - began))
"""
#: bare Celery: its processes run any number of tasks; each task forks one for itself, which does nothing and can be
#: killed; a process of Celery's own for each task
PEERS = {
    "bare Celery": ("nothing", "0"),
    "bare Celery, a fork in each task": ("fork", "0"),
    "bare Celery, max_tasks_per_child = 1": ("nothing", "1"),
}


def main(rounds: int = 5) -> None:
    """Print the latency of a transition in milliseconds, and tasks a second."""
    with tempfile.TemporaryDirectory() as folder, local_broker(Path(folder)) as broker:
        for peer, how in PEERS.items():
            _bare(peer, broker.url, Path(folder), *how, rounds=rounds if how[1] == "0" else 1)
        with _over(broker.url, chain_of_30=CHAIN, fan_out=WIDE) as made:
            show("transition over Celery and Redis", _chain(made, rounds), "ms", "≤ 40 ms")
            _wide(made, rounds)


def transitions(broker: str, rounds: int, settings: str = "") -> list[float]:
    """Milliseconds from the end of a task to the end of the next, over a broker that is there."""
    with _over(broker, settings, chain_of_30=CHAIN) as made:
        return _chain(made, rounds)


@contextmanager
def _over(broker: str, settings: str = "", **pipelines: str) -> Iterator[Bench]:
    """An engine and a worker with this broker."""
    settings += (
        f'[api]\nport = {free_port()}\n[executor]\ndefault = "fleet"\n'
        f'[executors]\nfleet = {{type = "celery", slots = {SLOTS}, broker = "{broker}"}}\n'
    )
    with bench(settings, serves=True, **pipelines) as made, _worker(made):
        yield made


def _chain(made: Bench, rounds: int) -> list[float]:
    gaps: list[float] = []
    for number in range(rounds + 1):
        root = made.trigger("chain_of_30")
        made.run_to_end(root)
        with made.engine.database.reading() as connection:
            ends = connection.execute(select(TASK.c.ended_at).where(TASK.c.dag_run_id == root).order_by(TASK.c.id))
            moments = [moment for moment in ends.scalars() if moment is not None]
        if number:  # the first round warms up
            gaps += [(b - a).total_seconds() * 1000 for a, b in pairwise(moments)]
    return gaps


def _wide(made: Bench, rounds: int) -> None:
    rates = []
    for number in range(rounds + 1):
        began = time.monotonic()
        made.run_to_end(made.trigger("fan_out"))
        if number:
            rates.append(100 / (time.monotonic() - began))
    show("100 tasks over Celery and Redis", rates, "tasks/s", "≥ 100 /s")


@contextmanager
def _worker(made: Bench) -> Iterator[None]:
    words = interpreter("trainflow.cli.entry", "celery", "worker", "--slots", str(SLOTS))
    with (made.engine.project.root / "worker.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=made.engine.project.root, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _bare(peer: str, url: str, folder: Path, *how: str, rounds: int) -> None:
    script = folder / "bare.py"
    script.write_text(BARE)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    worker = subprocess.Popen([sys.executable, script, url, "worker", *how], **quiet)  # type: ignore[call-overload]
    try:
        ask = [sys.executable, script, url, "ask", *how, str(rounds)]
        said = subprocess.run(ask, capture_output=True, text=True, check=True)
    finally:
        worker.terminate()
        worker.wait()
    figures = [float(line) for line in said.stdout.split()]
    show(f"{peer}: transition", figures[::2], "ms", "none")
    show(f"{peer}: tasks at once", figures[1::2], "tasks/s", "none")


if __name__ == "__main__":
    main()
