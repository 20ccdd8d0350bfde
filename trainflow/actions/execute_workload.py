"""Run one attempt that a scheduler elsewhere handed over, from its workload to the report of its end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec

from trainflow.clock import Clock
from trainflow.engine.startup import stopping_on_signals
from trainflow.errors import EngineError, InputError
from trainflow.execution.code_bundles import code_of
from trainflow.executors.worker import Worker, WorkloadEnd
from trainflow.executors.worker_home import worker_home
from trainflow.messages.workload import ExecuteTask
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at

_TURN_SECONDS = 5.0


def read_workload(text: str | bytes) -> ExecuteTask:
    """A workload as an executor wrote it. Raises InputError for what is none; nothing of it is shown: it holds a
    secret."""
    try:
        workload = msgspec.json.decode(text, type=ExecuteTask)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InputError("the workload is no JSON of a task to execute") from None
    if not workload.api_url or not workload.claim_secret:
        raise InputError("the workload does not say where the API server is, or with what its attempt is claimed")
    return workload


def execute_workload(workload: ExecuteTask, *, project: Path | None, clock: Clock) -> WorkloadEnd:
    """Run it to its end, or until SIGTERM: then it saves how far it is, and is preempted.

    Raises InputError and EngineError when it cannot be tried here; its attempt is not claimed then.
    """
    root = code_of(workload, project, Path.cwd())
    grace = load_settings(project_at(root)).engine.stop_grace_seconds
    ends: list[WorkloadEnd] = []
    with worker_home() as home:
        worker = Worker(home, clock, ends.append, forks=False)
        stops = 0

        def stop(_number: int, _frame: object) -> None:
            nonlocal stops
            stops += 1
            if stops > 1:
                worker.hurry()
            worker.reactor.wake()

        with stopping_on_signals(stop):
            try:
                worker.run(workload, root)
                while worker.busy and not stops:
                    worker.turn(_TURN_SECONDS)
            finally:
                worker.end(timedelta(seconds=grace))
    if not ends:
        raise EngineError(f"attempt {workload.key.attempt_id} was stopped before it began")
    return ends[0]
