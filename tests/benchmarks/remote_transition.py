"""End of one task to end of the next over HTTP: engine, API server and a warm worker on one host, over PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from itertools import pairwise

import msgspec
from sqlalchemy import select

from tests.benchmarks.transition import PIPELINE
from tests.benchmarks.workbench import bench, show
from tests.support.local_databases import local_postgres
from tests.support.ports import free_port
from trainflow.bootstrap import interpreter
from trainflow.executors import plugins
from trainflow.executors.executor import ExecutorHost
from trainflow.executors.remote import RemoteExecutor
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries.task_queries import TASK


class WarmWorkerExecutor(RemoteExecutor):
    """Hands workloads to a worker through a pipe: as a broker does, in no time."""

    def start(self, host: ExecutorHost) -> None:
        super().start(host)
        self._worker = subprocess.Popen(interpreter("tests.benchmarks.warm_worker"), stdin=subprocess.PIPE)

    def deliver(self, workload: ExecuteTask) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.write(msgspec.json.encode(workload) + b"\n")
        self._worker.stdin.flush()

    def end(self, grace: timedelta) -> None:
        super().end(grace)
        assert self._worker.stdin is not None
        self._worker.stdin.close()
        self._worker.wait()


def main(rounds: int = 5) -> None:
    """Print the latency of a transition, in milliseconds, over SQLite and PostgreSQL."""
    plugins._OWN["warm"] = "tests.benchmarks.remote_transition:WarmWorkerExecutor"
    _measure("SQLite", "", rounds)
    with local_postgres() as server:
        _measure("PostgreSQL", f'[database]\nurl = "{server.new_database()}"\n', rounds)


def _measure(kind: str, settings: str, rounds: int) -> None:
    settings += f'[api]\nport = {free_port()}\n[executor]\ndefault = "warm"\n[executors]\nwarm = {{slots = 4}}\n'
    with bench(settings, serves=True, chain_of_30=PIPELINE) as made:
        gaps: list[float] = []
        for number in range(rounds + 1):
            root = made.trigger("chain_of_30")
            made.run_to_end(root)
            with made.engine.database.reading() as connection:
                ends = connection.execute(
                    select(TASK.c.ended_at).where(TASK.c.dag_run_id == root).order_by(TASK.c.id)
                ).scalars()
                moments = [moment for moment in ends if moment is not None]
            if number:  # the first round warms up
                gaps += [(b - a).total_seconds() * 1000 for a, b in pairwise(moments)]
        show(f"transition over HTTP, warm worker, {kind}", gaps, "ms", "≤ 15 ms")


if __name__ == "__main__":
    sys.exit(main())
