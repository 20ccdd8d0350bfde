"""Run each attempt as a process of its own on this host that speaks over HTTP: `trainflow execute-workload`.

The smallest executor there is whose attempts are elsewhere as far as the engine is concerned. It shows how one is
written, and proves the way over the API server end to end.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any, Self

import msgspec

from trainflow.bootstrap import interpreter
from trainflow.executors.attempt_process import PidWatch
from trainflow.executors.executor import ExecutorUnavailable
from trainflow.executors.plugins import read_options
from trainflow.executors.remote import REDELIVER_SECONDS, RemoteExecutor
from trainflow.messages.workload import WORKLOAD_VARIABLE, AttemptKey, ExecuteTask, ProcessExit
from trainflow.settings.environment import worker_environment

log = logging.getLogger(__name__)


class WorkloadOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a table of type `workload` holds besides `type` and `slots`."""

    #: seconds after which an attempt that no worker has begun is delivered again
    redeliver_seconds: Annotated[float, msgspec.Meta(gt=0)] = REDELIVER_SECONDS


class WorkloadExecutor(RemoteExecutor):
    """`type = "workload"`: supervisors on this host, which go on when the engine ends."""

    def __init__(self, options: WorkloadOptions | None = None) -> None:
        super().__init__(redeliver_seconds=(options or WorkloadOptions()).redeliver_seconds)
        self._supervisors: dict[AttemptKey, tuple[subprocess.Popen[bytes], PidWatch]] = {}

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        return cls(read_options(name, options, WorkloadOptions))

    def deliver(self, workload: ExecuteTask) -> None:
        if workload.key in self._supervisors:
            return
        try:
            process = subprocess.Popen(
                interpreter("trainflow.cli.entry", "execute-workload"),
                env=worker_environment(os.environ) | {WORKLOAD_VARIABLE: msgspec.json.encode(workload).decode()},
                cwd=workload.project_root,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ExecutorUnavailable(f"no process can be started: {error.strerror}") from error
        key = workload.key
        self._supervisors[key] = (process, PidWatch(self._host.reactor, process.pid, lambda: self._ended(key)))

    def sync(self) -> None:
        for key, (process, _) in list(self._supervisors.items()):
            if process.poll() is not None:
                self._ended(key)
        super().sync()

    def _ended(self, key: AttemptKey) -> None:
        process, watch = self._supervisors.pop(key)
        watch.close()
        code = process.wait()
        if code == 0:
            # it has delivered the outcome, or another process has the attempt: nothing is left to say
            return
        if code < 0:
            self.forget(key, ProcessExit(reason=f"its supervisor was killed (signal {-code})"))
        else:
            self.forget(key, ProcessExit(reason=f"its supervisor ended with exit code {code}: see the engine's log"))

    def withdraw(self, key: AttemptKey) -> None:
        if key in self._supervisors:
            with suppress(ProcessLookupError):
                self._supervisors[key][0].send_signal(signal.SIGTERM)

    def end(self, grace: timedelta) -> None:
        for process, watch in self._supervisors.values():
            watch.close()
            if process.poll() is None:
                process.returncode = 0  # let go: it goes on without this engine
        self._supervisors.clear()
        super().end(grace)
