"""Run attempts on this host: children of a warm process, or a fresh interpreter each.

Forked by default. An attempt is run in an interpreter of its own where `isolation` says so, where the imports of its
pipeline start threads or have killed warm workers, and where a forked child has not said a word: it may hang in what a
library does after a fork.

A child reports to the home's socket by itself, so it outlives the engine and its warm worker: when either is killed it
goes on, and the next engine adopts it.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from trainflow.errors import DatabaseUnavailable
from trainflow.executors.attempt_process import AttemptProcess, ProcessReaper
from trainflow.executors.execution_socket import apply_spooled
from trainflow.executors.executor import Executor, ExecutorHost, ExecutorUnavailable, InFlightAttempt
from trainflow.executors.spawn import SpawnedForkserver, spawn_attempt
from trainflow.executors.warm_workers import ForkserverClient, WarmWorkers
from trainflow.messages.execution_api import Started
from trainflow.messages.forkserver import ChildEnded, FromWorker, Launched, NotLaunched, Stale, Threaded, Unused
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit, ProcessIdentity
from trainflow.observability import processes
from trainflow.observability.oom_kills import OomKills
from trainflow.observability.process_lifetime import GRACE_SECONDS, signal_all
from trainflow.observability.processes import ProcessEntry, hostname, left_by_attempt, process_table
from trainflow.settings.executors import local_executor

log = logging.getLogger(__name__)

_UNSEEN = "the process ended while it was not watched"


class LocalExecutor(Executor):
    """The executor of this host."""

    def __init__(self, prestarted: SpawnedForkserver | None = None, *, forks: bool | None = None) -> None:
        """`prestarted`: a warm worker that is already importing. `forks`: whether it forks attempts; None: as the
        settings say."""
        self._forks = forks
        self._prestarted = prestarted
        self._held: dict[AttemptKey, AttemptProcess] = {}
        self._ending = False
        self._hurried = False

    # -- contract --------------------------------------------------------------------------------------------------

    def start(self, host: ExecutorHost) -> None:
        self._host = host
        self._memory = OomKills(host.clock)
        local = local_executor(host.settings)
        as_set = local is None or local.isolation != "spawn"
        self._workers = WarmWorkers(
            host,
            self._memory,
            forks=as_set if self._forks is None else self._forks,
            prestarted=self._prestarted,
            on_message=self._heard,
            on_death=self._worker_died,
        )

    def queue_workload(self, workload: ExecuteTask) -> None:
        if workload.key not in self._held:
            held = self._held[workload.key] = AttemptProcess(workload, self._memory.look())
            self._launch(workload, held)

    def waiting_processes(self, workload: ExecuteTask) -> Sequence[ProcessIdentity]:
        return self._workers.waiting_for(workload)

    def queue_claimed(self, workload: ExecuteTask, process: ProcessIdentity, started: Started) -> None:
        if workload.key in self._held:
            return
        otherwise = replace(workload, instead_of=process)
        held = self._held[workload.key] = AttemptProcess(otherwise, self._memory.look())
        worker = None
        with contextlib.suppress(OSError):  # none can be started that it would be given to
            worker = self._workers.for_attempt(workload)
        if worker is not None and self._workers.give(worker, workload, process, started):
            held.worker = worker
            self._launched(worker, workload.key, process.pid)
        else:
            self._launch_or_put_back(otherwise, held)

    def _launch_or_put_back(self, workload: ExecuteTask, held: AttemptProcess) -> None:
        try:
            self._launch(workload, held)
        except ExecutorUnavailable as error:
            self._host.not_taken(workload, str(error))

    def _launch(self, workload: ExecuteTask, held: AttemptProcess) -> None:
        """Start what runs it. Raises ExecutorUnavailable, and has it no more, when the system gives no process or no
        descriptor for that."""
        try:
            held.worker = worker = self._workers.for_attempt(workload, alone=held.alone)
            if worker is None:
                self._spawn(workload, held)
                return
        except OSError as error:
            self._forget(workload.key)
            raise ExecutorUnavailable(f"no process can be started: {error.strerror or error}") from error
        seconds = self._host.settings.dag_processor.parse_timeout_seconds
        held.launch_timer = self._host.reactor.call_later(seconds, lambda: self._no_word(workload.key))
        pid = self._workers.launch(worker, workload)
        if pid is not None:
            self._launched(worker, workload.key, pid)

    def sync(self) -> None:
        self._memory.look()
        for key, held in list(self._held.items()):
            if held.watch is None and held.process is not None:
                self._reap_spawned(key, held)
            elif held.watch is None and held.pid is not None and not self._workers.has_child(held.pid):
                self._check_orphan(key, held)

    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        lost = []
        for attempt in attempts:
            if self._apply_spooled(attempt.key):
                continue
            held = self._held.get(attempt.key) or AttemptProcess(None, self._memory.look())
            if _runs_here(attempt):
                self._held[attempt.key] = held
                held.pid = attempt.pid
                self._watch_orphan(attempt.key, held)
            elif attempt.hostname == hostname() and self._remains(attempt.key, attempt.pid):
                self._held[attempt.key] = held
                held.pid = attempt.pid
                self._end_remains(attempt.key, held, ProcessExit(reason=_UNSEEN))
            else:
                lost.append(attempt.key)
        return lost

    def terminate(self, key: AttemptKey) -> None:
        # see `trainflow.execution.stop_signal`: nothing is worth saving any more
        self._stop(key, signal.SIGINT)

    def preempt(self, key: AttemptKey) -> None:
        """Have one attempt save how far it is, and stop."""
        self._stop(key, signal.SIGTERM)

    def _stop(self, key: AttemptKey, number: signal.Signals) -> None:
        held = self._held.get(key)
        if held is not None and held.told is None:
            held.told = number
            self._tell_to_stop(key, held)

    def _tell_to_stop(self, key: AttemptKey, held: AttemptProcess) -> None:
        if held.pid is None or held.told is None:
            return  # told as soon as it is there
        log.info("stopping attempt %s (pid %d)", key.attempt_id, held.pid)
        held.tell(held.told)
        grace = self._host.settings.engine.stop_grace_seconds
        held.kill_timer = self._host.reactor.call_later(grace, lambda: self._kill(key))

    def running(self) -> frozenset[AttemptKey]:
        return frozenset(self._held)

    def end(self, grace: timedelta) -> None:
        self._ending = True
        for key, held in list(self._held.items()):
            if held.workload is None or not held.workload.shielded:
                self.preempt(key)
        deadline = self._host.clock.monotonic() + grace.total_seconds()
        while self._held and not self._hurried and (left := deadline - self._host.clock.monotonic()) > 0:
            # whatever becomes of the database: they are being waited for, and write down what is not heard
            with contextlib.suppress(DatabaseUnavailable):
                self._host.reactor.turn(min(left, 0.5))
                self.sync()
        for key, held in list(self._held.items()):
            self._kill(key)
            if held.process is not None:
                held.process.wait()
            signal_all(self._remains(key, held.pid), signal.SIGKILL)
            # what becomes of it is decided by the next engine, which finds it dead
            self._forget(key)
        self._workers.close()

    def hurry(self) -> None:
        self._hurried = True

    # -- warm workers ----------------------------------------------------------------------------------------------

    @property
    def warm_process(self) -> ForkserverClient | None:
        """The worker that serves now; the DAG processor borrows it to parse. None when attempts are not forked."""
        return self._workers.serving

    def _heard(self, worker: ForkserverClient, message: FromWorker) -> None:
        match message:
            case Launched(key, pid):
                self._launched(worker, key, pid)
            case NotLaunched(key, reason):
                self._not_launched(worker, key, reason)
            case Unused(pid, changed):
                self._unused(worker, pid, changed)
            case ChildEnded(pid, code, number, left):
                self._child_ended(pid, code, number, left)
                self._retire(worker)
            case Stale(changed, key):
                self._workers.stale(worker, changed)
                self._replace(worker, key)
            case Threaded(key=key):
                self._workers.threaded(worker, message)
                self._replace(worker, key)

    def _launched(self, worker: ForkserverClient, key: AttemptKey, pid: int) -> None:
        held = self._held.get(key)
        workload = held.workload if held is not None and held.worker is worker else None
        self._workers.launched(workload)
        if held is None or workload is None:
            return
        held.pid = pid
        self._tell_to_stop(key, held)

    def _not_launched(self, worker: ForkserverClient, key: AttemptKey, reason: str) -> None:
        held = self._held.get(key)
        if held is not None and held.worker is worker and held.workload is not None:
            self._forget(key)
            self._host.not_taken(held.workload, f"no process can be started: {reason}")
        self._retire(worker)

    def _unused(self, worker: ForkserverClient, pid: int, changed: str | None) -> None:
        """A child that waited runs nothing: what it was given at that very moment is launched otherwise."""
        key = next((key for key, held in self._held.items() if held.worker is worker and held.pid == pid), None)
        if key is not None:
            self._held[key].pid = None
        if changed is not None:
            self._workers.stale(worker, changed)
        self._replace(worker, key)

    def _replace(self, worker: ForkserverClient, key: AttemptKey | None) -> None:
        """Launch otherwise what this worker was asked for, and does not launch."""
        held = self._held.get(key) if key else None
        if held is not None and held.worker is worker and held.workload is not None:
            held.stop_waiting()
            self._launch_or_put_back(held.workload, held)
        self._retire(worker)

    def _retire(self, worker: ForkserverClient) -> None:
        """End a worker that was replaced, once it has nothing more to say of children or of launches."""
        if not self._waiting_for(worker):
            self._workers.retire(worker)

    def _waiting_for(self, worker: ForkserverClient) -> list[AttemptKey]:
        """Attempts that it was asked to launch and has not, in the order in which it was asked."""
        return [key for key, held in self._held.items() if held.worker is worker and held.pid is None]

    def _no_word(self, key: AttemptKey) -> None:
        """Deal with an attempt that was to be launched long ago: either its worker hangs, in an import, or its process
        does, in what a library does after a fork."""
        held = self._held.get(key)
        if held is None or held.worker is None:
            return
        if held.pid is None:
            if held.worker in self._workers:
                log.error("the warm worker did not launch attempt %s in time: it is replaced", key.attempt_id)
                held.worker.kill()
        elif held.told is None and not self._host.has_begun(key, held.pid):
            log.error(
                "attempt %s (pid %d) hangs since it was forked: it is run again in an interpreter of its own",
                key.attempt_id,
                held.pid,
            )
            held.hung = True
            held.kill()

    def _worker_died(self, worker: ForkserverClient) -> None:
        self._workers.forget(worker)
        if self._ending:
            return
        unlaunched = self._waiting_for(worker)
        # it goes through files one after the other: the first one it did not get through
        self._workers.crashed(worker, at=self._held[unlaunched[0]].workload if unlaunched else None)
        for key, held in list(self._held.items()):
            if key in unlaunched:
                self._finish(key, ProcessExit(reason="its warm worker ended before the attempt was launched"))
            elif held.pid in worker.children:
                # the child goes on; from now on it is watched from here
                self._watch_orphan(key, held)
        with contextlib.suppress(OSError):  # it is started for the next attempt, which says so where it cannot be
            self._workers.start_missing()

    # -- fresh interpreters ----------------------------------------------------------------------------------------

    def _spawn(self, workload: ExecuteTask, held: AttemptProcess) -> None:
        held.process = spawn_attempt(workload)
        held.pid = held.process.pid
        held.watch_end(self._host.reactor, lambda: self._pid_ended(workload.key, held))

    def _reap_spawned(self, key: AttemptKey, held: AttemptProcess) -> None:
        assert held.process is not None
        code = held.process.poll()
        if code is not None:
            self._apply_spooled(key)
            exit = self._exit_of(held, code if code >= 0 else None, -code if code < 0 else None)
            self._end_remains(key, self._held[key], exit)

    # -- processes that are not our children -----------------------------------------------------------------------

    def _watch_orphan(self, key: AttemptKey, held: AttemptProcess) -> None:
        held.watch_end(self._host.reactor, lambda: self._pid_ended(key, held))
        self._check_orphan(key, held)

    def _pid_ended(self, key: AttemptKey, held: AttemptProcess) -> None:
        held.unwatch()
        if held.process is not None:
            held.process.wait()
            self._reap_spawned(key, held)
        else:
            self._orphan_ended(key)

    def _check_orphan(self, key: AttemptKey, held: AttemptProcess) -> None:
        assert held.pid is not None
        try:
            processes.started_at(held.pid)
        except ProcessLookupError:
            self._orphan_ended(key)

    def _orphan_ended(self, key: AttemptKey) -> None:
        self._apply_spooled(key)
        self._end_remains(key, self._held[key], ProcessExit(reason=_UNSEEN))

    def _apply_spooled(self, key: AttemptKey) -> bool:
        return apply_spooled(self._host.project.home, self._host.api, key)

    # -- the end of an attempt -------------------------------------------------------------------------------------

    def _child_ended(self, pid: int, code: int | None, number: int | None, left: Sequence[int]) -> None:
        for key, held in list(self._held.items()):
            if held.pid == pid:
                self._apply_spooled(key)
                exit = self._exit_of(held, code, number)
                if left or number is not None:
                    self._end_remains(key, held, exit, left)
                else:
                    self._finish(key, exit)
                return

    def _end_remains(self, key: AttemptKey, held: AttemptProcess, exit: ProcessExit, left: Sequence[int] = ()) -> None:
        """Report the end once nothing is left of what the attempt started: the next try, or the task that commits what
        this one wrote, must not meet it."""
        if held.remains is not None:
            return
        pid, held.pid, held.worker, held.process = held.pid, None, None, None
        if not self._remains(key, pid, left):
            self._finish(key, exit)
            return
        held.unwatch()
        held.remains = ProcessReaper(
            self._host.reactor,
            key.attempt_id,
            lambda: self._remains(key, pid, left),
            lambda: self._finish(key, exit),
            grace_seconds=min(GRACE_SECONDS, self._host.settings.engine.stop_grace_seconds),
        )

    def _remains(self, key: AttemptKey, pid: int | None, left: Sequence[int] = ()) -> list[ProcessEntry]:
        return left_by_attempt(key.attempt_id, pid, process_table(), left)

    def _exit_of(self, held: AttemptProcess, code: int | None, number: int | None) -> ProcessExit:
        ran_out = number == signal.SIGKILL and self._memory.explain(held.killed_before)
        # stopped: by the end of the engine; what `terminate` stops is cancelled
        return ProcessExit(code=code, signal=number, out_of_memory=ran_out, stopped=held.told is signal.SIGTERM)

    def _finish(self, key: AttemptKey, exit: ProcessExit) -> None:
        held = self._held.get(key)
        if held is not None and held.hung and held.workload is not None and not self._ending:
            held.let_go()
            held.pid, held.remains, held.hung, held.alone = None, None, False, True
            self._launch_or_put_back(held.workload, held)
            return
        self._forget(key)
        self._host.exited(key, exit)

    def _forget(self, key: AttemptKey) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            held.let_go()

    def _kill(self, key: AttemptKey) -> None:
        held = self._held.get(key)
        if held is not None and held.pid is not None:
            log.warning("attempt %s (pid %d) did not stop in time: killed", key.attempt_id, held.pid)
            held.kill()


def _runs_here(attempt: InFlightAttempt) -> bool:
    if not attempt.running or attempt.pid is None or attempt.hostname != hostname():
        return False
    # one that waited for this attempt may have been given another one, and the engine was killed at that moment
    is_its_own = not processes.is_of_another(attempt.pid, attempt.key.attempt_id)
    return is_its_own and processes.is_alive(attempt.pid, attempt.process_started or 0.0)
