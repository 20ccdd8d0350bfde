"""The process that runs one attempt, and nothing else: a child of the warm process, or an interpreter of its own.

`python -m trainflow.execution.attempt_main` is that interpreter, for code that must not be forked. The workload comes
in an environment variable, so that nothing has to be mounted or copied beforehand.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from trainflow.clock import Clock, SystemClock
from trainflow.execution.dag_files import DagFiles
from trainflow.execution.execution_api_client import ExecutionApiClient
from trainflow.execution.leftover_processes import end_descendants, exit_process
from trainflow.execution.stop_signal import StopSignal
from trainflow.execution.task_runner import conduct
from trainflow.messages.execution_api import Start, Started
from trainflow.messages.workload import WORKLOAD_VARIABLE, ExecuteTask, ProcessIdentity
from trainflow.observability import redacted_output
from trainflow.observability.logs import configure_logging, redirect_output
from trainflow.observability.process_lifetime import GRACE_SECONDS, adopt_orphans, die_with_parent
from trainflow.observability.processes import WORKER_VARIABLE, carry_mark, hostname, started_at
from trainflow.observability.resource_exhaustion import BROKEN, exit_code_of
from trainflow.settings.load import load_settings
from trainflow.settings.model import Settings
from trainflow.settings.project import Project, project_at


class Prepared(NamedTuple):
    """What an attempt needs whatever its task is."""

    stop: StopSignal
    clock: Clock
    connection: ExecutionApiClient
    process: ProcessIdentity
    hostname: str
    #: told once what the task imports has been imported; None: nothing waits for that
    imported: Callable[[], object] | None = None


def prepare(project: Project, settings: Settings) -> Prepared:
    """Make this process one that runs an attempt, as far as that can be done before it is known which."""
    if WORKER_VARIABLE in os.environ:
        die_with_parent(os.getppid())
    stop, clock = StopSignal(settings.engine.stop_grace_seconds), SystemClock()
    stop.install()
    adopt_orphans()
    connection = ExecutionApiClient(
        project.home, outage_seconds=settings.executor.outage_seconds, clock=clock, sleep=stop.sleep
    )
    connection.open()
    pid = os.getpid()
    return Prepared(stop, clock, connection, ProcessIdentity(pid, started_at(pid)), hostname())


def run_attempt(
    workload: ExecuteTask,
    project: Project,
    settings: Settings,
    files: DagFiles,
    prepared: Prepared,
    started: Started | None = None,
) -> int:
    """Run one attempt in this process, from claim to report (`started`: see `conduct`). Returns the exit code.

    The process that made this one has configured its logging, to stderr.
    """
    carry_mark(workload.key.attempt_id)
    if workload.traceparent:
        # what it traces itself, and programs that it starts, hang under its span
        os.environ["TRACEPARENT"] = workload.traceparent
        os.environ.pop("TRACESTATE", None)
    redirect_output(workload.log_path)
    return conduct(
        workload,
        claim_of(workload, prepared.process, prepared.hostname),
        prepared.connection,
        project,
        settings,
        files,
        stop=prepared.stop,
        clock=prepared.clock,
        clean_up=lambda: end_descendants(min(GRACE_SECONDS, settings.engine.stop_grace_seconds)),
        imported=prepared.imported,
        started=started,
    )


def claim_of(workload: ExecuteTask, process: ProcessIdentity, hostname: str) -> Start:
    """What a process claims the attempt with, or inherits the claim that was made for another one."""
    return Start(workload.key, process.pid, process.process_started, hostname, instead_of=workload.instead_of)


def main() -> int:
    """Read the workload and run it. Returns the exit code."""
    redacted_output.install()
    workload = msgspec.json.decode(os.environ.pop(WORKLOAD_VARIABLE), type=ExecuteTask)
    project = project_at(Path(workload.project_root))
    settings = load_settings(project)
    configure_logging(settings.logging.level)
    return run_attempt(workload, project, settings, DagFiles(project), prepare(project, settings))


if __name__ == "__main__":
    code = BROKEN
    try:
        code = main()
    except BaseException as error:
        code = exit_code_of(error, BROKEN)
        traceback.print_exc()
    finally:
        exit_process(code)
