"""Run attempts that a scheduler elsewhere handed over: the supervisor of a host that has no engine.

The same pair as on the engine's host: a `LocalExecutor` runs the attempt, whose process speaks to the socket of a home;
the home is the worker's own, and what is asked there is handed on to the API server. What the attempt asks is answered
in a thread of its own: an API server that is away keeps neither another attempt nor a signal waiting.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from trainflow.clock import Clock
from trainflow.errors import EngineError
from trainflow.execution.http_api_client import client_of
from trainflow.execution.remote_session import RemoteSession
from trainflow.executors.execution_socket import ExecutionSocket
from trainflow.executors.local import LocalExecutor
from trainflow.executors.reactor import Reactor
from trainflow.messages.execution_api import (
    OUTCOME_REFUSED,
    Done,
    Failed,
    Outcome,
    ProcessEnded,
    Progress,
    Refused,
    Reply,
    Request,
    RowsSaved,
    Start,
    Started,
)
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.observability.processes import WORKER_VARIABLE
from trainflow.settings.home import Home
from trainflow.settings.load import load_settings
from trainflow.settings.project import HOME_VARIABLE, Project

log = logging.getLogger(__name__)

#: how long the last words of attempts are waited for when a worker ends, beyond the grace of the attempts
_LAST_SECONDS = 10.0


class WorkloadEnd(NamedTuple):
    """What became of a workload. `done`: its outcome was delivered, or another worker has the attempt."""

    key: AttemptKey
    done: bool
    message: str


class Worker:
    """Attempts on this host, of schedulers elsewhere. One thread, one reactor; its maker turns it."""

    def __init__(
        self, home: Path, clock: Clock, on_end: Callable[[WorkloadEnd], None], *, forks: bool | None = None
    ) -> None:
        """`home`: a folder of its own. `on_end`: called once for each workload. `forks`: see `LocalExecutor`."""
        self.clock = clock
        self.reactor = Reactor(clock)
        self._home = Home(home)
        self._on_end = on_end
        self._forks = forks
        self._attempts: dict[AttemptKey, _HandedAttempt] = {}
        self._hosts: dict[Path, _Host] = {}
        self._home.create()
        # what it starts finds the home, and ends with it
        os.environ[HOME_VARIABLE] = str(home)
        os.environ[WORKER_VARIABLE] = str(os.getpid())
        self._socket = _ForwardingSocket(self.reactor, self, self._home.socket_path)

    @property
    def busy(self) -> bool:
        """Whether it has attempts."""
        return bool(self._attempts)

    def run(self, workload: ExecuteTask, root: Path) -> None:
        """Run one attempt with the code in `root`. Raises EngineError, InputError, SettingsError when it cannot be
        tried."""
        if workload.key in self._attempts:
            return
        host = self._host(root)
        log_path = self._home.attempt_log(workload.dag_id, workload.run_id, workload.task_id, workload.key.attempt_id)
        attempt = _HandedAttempt(workload, log_path, host, self.clock, lambda: self._refused(workload.key))
        self._attempts[workload.key] = attempt
        # what code of users may read does not hold what claims the attempt
        own = replace(
            workload,
            project_root=str(root),
            home=str(self._home.path),
            log_path=str(log_path),
            claim_secret="",
            api_url="",
        )
        host.executor.queue_workload(own)

    def _host(self, root: Path) -> _Host:
        if root not in self._hosts:
            host = _Host(self, Project(root, self._home), LocalExecutor(forks=self._forks))
            host.executor.start(host)
            self._hosts[root] = host
        return self._hosts[root]

    def turn(self, seconds: float | None) -> None:
        """Wait for something to happen, at most so long, and deal with it."""
        self.reactor.turn(seconds)
        for host in self._hosts.values():
            host.executor.sync()

    # -- what the processes of attempts say ------------------------------------------------------------------------

    def handle(self, request: Request) -> Reply:
        """See `ExecutionApi`: of an outcome that a process wrote down, because no server took it. It is not waited
        for."""
        attempt = self._attempts.get(request.key)
        if attempt is None:
            return _UNKNOWN
        attempt.in_order(lambda: attempt.ask(request))
        return Done()

    def forward(self, request: Request, send: Callable[[Reply], None]) -> None:
        """Hand a request on, and the reply back when it comes."""
        attempt = self._attempts.get(request.key)
        if attempt is None:
            send(_UNKNOWN)
            return
        attempt.begun = True

        def ask() -> None:
            reply = attempt.ask(request)
            if not isinstance(request, Progress | RowsSaved):
                self.reactor.call_soon(lambda: send(reply))

        attempt.in_order(ask)

    def has_begun(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_begun`."""
        attempt = self._attempts.get(key)
        return attempt is None or attempt.begun

    def has_reported(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_reported`."""
        attempt = self._attempts.get(key)
        return attempt is None or attempt.has_reported

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`."""
        attempt = self._attempts.get(key)
        if attempt is None or attempt.ends:
            return
        attempt.ends = True

        def end() -> None:
            ended = attempt.end(exit)
            attempt.close()
            self.reactor.call_soon(lambda: self._ended(ended))

        attempt.in_order(end)

    def _ended(self, ended: WorkloadEnd) -> None:
        if self._attempts.pop(ended.key, None) is not None:
            self._on_end(ended)

    def _refused(self, key: AttemptKey) -> None:
        """The attempt is not waited for any more. Called from a thread of its session."""
        attempt = self._attempts.get(key)
        if attempt is None or not attempt.is_misled:
            self.reactor.call_soon(lambda: self.terminate(key))
        elif not attempt.shielded:
            # what it saves is gone on from by whichever control plane has the chain
            self.reactor.call_soon(lambda: self._preempt(key))

    def _preempt(self, key: AttemptKey) -> None:
        for host in self._hosts.values():
            host.executor.preempt(key)

    def terminate(self, key: AttemptKey) -> None:
        """End an attempt that is not waited for any more."""
        for host in self._hosts.values():
            host.executor.terminate(key)

    # -- the end ---------------------------------------------------------------------------------------------------

    def end(self, grace: timedelta) -> None:
        """Tell the attempts to stop, let them save how far they are and report, and give everything back."""
        for host in self._hosts.values():
            host.executor.end(grace)
        for key in list(self._attempts):
            self.exited(key, ProcessExit(reason="its worker was stopped"))
        deadline = self.clock.monotonic() + _LAST_SECONDS
        while self._attempts and (left := deadline - self.clock.monotonic()) > 0:
            self.reactor.turn(min(left, 0.5))
        for key in list(self._attempts):
            self._ended(WorkloadEnd(key, False, "the API server did not hear how it ended"))
        self._socket.close()
        self.reactor.close()

    def hurry(self) -> None:
        """A second stop was asked for: no more grace."""
        for host in self._hosts.values():
            host.executor.hurry()


_UNKNOWN = Refused("this worker does not have the attempt")


class _Host:
    """What the executor of one folder of code gets of its worker. See `ExecutorHost`."""

    def __init__(self, worker: Worker, project: Project, executor: LocalExecutor) -> None:
        self.project = project
        self.settings = load_settings(project)
        self.clock = worker.clock
        self.reactor = worker.reactor
        self.api = worker
        self.executor = executor
        self._worker = worker

    def has_begun(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_begun`."""
        return self._worker.has_begun(key)

    def has_reported(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_reported`."""
        return self._worker.has_reported(key)

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`."""
        self._worker.exited(key, exit)

    def note(self, key: AttemptKey, text: str | None) -> None:
        """See `ExecutorHost.note`: an executor of its host begins at once."""

    def not_taken(self, workload: ExecuteTask, reason: str) -> None:
        """See `ExecutorHost.not_taken`."""
        self.exited(workload.key, ProcessExit(reason=reason))

    def taken(self, executor: str) -> None:
        """See `ExecutorHost.taken`: nothing of a worker is handed on."""


class _ForwardingSocket(ExecutionSocket):
    """Hands on what attempts ask, instead of answering it."""

    def __init__(self, reactor: Reactor, worker: Worker, path: Path) -> None:
        super().__init__(reactor, worker, path)
        self._worker = worker

    def _respond(self, request: Request, send: Callable[[Reply], None]) -> None:
        self._worker.forward(request, send)


class _HandedAttempt:
    """One attempt: its line to the API server, and what was said on it. `ask` and `end` are called one after the other,
    in a thread of its own."""

    def __init__(
        self, workload: ExecuteTask, log_path: Path, host: _Host, clock: Clock, on_refused: Callable[[], None]
    ) -> None:
        self._key = workload.key
        self._api_url = workload.api_url
        #: short and worth finishing
        self.shielded = workload.shielded
        #: its process has ended, and that is being said
        self.ends = False
        #: its process has said a word
        self.begun = False
        self.claimed = False
        self._reported: Reply | None = None
        #: why its claim was refused, or could not be understood
        self._refused: str | None = None
        self._not_claimed: str | None = None
        client = client_of(workload, host.project, host.settings, clock=clock, sleep=time.sleep)
        self._session = RemoteSession(
            client,
            workload.key,
            heartbeat_seconds=host.settings.workers.heartbeat_seconds,
            on_refused=lambda _reason: on_refused(),
            log_file=log_path,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"attempt {workload.key.attempt_id}")

    @property
    def is_misled(self) -> bool:
        """Whether another control plane than its own answers."""
        return self._session.is_misled

    @property
    def has_reported(self) -> bool:
        """Whether the API server has heard how it ended."""
        return self._reported is not None

    def in_order(self, work: Callable[[], object]) -> None:
        """Do something after all that was asked for before."""
        self._thread.submit(work)

    def ask(self, request: Request) -> Reply:
        """Ask the API server, through its outages."""
        try:
            reply = self._session.handle(request)
        except EngineError as error:
            return Failed("EngineError", str(error))
        except Exception as error:
            log.exception("a request of attempt %s could not be handed on", self._key.attempt_id)
            return Failed("EngineError", f"the worker could not hand it on: {error}")
        match request, reply:
            case Start(), Started():
                self.claimed = True
            case Start(), Refused(reason):
                self._refused = reason
            case Start(), Failed(message=message):
                self._not_claimed = message
            case Outcome(), Failed(error=kind) if kind == OUTCOME_REFUSED:
                self._reported = Done()  # it could not be kept: that is how the attempt has ended
            case Outcome(), _:
                self._reported = reply
        return reply

    def end(self, exit: ProcessExit) -> WorkloadEnd:
        """The process has ended: say so where it has not said how itself."""
        if self._refused is not None:
            return WorkloadEnd(self._key, True, f"not run here: {self._refused} (says {self._api_url})")
        if not self.claimed:
            why = f"{self._not_claimed} (says {self._api_url})" if self._not_claimed is not None else _in_words(exit)
            return WorkloadEnd(self._key, False, f"it never began: {why}")
        if self._reported is None:
            self._reported = self.ask_to_note(exit)
        match self._reported:
            case Refused(reason):
                return WorkloadEnd(self._key, True, f"it changed nothing: {reason}")
            case Failed(message=message):
                return WorkloadEnd(self._key, False, f"how it ended could not be delivered: {message}")
        return WorkloadEnd(self._key, True, "its outcome was delivered")

    def ask_to_note(self, exit: ProcessExit) -> Reply:
        """Tell how the process ended that said nothing itself."""
        try:
            return self._session.say(ProcessEnded(self._key, exit))
        except EngineError as error:
            return Failed("EngineError", str(error))

    def close(self) -> None:
        """Hang up, once what is left of the log was sent."""
        self._session.close()
        self._thread.shutdown(wait=False)


def _in_words(exit: ProcessExit) -> str:
    if exit.reason is not None:
        return exit.reason
    return f"exit code {exit.code}" if exit.code is not None else f"signal {exit.signal}"
