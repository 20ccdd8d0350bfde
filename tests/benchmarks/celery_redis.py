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
import sys
from celery import Celery, chain, group
app = Celery("bare", broker=sys.argv[1], backend=sys.argv[1])
@app.task
def nothing(_=None):
    return 1
if __name__ == "__main__":
    import time
    if sys.argv[2] == "worker":
        app.Worker(concurrency=4, loglevel="ERROR", pool="prefork").start()
    else:
        chain(nothing.s() for _ in range(3))().get(timeout=60)
        began = time.monotonic(); chain(nothing.s() for _ in range(30))().get(timeout=60)
        print((time.monotonic() - began) / 30 * 1000)
        began = time.monotonic(); group(nothing.s() for _ in range(100))().get(timeout=60)
        print(100 / (time.monotonic() - began))
"""


def main(rounds: int = 5) -> None:
    """Print the latency of a transition in milliseconds, and tasks a second."""
    with tempfile.TemporaryDirectory() as folder, local_broker(Path(folder)) as broker:
        _bare(broker.url, Path(folder))
        settings = (
            f'[api]\nport = {free_port()}\n[executor]\ndefault = "fleet"\n'
            f'[executors]\nfleet = {{type = "celery", slots = {SLOTS}, broker = "{broker.url}"}}\n'
        )
        with bench(settings, serves=True, chain_of_30=CHAIN, fan_out=WIDE) as made, _worker(made):
            _chain(made, rounds)
            _wide(made, rounds)


def _chain(made: Bench, rounds: int) -> None:
    gaps: list[float] = []
    for number in range(rounds + 1):
        root = made.trigger("chain_of_30")
        made.run_to_end(root)
        with made.engine.database.reading() as connection:
            ends = connection.execute(select(TASK.c.ended_at).where(TASK.c.dag_run_id == root).order_by(TASK.c.id))
            moments = [moment for moment in ends.scalars() if moment is not None]
        if number:  # the first round warms up
            gaps += [(b - a).total_seconds() * 1000 for a, b in pairwise(moments)]
    show("transition over Celery and Redis", gaps, "ms", "≤ 40 ms")


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


def _bare(url: str, folder: Path) -> None:
    script = folder / "bare.py"
    script.write_text(BARE)
    worker = subprocess.Popen([sys.executable, script, url, "worker"], stderr=subprocess.DEVNULL)
    try:
        said = subprocess.run([sys.executable, script, url, "ask"], capture_output=True, text=True, check=True)
    finally:
        worker.terminate()
        worker.wait()
    latency, rate = (float(line) for line in said.stdout.split())
    show("bare Celery: transition", [latency], "ms", "none")
    show("bare Celery: 100 tasks", [rate], "tasks/s", "none")


if __name__ == "__main__":
    main()
