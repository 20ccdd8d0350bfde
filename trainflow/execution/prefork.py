"""What a warm process does before it forks its first attempt, and each child while it waits: rehearse one.

It runs attempts of a task that does nothing itself, before it forks any. What every attempt would do for the first time
is done by then: types of messages are resolved, methods looked up, code is specialized by the interpreter. All of that
is written into memory, and pages are what an attempt costs: a child copies each one that it writes to (some 700 of
them, 2 to 4 µs each). A child that waits for its attempt has the time to do that before.
"""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from importlib import import_module

import msgspec

from trainflow.authoring.context import Context
from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.clock import SystemClock
from trainflow.execution.dag_files import DagFiles, LoadedFile
from trainflow.execution.execution_api_client import ExecutionApiClient
from trainflow.execution.stop_signal import StopSignal
from trainflow.execution.task_runner import conduct
from trainflow.messages import frames
from trainflow.messages.execution_api import Done, RunInfo, Start, Started
from trainflow.messages.forkserver import ToWaiting
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.observability.process_lifetime import has_children
from trainflow.observability.processes import hostname, room_for_mark, started_at
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

#: packages that neither hang nor exit when they are imported: trainflow, and what it cannot do without
_TRUSTED = ("trainflow", "fsspec", "pyarrow")
#: the interpreter specializes a function at its eighth call
_TIMES = 9
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
_WORKLOAD = ExecuteTask(
    AttemptKey("rehearsal"), 0, "rehearsal", "rehearsal", "task", -1, DagSource("rehearsal"), "/", "/", "/dev/null"
)
_STARTED = Started(
    RunInfo("rehearsal", "rehearsal", "manual", {}, _BEGINNING, _BEGINNING, _BEGINNING, _BEGINNING),
    try_number=1,
    max_tries=1,
    first_started_at=_BEGINNING,
)


_LAUNCH = msgspec.json.Decoder(ToWaiting)
_ENCODED = msgspec.json.encode(ToWaiting(_WORKLOAD, _STARTED))


class _Nothing(BaseOperator):
    def execute(self, context: Context) -> object:
        return {"number": 1}


def import_trusted(task: BaseOperator) -> None:
    """Import what is trainflow's own of what a task imports, before the task is forked: PyArrow takes 0.2 s, which the
    attempt would take, and after it the warm process."""
    for name in task.warm_modules:
        if name.partition(".")[0] in _TRUSTED:
            import_module(name)


class Rehearsal:
    """An attempt that claims nothing and reports to no engine."""

    def __init__(self, project: Project, settings: Settings) -> None:
        room_for_mark()
        str(project.home.socket_path)
        self._project = project
        self._settings = settings
        self._files = DagFiles(project)
        with DAG(_WORKLOAD.dag_id) as dag:
            _Nothing(task_id=_WORKLOAD.task_id)
        self._files.put(_WORKLOAD.source, LoadedFile({dag.dag_id: dag}, ""))

    def perform_all(self) -> None:
        """Perform as often as makes a difference to the interpreter. To be called where there is no child yet."""
        for _ in range(_TIMES):
            self.perform()

    def perform(self) -> None:
        """Perform once: what an attempt writes to belongs to this process alone afterwards."""
        stop, clock, pid = StopSignal(), SystemClock(), os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            # the answer is there before anything is asked
            frames.send(theirs, msgspec.json.encode(Done()))
            connection = ExecutionApiClient(
                self._project.home, outage_seconds=0.0, clock=clock, sleep=stop.sleep, connected=ours
            )
            launch = _LAUNCH.decode(_ENCODED)
            conduct(
                launch.workload,
                Start(_WORKLOAD.key, pid, started_at(pid), hostname()),
                *(connection, self._project, self._settings, self._files),
                stop=stop,
                clock=clock,
                clean_up=has_children,
                started=launch.started,
            )
