"""40 chains of no-op tasks over PostgreSQL: two schedulers together beside one, and how busy the cores are."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.workbench import show, throw_away_project
from tests.support.local_databases import local_postgres
from trainflow.bootstrap import interpreter
from trainflow.clock import SystemClock
from trainflow.metadata import run_creation, schema
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.change_notices import ChangeNotices
from trainflow.metadata.database import Database
from trainflow.metadata.models import AttemptTable, DagRunTable
from trainflow.metadata.queries import dag_queries, living_queries
from trainflow.states import RUN_FINISHED, DagRunType, TriggeredBy

CHAINS, RUNS_OF_EACH, SLOTS = 40, 4, 8
PIPELINE = f"""
from trainflow import DAG
from trainflow.operators import EmptyOperator

for chain in range({CHAINS}):
    with DAG(f"chain{{chain:02d}}", max_active_runs=1):
        EmptyOperator(task_id="a") >> EmptyOperator(task_id="b") >> EmptyOperator(task_id="c")
"""
RUN, ATTEMPT = DagRunTable.table, AttemptTable.table


#: what runs as a scheduler, by what its attempts cost
KINDS = {"processes": "trainflow.cli.entry", "no processor": "tests.benchmarks.instant_scheduler"}


def main(rounds: int = 3) -> None:
    """Print runs a second with one scheduler and with two, in turns, and how they shared the work."""
    with local_postgres(durable=True) as server:
        for kind, module in KINDS.items():
            rates: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(rounds):
                for count, measured in rates.items():
                    measured.append(_rate(server.new_database(), count, module))
            one, two = (statistics.median(measured) for measured in rates.values())
            for count, measured in rates.items():
                show(f"{CHAINS} chains, {count} scheduler(s), attempts: {kind}", measured, "runs/s", "none")
            show(
                f"two schedulers, attempts: {kind}", [two / one], "times", f"≥ 1.6 times ({os.cpu_count()} cores here)"
            )


def _rate(url: str, count: int, module: str) -> float:
    """Runs a second."""
    settings = f'[database]\nurl = "{url}"\n[executors.local]\nslots = {SLOTS}\n[api]\nenabled = false\n'
    database = Database(url)
    schema.ensure_schema(database)
    with ExitStack() as stack:
        roots = [stack.enter_context(throw_away_project(settings, chains=PIPELINE)) for _ in range(count)]
        schedulers = [stack.enter_context(_part(root, "scheduler", module)) for root in roots]
        stack.enter_context(_part(roots[0], "dag-processor"))
        _until(lambda: len(database.read(dag_queries.everything)) == CHAINS)
        _until(lambda: sum(row.kind == "scheduler" for row in database.read(living_queries.not_stopped)) == count)
        # each knows of the other with its first heartbeat
        time.sleep(6)
        _run(database, 1)  # warms up
        began, busy, own = time.monotonic(), _busy_seconds(), cpu_seconds(schedulers)
        _run(database, RUNS_OF_EACH)
        seconds = time.monotonic() - began
        # where one keeps all cores busy a second one has nothing to work with
        cores, own = (_busy_seconds() - busy) / seconds, (cpu_seconds(schedulers) - own) / seconds
        shares = database.read(
            lambda connection: connection.execute(
                select(ATTEMPT.c.service_id, func.count()).group_by(ATTEMPT.c.service_id)
            ).all()
        )
        print(
            f"   {count} scheduler(s): {seconds:.1f} s, attempts {sorted(Counter(dict(shares)).values())}, "
            f"{cores:.2f} of {os.cpu_count()} cores busy, {own:.2f} by schedulers",
            flush=True,
        )
    database.close()
    return CHAINS * RUNS_OF_EACH / seconds


def _busy_seconds() -> float:
    """Seconds in which a core of this machine had something to do."""
    _, *ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _waits_for_disk, *interrupts = (int(each) for each in ticks[:8])
    return (user + nice + system + sum(interrupts[:2])) / os.sysconf("SC_CLK_TCK")


def _run(database: Database, runs: int) -> None:
    """Queue so many runs of each chain, and wait for their end."""
    now = SystemClock().now()

    def create(connection: Any) -> None:
        for chain in range(CHAINS):
            for number in range(runs):
                run_creation.create(
                    connection,
                    dag_id=f"chain{chain:02d}",
                    run_id=f"r{now:%H%M%S%f}-{number}",
                    run_type=DagRunType.MANUAL,
                    triggered_by=TriggeredBy.TEST,
                    conf={},
                    now=now,
                )

    database.write(create)
    notices = ChangeNotices(database)
    # as whatever queues runs tells it: without that the schedulers' next look at everything would be measured
    notices.tell(AppliedChange(0, triggered=True))
    notices.close()
    asked = select(func.count()).select_from(RUN).where(RUN.c.state.not_in(sorted(RUN_FINISHED)))
    _until(lambda: database.read(lambda connection: connection.execute(asked).scalar_one()) == 0)


def _until(condition: Any) -> None:
    while not condition():
        time.sleep(0.05)


@contextmanager
def _part(root: Path, name: str, module: str = "trainflow.cli.entry") -> Iterator[int]:
    """A part of the control plane: its process."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (root / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(interpreter(module, name), cwd=root, stdout=log, stderr=log, env=environ)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
