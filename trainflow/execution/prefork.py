"""What a warm process does ahead of the attempts that it will fork: rehearse one, and fork a spare child.

It runs attempts of a task that does nothing itself, before it forks any. What every attempt would do for the first time
is done by then: types of messages are resolved, methods looked up, code is specialized by the interpreter. All of that
is written into memory, and pages are what an attempt costs: a child copies each one that it writes to (some 700 of
them, 2 to 4 µs each). A spare child waits for its attempt, so that the fork is not on the way from task to task.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module

import msgspec

from trainflow.authoring.context import Context
from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.clock import SystemClock
from trainflow.errors import ProtocolError
from trainflow.execution.dag_files import DagFiles, LoadedFile
from trainflow.execution.execution_api_client import ExecutionApiClient
from trainflow.execution.stop_signal import StopSignal
from trainflow.execution.task_runner import conduct
from trainflow.messages import frames
from trainflow.messages.execution_api import Done, RunInfo, Start, Started
from trainflow.messages.workload import AttemptKey, DagSource, ExecuteTask
from trainflow.observability.process_lifetime import has_children
from trainflow.observability.processes import room_for_mark, started_at
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

#: a spare is not kept longer than this without being used: an idle engine has no process too many
KEEP_SECONDS = 2.0


#: packages that neither hang nor exit when they are imported: trainflow, and what it cannot do without
_TRUSTED = ("trainflow", "fsspec", "pyarrow")
_PID = struct.Struct("=i")
_DECODER = msgspec.json.Decoder(ExecuteTask)
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


class _Nothing(BaseOperator):
    def execute(self, context: Context) -> object:
        return {"number": 1}


def rehearse(project: Project, settings: Settings) -> None:
    """Conduct attempts that claim nothing and report to no engine. To be called where there is no child yet."""
    room_for_mark()
    str(project.home.socket_path)
    files = DagFiles(project)
    with DAG(_WORKLOAD.dag_id) as dag:
        _Nothing(task_id=_WORKLOAD.task_id)
    files.put(_WORKLOAD.source, LoadedFile({dag.dag_id: dag}, ""))
    for _ in range(_TIMES):
        _attempt(project, settings, files)


def _attempt(project: Project, settings: Settings, files: DagFiles) -> None:
    stop, clock, pid = StopSignal(), SystemClock(), os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        # the answers are there before anything is asked
        for reply in (_STARTED, Done()):
            frames.send(theirs, msgspec.json.encode(reply))
        connection = ExecutionApiClient(project.home, outage_seconds=0.0, clock=clock, sleep=stop.sleep, connected=ours)
        start = Start(_WORKLOAD.key, pid, started_at(pid), socket.gethostname())
        conduct(
            *(_WORKLOAD, start, connection, project, settings, files),
            stop=stop,
            clock=clock,
            clean_up=has_children,
        )


def import_trusted(task: BaseOperator) -> None:
    """Import what is trainflow's own of what a task imports, before the task is forked: PyArrow takes 0.2 s, which the
    attempt would take, and after it the warm process."""
    for name in task.warm_modules:
        if name.partition(".")[0] in _TRUSTED:
            import_module(name)


class ImportReports:
    """A pipe on which children say that they have imported what their task imports: only then is that imported in the
    warm process, too. What hangs, exits or crashes when it is imported does so in an attempt, and in no process that
    others are forked from."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self._awaited: dict[int, ExecuteTask] = {}
        self._known: set[tuple[str, str, str]] = set()

    def is_news(self, workload: ExecuteTask) -> bool:
        """Whether no child has imported yet what this task imports."""
        return _task_of(workload) not in self._known

    def await_from(self, pid: int, workload: ExecuteTask) -> None:
        """A child runs a task that may be one whose imports are not known."""
        if self.is_news(workload):
            self._awaited[pid] = workload

    def reporter(self, workload: ExecuteTask) -> Callable[[], object] | None:
        """What a child calls when it has imported everything; None where that is known."""
        if not self.is_news(workload):
            return None
        return lambda: os.write(self._write_end, _PID.pack(os.getpid()))

    def take(self) -> list[ExecuteTask]:
        """Tasks whose imports came to their end in a child, each once."""
        pids: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read_end, _PID.size * 512):
                pids.update(pid for (pid,) in _PID.iter_unpack(data))
        imported = {_task_of(found): found for pid in pids if (found := self._awaited.pop(pid, None)) is not None}
        new = [workload for task, workload in imported.items() if task not in self._known]
        self._known.update(imported)
        return new

    def forget(self, pid: int) -> None:
        """A child has ended."""
        self._awaited.pop(pid, None)


def _task_of(workload: ExecuteTask) -> tuple[str, str, str]:
    return workload.source.path, workload.dag_id, workload.task_id


class SpareChild:
    """The parent's end of a child that was forked ahead. At most one exists at a time, and every other child closes its
    copy of this end."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection

    def give(self, workload: ExecuteTask) -> bool:
        """Hand it its attempt. False when it is not there any more (it was killed)."""
        try:
            frames.send(self._connection, msgspec.json.encode(workload))
        except OSError:
            return False
        finally:
            self._connection.close()
        return True

    def drop(self) -> None:
        """Kill the child, which is not needed: it has nothing to lose, and may hang."""
        self.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close this end: in another child, which has a copy of it."""
        self._connection.close()


def wait_for_workload(connection: socket.socket) -> ExecuteTask | None:
    """The child's end: its attempt, or None when it will get none."""
    with connection, contextlib.suppress(OSError, ProtocolError):
        data = frames.receive(connection)
        if data is not None:
            return _DECODER.decode(data)
    return None
