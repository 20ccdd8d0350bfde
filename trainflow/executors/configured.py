"""The executors that are configured, as one: a workload goes to the one it names.

What is wrong with one of them stops nothing of the others. One that cannot start, or that what it hands workloads to is
away, says why (`problems`), is handed nothing meanwhile, and is tried again. What it could not deliver stays queued.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from trainflow.errors import EngineError, describe
from trainflow.executors.executor import Executor, ExecutorHost, ExecutorUnavailable, InFlightAttempt
from trainflow.executors.local import LocalExecutor
from trainflow.executors.reactor import Timer
from trainflow.executors.spawn import SpawnedForkserver
from trainflow.executors.warm_workers import ForkserverClient
from trainflow.messages.execution_api import Started
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit, ProcessIdentity
from trainflow.settings.executors import ExecutorEntry, executor_entries
from trainflow.settings.model import Settings

log = logging.getLogger(__name__)

#: how long one that is away is left alone: the first time, and at the longest
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


class _ConfiguredExecutor:
    """One executor: whether it has started, what it has not taken yet, and since when it is left alone."""

    def __init__(self, entry: ExecutorEntry, executor: Executor | None, problem: str | None = None) -> None:
        self.entry = entry
        self.executor = executor
        self.started = False
        #: why it takes nothing now
        self.problem = problem
        self.undelivered: dict[AttemptKey, ExecuteTask] = {}
        #: what another engine's executor had, and this one has not looked after yet
        self.unadopted: dict[AttemptKey, InFlightAttempt] = {}
        #: what was handed over to see whether it is taken again; not known yet
        self.probe: AttemptKey | None = None
        #: the log has the outage, and not yet its end
        self.told = False
        self.pause = _FIRST_PAUSE_SECONDS
        self.timer: Timer | None = None

    def running(self) -> frozenset[AttemptKey]:
        own = self.executor.running() if self.executor is not None and self.started else frozenset()
        return own | self.undelivered.keys() | self.unadopted.keys()


class ConfiguredExecutors(Executor):
    """Routes each workload to the executor it names, by `[executors]`."""

    def __init__(
        self,
        settings: Settings,
        *,
        prestarted: SpawnedForkserver | None = None,
        make: Callable[[ExecutorEntry], Executor] | None = None,
    ) -> None:
        """`prestarted`: a warm worker for the local executor. `make` makes executors otherwise than by their kind."""
        self._prestarted = prestarted
        self._make = make or self._of_kind
        self._parts = {name: self._part(entry) for name, entry in executor_entries(settings).items()}

    def _part(self, entry: ExecutorEntry) -> _ConfiguredExecutor:
        try:
            return _ConfiguredExecutor(entry, self._make(entry))
        except EngineError as error:
            return _ConfiguredExecutor(entry, None, str(error))

    def _of_kind(self, entry: ExecutorEntry) -> Executor:
        if entry.is_local:
            return LocalExecutor(self._prestarted)
        from trainflow.executors.plugins import executor_class

        return executor_class(entry.type, executor=entry.name).from_options(entry.name, entry.options)

    # -- contract --------------------------------------------------------------------------------------------------

    def start(self, host: ExecutorHost) -> None:
        """Start all of them. Raises EngineError, or what the only one raises, when none can be."""
        self._host = host
        errors = [error for part in self._parts.values() if (error := self._start(part)) is not None]
        if len(errors) == len(self._parts):
            raise errors[0]
        for part in self._parts.values():
            if part.problem is not None:
                part.told = True
                log.error(
                    "executor '%s' cannot start: %s; its tasks wait, the others go on", part.entry.name, part.problem
                )

    def _start(self, part: _ConfiguredExecutor) -> Exception | None:
        if part.executor is None:
            return EngineError(part.problem or "")
        try:
            part.executor.start(self._host)
        except Exception as error:
            self._leave_alone(part, error)
            return error
        part.started, part.problem = True, None
        return None

    def queue_workload(self, workload: ExecuteTask) -> None:
        part = self._parts.get(workload.executor)
        if part is None:
            gone = ProcessExit(reason=f"executor '{workload.executor}' is not configured", delivered=False)
            self._host.exited(workload.key, gone)
        elif part.executor is None or not part.started or part.problem is not None:
            part.undelivered[workload.key] = workload
        else:
            self._deliver(part, part.executor, workload)

    def waiting_processes(self, workload: ExecuteTask) -> Sequence[ProcessIdentity]:
        part = self._parts.get(workload.executor)
        if part is None or part.executor is None or not part.started or part.problem is not None:
            return ()
        return part.executor.waiting_processes(workload)

    def queue_claimed(self, workload: ExecuteTask, process: ProcessIdentity, started: Started) -> None:
        part = self._parts.get(workload.executor)
        if part is None or part.executor is None or not part.started or part.problem is not None:
            super().queue_claimed(workload, process, started)
        else:
            part.executor.queue_claimed(workload, process, started)

    def _deliver(self, part: _ConfiguredExecutor, executor: Executor, workload: ExecuteTask) -> bool:
        try:
            executor.queue_workload(workload)
        except ExecutorUnavailable as error:
            self._not_taken(part, workload, error, first=True)
            return False
        if not executor.tells_later:
            self._takes(part)
        return True

    def sync(self) -> None:
        for part in self._living():
            self._contained(part, part.sync)

    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        lost = [attempt.key for attempt in attempts if attempt.executor not in self._parts]
        for name, part in self._parts.items():
            mine = [attempt for attempt in attempts if attempt.executor == name]
            if part.executor is not None and part.started:
                lost += part.executor.adopt(mine)
            else:
                # there is no executor to ask; they go on, and report by themselves
                part.unadopted.update((attempt.key, attempt) for attempt in mine)
        return lost

    def terminate(self, key: AttemptKey) -> None:
        for part in self._parts.values():
            part.unadopted.pop(key, None)
            if part.undelivered.pop(key, None) is not None:
                self._host.exited(key, ProcessExit(reason="it was not handed over yet", delivered=False))
        for executor in self._living():
            if key in executor.running():
                executor.terminate(key)

    def running(self) -> frozenset[AttemptKey]:
        return frozenset().union(*(part.running() for part in self._parts.values()))

    def end(self, grace: timedelta) -> None:
        for part in self._parts.values():
            if part.timer is not None:
                part.timer.cancel()
        # those that run elsewhere need no time: the local one, which waits, comes last
        for executor in sorted(self._living(), key=lambda each: isinstance(each, LocalExecutor)):
            self._contained(executor, partial(executor.end, grace))

    def hurry(self) -> None:
        for executor in self._living():
            executor.hurry()

    def not_taken(self, workload: ExecuteTask, reason: str) -> None:
        """See `ExecutorHost.not_taken`."""
        part = self._parts[workload.executor]
        self._not_taken(part, workload, ExecutorUnavailable(reason), first=part.probe == workload.key)

    def taken(self, executor: str) -> None:
        """See `ExecutorHost.taken`."""
        part = self._parts[executor]
        self._takes(part)
        self._deliver_all(part)

    # -- what others ask -------------------------------------------------------------------------------------------

    @property
    def problems(self) -> dict[str, str]:
        """Executors that take nothing now, by name, and why."""
        return {name: part.problem for name, part in self._parts.items() if part.problem is not None}

    def is_remote(self, name: str) -> bool:
        """Whether attempts of this executor speak over HTTP."""
        part = self._parts.get(name)
        return part is not None and part.executor is not None and part.executor.remote

    @property
    def entries(self) -> list[ExecutorEntry]:
        """What is configured."""
        return [part.entry for part in self._parts.values()]

    @property
    def warm_process(self) -> ForkserverClient | None:
        """The worker of the local executor, which the DAG processor borrows; None when nothing is forked."""
        local = next((each for each in self._living() if isinstance(each, LocalExecutor)), None)
        return local.warm_process if local is not None else None

    def __getitem__(self, name: str) -> Executor:
        """The executor of this name. Raises KeyError when there is none, or it could not be made."""
        executor = self._parts[name].executor
        if executor is None:
            raise KeyError(name)
        return executor

    # -- one that is away ------------------------------------------------------------------------------------------

    def _living(self) -> list[Executor]:
        return [part.executor for part in self._parts.values() if part.executor is not None and part.started]

    def _contained(self, executor: Executor, act: Callable[[], None]) -> None:
        """Have one of several do something: what it raises is its own business, unless it is the only one."""
        try:
            act()
        except Exception:
            if len(self._parts) == 1:
                raise
            log.exception("%s cannot look after its attempts", type(executor).__name__)

    def _not_taken(
        self, part: _ConfiguredExecutor, workload: ExecuteTask, error: ExecutorUnavailable, *, first: bool
    ) -> None:
        """Keep a workload, `first`: before those that wait. The log has an outage once."""
        kept = {workload.key: workload}
        part.undelivered = kept | part.undelivered if first else part.undelivered | kept
        if part.probe == workload.key:
            part.probe = None
        if not part.told:
            part.told = True
            reason = str(error).rstrip(".")
            log.warning("executor '%s' takes no workloads: %s; its tasks stay queued", part.entry.name, reason)
        self._leave_alone(part, error)

    def _takes(self, part: _ConfiguredExecutor) -> None:
        """A workload was handed over: an outage has ended."""
        part.problem, part.probe, part.pause = None, None, _FIRST_PAUSE_SECONDS
        if part.timer is not None:
            part.timer.cancel()
            part.timer = None
        if part.told:
            part.told = False
            log.info("executor '%s' takes workloads again", part.entry.name)
            # the scheduler may queue for it again
            self._host.reactor.wake()

    def _leave_alone(self, part: _ConfiguredExecutor, error: Exception) -> None:
        part.problem = str(error) if isinstance(error, EngineError) else describe(error)
        self._wait(part)

    def _wait(self, part: _ConfiguredExecutor) -> None:
        """Try again after a pause, once."""
        if part.timer is None:
            part.timer = self._host.reactor.call_later(part.pause, lambda: self._try_again(part))
            part.pause = min(part.pause * 2, _LONGEST_PAUSE_SECONDS)

    def _try_again(self, part: _ConfiguredExecutor) -> None:
        """Start it, or hand over one workload, and the others once that is taken; the problem lasts until then."""
        part.timer = None
        assert part.executor is not None
        if not part.started:
            if self._start(part) is not None:
                return
            self._adopt_now(part, part.executor)
            self._deliver_all(part)
            self._host.reactor.wake()
        elif part.probe is not None and part.probe in part.executor.running():
            # what sends it has not said yet how that went
            self._wait(part)
        elif part.undelivered:
            part.probe = next(iter(part.undelivered))
            if not self._deliver(part, part.executor, part.undelivered.pop(part.probe)):
                return
            if part.executor.tells_later:
                self._wait(part)
            else:
                self._deliver_all(part)
        else:
            # nothing is left to try it with: the next one that is queued shows how it is
            part.problem, part.probe = None, None
            self._host.reactor.wake()

    def _deliver_all(self, part: _ConfiguredExecutor) -> None:
        """Deliver what waits, in order, until one is not taken."""
        assert part.executor is not None
        while part.undelivered:
            key = next(iter(part.undelivered))
            if not self._deliver(part, part.executor, part.undelivered.pop(key)):
                return

    def _adopt_now(self, part: _ConfiguredExecutor, executor: Executor) -> None:
        attempts, part.unadopted = list(part.unadopted.values()), {}
        for key in executor.adopt(attempts) if attempts else []:
            self._host.exited(key, ProcessExit(reason="its process ended before it reported an outcome"))
