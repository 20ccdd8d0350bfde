"""Run attempts that a scheduler elsewhere handed over: the supervisor of a host that has no engine.

The same pair as on the engine's host: a `LocalExecutor` runs the attempt, whose process speaks to the socket of a home;
the home is the worker's own, and what is asked there is handed on to the API server. What the attempt asks is answered
in a thread that no other attempt uses meanwhile: an API server that is away keeps neither another attempt nor a signal
waiting.

That home is a folder in the temporary folder, which goes when the worker ends. What one that was
killed has left goes when the next one of its host and user begins.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from trainflow.clock import Clock
from trainflow.errors import EngineError
from trainflow.execution.http_api_client import ApiAddress, authorities_of, client_of
from trainflow.execution.remote_attempt import AttemptSession
from trainflow.executors.execution_socket import ExecutionSocket
from trainflow.executors.handed_attempt import HandedAttempt, WorkloadEnd
from trainflow.executors.local import LocalExecutor
from trainflow.executors.reactor import Callback, Reactor
from trainflow.messages.execution_api import Done, Progress, Refused, Reply, Request, RowsSaved
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.observability.processes import WORKER_VARIABLE, hostname, is_alive, started_at
from trainflow.settings.home import Home
from trainflow.settings.load import load_settings
from trainflow.settings.project import HOME_VARIABLE, Project

log = logging.getLogger(__name__)

#: how long the last words of attempts are waited for when a worker ends, beyond the grace of the attempts
_LAST_SECONDS = 10.0
#: attempts that may wait for an answer at the same time
_MOST_THREADS = 1_000


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
        self._attempts: dict[AttemptKey, HandedAttempt] = {}
        self._hosts: dict[Path, _Host] = {}
        self._addresses: dict[tuple[str, str | None], ApiAddress] = {}
        #: as many as there are attempts which wait for an answer: made when they are needed, and used again
        self._ending = threading.Event()
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="attempt")
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
        session = AttemptSession(
            client_of(
                workload,
                host.project,
                host.settings,
                clock=self.clock,
                sleep=self._pause,
                address=self._address(workload.api_url, authorities_of(host.project, host.settings)),
            ),
            workload.key,
            heartbeat_seconds=host.settings.workers.heartbeat_seconds,
            on_refused=lambda _reason: self._refused(workload.key),
            log_file=log_path,
            call_later=self._call_later,
        )
        attempt = HandedAttempt(workload, session, self._threads)
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
        try:
            host.executor.queue_workload(own)
        except EngineError:
            # it may come again
            del self._attempts[workload.key]
            attempt.in_order(attempt.close)
            raise

    def _address(self, url: str, ca_file: str | None) -> ApiAddress:
        key = (url, ca_file)
        if key not in self._addresses:
            self._addresses[key] = ApiAddress(url, ca_file)
        return self._addresses[key]

    def _call_later(self, seconds: float, callback: Callback) -> None:
        """`Reactor.call_later`, for other threads."""
        with suppress(OSError):  # it has ended
            self.reactor.call_soon(lambda: _begin_timer(self.reactor, seconds, callback))

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

    def has_begun(self, key: AttemptKey, pid: int | None = None) -> bool:
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

        def tell(ended: WorkloadEnd) -> None:
            self.reactor.call_soon(lambda: self._ended(ended))

        attempt.in_order(lambda: attempt.finish(exit, tell))

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

    def _pause(self, seconds: float) -> None:
        """Wait, but for no longer than this worker is there."""
        self._ending.wait(seconds)

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
        # a thread that waits for an answer would keep the process, and begin what is not run any more
        self._ending.set()
        for key, attempt in list(self._attempts.items()):
            attempt.give_up()
            self._ended(WorkloadEnd(key, False, "the API server did not hear how it ended"))
        self._threads.shutdown(wait=False)
        for address in self._addresses.values():
            address.hang_up()
        self._socket.close()
        self.reactor.close()

    def hurry(self) -> None:
        """A second stop was asked for: no more grace."""
        for host in self._hosts.values():
            host.executor.hurry()


def _begin_timer(reactor: Reactor, seconds: float, callback: Callback) -> None:
    reactor.call_later(seconds, callback)


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

    def has_begun(self, key: AttemptKey, pid: int | None = None) -> bool:
        """See `ExecutorHost.has_begun`."""
        return self._worker.has_begun(key, pid)

    def has_reported(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_reported`."""
        return self._worker.has_reported(key)

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`."""
        self._worker.exited(key, exit)

    def note(self, key: AttemptKey, text: str | None) -> None:
        """See `ExecutorHost.note`: an executor of its host begins at once."""

    def explain(self, key: AttemptKey, cause: str) -> None:
        """See `ExecutorHost.explain`: an executor of its host sees the end itself."""

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


_PREFIX = "trainflow_worker_"


@contextmanager
def worker_home() -> Iterator[Path]:
    """A folder for the process that asks, called after it. Sweeps those of processes that are gone."""
    folder = Path(tempfile.gettempdir())
    sweep_worker_homes(folder)
    pid = os.getpid()
    # hosts may share a temporary folder, and none can see the processes of another
    owner = f"{pid}_{started_at(pid):.0f}_{hostname()}"
    made = Path(tempfile.mkdtemp(dir=folder, prefix=f"{_PREFIX}{owner}."))
    try:
        yield made
    finally:
        _remove(made)


def sweep_worker_homes(folder: Path) -> None:
    """Remove the homes in `folder` whose process is gone: those of this host and user. What cannot be removed stays."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another one that begins was faster
            if path.lstat().st_uid == os.getuid() and _is_left(path.name):
                _remove(path)


def _is_left(name: str) -> bool:
    owner, _, _ = name.removeprefix(_PREFIX).rpartition(".")
    pid, _, rest = owner.partition("_")
    started, _, host = rest.partition("_")
    if host != hostname() or not (pid.isdecimal() and started.isdecimal()):
        return False
    return not is_alive(int(pid), float(started))


def _remove(folder: Path) -> None:
    Home(folder).socket_path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
