"""40 chains of no-op tasks over PostgreSQL: two schedulers together beside one, what a task costs of a processor, and
what the schedulers wait for.

Two can do no more than the cores give: where one keeps all of them busy, the second has nothing to work with. So the
processor time of a task is told as well, and what it would come to on cores that nothing else uses. What the schedulers
wait for is asked of the server while they work.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, func, select, text

from tests.benchmarks.processes import cpu_seconds, tree
from tests.benchmarks.workbench import show, throw_away_project
from tests.support.local_databases import LocalPostgres, local_postgres
from trainflow.bootstrap import interpreter
from trainflow.clock import SystemClock
from trainflow.metadata import run_creation, schema
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.change_notices import ChangeNotices
from trainflow.metadata.database import Database
from trainflow.metadata.models import AttemptTable, DagRunTable
from trainflow.metadata.queries import dag_queries, service_list_queries
from trainflow.states import RUN_FINISHED, DagRunType, TriggeredBy

CHAINS, RUNS_OF_EACH, SLOTS = 40, 4, 8
TASKS = 3 * CHAINS * RUNS_OF_EACH
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
                    measured.append(_rate(server, count, module))
            one, two = (statistics.median(measured) for measured in rates.values())
            for count, measured in rates.items():
                show(f"{CHAINS} chains, {count} scheduler(s), attempts: {kind}", measured, "runs/s", "none")
            show(
                f"two schedulers, attempts: {kind}", [two / one], "times", f"≥ 1.6 times ({os.cpu_count()} cores here)"
            )


def _rate(server: LocalPostgres, count: int, module: str) -> float:
    """Runs a second."""
    url = server.new_database()
    settings = f'[database]\nurl = "{url}"\n[executors.local]\nslots = {SLOTS}\n[api]\nenabled = false\n'
    database = Database(url)
    schema.ensure_schema(database)
    with ExitStack() as stack:
        roots = [stack.enter_context(throw_away_project(settings, chains=PIPELINE)) for _ in range(count)]
        schedulers = [stack.enter_context(_part(root, "scheduler", module)) for root in roots]
        stack.enter_context(_part(roots[0], "dag-processor"))
        _until(lambda: len(database.read(dag_queries.everything)) == CHAINS)
        _until(lambda: sum(row.kind == "scheduler" for row in database.read(service_list_queries.not_stopped)) == count)
        # each knows of the other with its first heartbeat
        time.sleep(6)
        _run(database, 1)  # warms up
        before, began, busy = _used(server, schedulers), time.monotonic(), _busy_seconds()
        with _waits(url) as waits:
            _run(database, RUNS_OF_EACH)
        seconds = time.monotonic() - began
        cores, used = (_busy_seconds() - busy) / seconds, _used(server, schedulers) - before
        shares = database.read(
            lambda connection: connection.execute(
                select(ATTEMPT.c.service_id, func.count()).group_by(ATTEMPT.c.service_id)
            ).all()
        )
    database.close()
    each = {name: used[name] / TASKS * 1000 for name in used}
    most = (os.cpu_count() or 1) * 1000 / sum(each.values()) / 3
    costs = ", ".join(f"{name} {used:.2f} ms" for name, used in each.items())
    print(
        f"   {count} scheduler(s): {seconds:.1f} s, attempts {sorted(Counter(dict(shares)).values())}, "
        f"{cores:.2f} of {os.cpu_count()} cores busy\n"
        f"      processor time of a task: {costs} (the cores do {most:.0f} runs/s at most)\n"
        f"      connections at work that wait for: {', '.join(f'{name} {share:.2f}' for name, share in waits.items())}",
        flush=True,
    )
    return CHAINS * RUNS_OF_EACH / seconds


def _used(server: LocalPostgres, schedulers: list[int]) -> Counter[str]:
    """Seconds of a processor, by what has used them."""
    own = cpu_seconds(schedulers)
    trees = [pid for each in schedulers for pid in tree(each)]
    return Counter(
        {"schedulers": own, "attempts": cpu_seconds(trees) - own, "PostgreSQL": cpu_seconds(tree(server.pid))}
    )


#: what a connection waits for, by the type that PostgreSQL gives it
_WAITS = {"Lock": "locks", "IO": "disk", "LWLock": "each other's disk", "Client": "their scheduler", "none": "nothing"}
_WORKING = text(
    "SELECT coalesce(wait_event_type, 'none') FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND state IN ('active', 'idle in transaction')"
)


@contextmanager
def _waits(url: str, every_seconds: float = 0.02) -> Iterator[dict[str, float]]:
    """What the connections in a transaction wait for meanwhile: how many of them, on average."""
    found: dict[str, float] = {}
    counted: Counter[str] = Counter()
    looks, over = 0, threading.Event()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def look() -> None:
        nonlocal looks
        with engine.connect() as connection:
            while not over.wait(every_seconds):
                looks += 1
                counted.update(connection.execute(_WORKING).scalars())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        over.set()
        looking.join()
        engine.dispose()
        found.update({name: counted[kind] / max(looks, 1) for kind, name in _WAITS.items()})


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
