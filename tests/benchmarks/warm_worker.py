"""A worker that has a warm process and takes workloads from a pipe: `python -m tests.benchmarks.warm_worker`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import msgspec

from trainflow.clock import SystemClock
from trainflow.executors.worker import Worker
from trainflow.messages.workload import ExecuteTask
from trainflow.observability.logs import configure_logging
from trainflow.observability.process_lifetime import watch_parent


def main() -> None:
    """Take one workload a line, until the other side hangs up."""
    watch_parent(os.getppid())
    configure_logging("WARNING")
    worker = Worker(Path(tempfile.mkdtemp(prefix="trainflow_bench_worker_")), SystemClock(), lambda _end: None)
    os.set_blocking(0, False)
    buffer = b""
    over = False

    def read() -> None:
        nonlocal buffer, over
        data = os.read(0, 1 << 20)
        over = not data
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            workload = msgspec.json.decode(line, type=ExecuteTask)
            worker.run(workload, Path(workload.project_root))

    worker.reactor.watch(0, read)
    while not over:
        worker.turn(5.0)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
