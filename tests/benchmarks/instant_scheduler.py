"""A scheduler whose local attempts cost no processor: `python -m tests.benchmarks.instant_scheduler`, in a project.

They claim and report in its own process, a moment after they were handed over. So what is measured is what a scheduler
and the database can do, and not how fast the machine makes processes."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from datetime import timedelta

from trainflow.executors import configured
from trainflow.executors.executor import Executor, ExecutorHost, InFlightAttempt
from trainflow.messages.execution_api import Outcome, OutcomeState, Start, Started
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.observability.processes import started_at

#: what an attempt waits, in seconds: other tasks are dealt with meanwhile
ATTEMPT_SECONDS = 0.005


class InstantExecutor(Executor):
    """Stands in for the local one."""

    def start(self, host: ExecutorHost) -> None:
        self._host = host
        self._held: set[AttemptKey] = set()
        pid = os.getpid()
        self._identity = (pid, started_at(pid), socket.gethostname())

    def queue_workload(self, workload: ExecuteTask) -> None:
        self._held.add(workload.key)
        self._host.reactor.call_later(0.0, lambda: self._begin(workload.key))

    def _begin(self, key: AttemptKey) -> None:
        if isinstance(self._host.api.handle(Start(key, *self._identity)), Started):
            self._host.reactor.call_later(ATTEMPT_SECONDS, lambda: self._end(key))

    def _end(self, key: AttemptKey) -> None:
        self._host.api.handle(Outcome(key, OutcomeState.SUCCESS))
        self._held.discard(key)
        self._host.exited(key, ProcessExit(code=0))

    def sync(self) -> None:
        """There are no processes."""

    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        return [attempt.key for attempt in attempts]

    def terminate(self, key: AttemptKey) -> None:
        self._held.discard(key)

    def running(self) -> frozenset[AttemptKey]:
        return frozenset(self._held)

    def end(self, grace: timedelta) -> None:
        self._held.clear()


def main() -> None:
    """`trainflow scheduler`, with this executor."""
    from trainflow.cli.entry import main as command

    # the local executor is made by name nowhere: every engine has it
    configured.LocalExecutor = lambda _prestarted: InstantExecutor()  # type: ignore[misc,assignment]
    sys.argv[1:] = ["scheduler"]
    command()


if __name__ == "__main__":
    main()
