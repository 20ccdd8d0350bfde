"""What executors have in common whose attempts speak over HTTP: they deliver workloads, and decide nothing.

Who runs an attempt is decided by its claim, what is lost by its heartbeats (`scheduler.lost_attempts`), how it ended
by what it says. So nothing is watched here: what was handed over counts as here until the database says otherwise, and
what was never begun is delivered again.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

from trainflow.executors.executor import Executor, ExecutorHost, ExecutorUnavailable, InFlightAttempt
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit

log = logging.getLogger(__name__)

#: an attempt that no worker has begun so long after it was delivered is delivered again: what a killed worker had just
#: taken waits no longer
REDELIVER_SECONDS = 60.0
#: times that, at the longest: the time doubles with each delivery
_LONGEST_WAIT = 32


class _Delivered:
    """An attempt that was handed over. `workload`: None for one that another engine delivered."""

    def __init__(self, workload: ExecuteTask | None, at: float, wait: float = REDELIVER_SECONDS) -> None:
        """`wait`: seconds after which it is delivered again when no worker has begun it."""
        self.workload = workload
        self.first = self.at = at
        self.wait = wait
        #: it was delivered again before
        self.again = False


class RemoteExecutor(Executor):
    """Delivers workloads to where workers take them."""

    remote: ClassVar[bool] = True

    def __init__(self, *, redeliver_seconds: float = REDELIVER_SECONDS) -> None:
        self._redeliver_seconds = redeliver_seconds
        self._delivered: dict[AttemptKey, _Delivered] = {}

    # -- what a kind of them writes --------------------------------------------------------------------------------

    @abstractmethod
    def deliver(self, workload: ExecuteTask) -> None:
        """Hand it to where workers are; must not block. Raises ExecutorUnavailable. One that finds out later that it
        could not calls `not_delivered`."""

    def withdraw(self, key: AttemptKey) -> None:
        """End what was delivered, as far as that can be done from here: it is not waited for any more. A worker that
        runs it is told so with its next heartbeat in any case."""

    # -- contract --------------------------------------------------------------------------------------------------

    def start(self, host: ExecutorHost) -> None:
        self._host = host

    def queue_workload(self, workload: ExecuteTask) -> None:
        self.deliver(workload)
        self._delivered[workload.key] = _Delivered(workload, self._host.clock.monotonic(), self._redeliver_seconds)

    def not_delivered(self, workload: ExecuteTask, reason: str) -> None:
        """What took it over could not hand it on."""
        if self._delivered.pop(workload.key, None) is not None:
            self._host.not_taken(workload, reason)

    def delivered_again(self, workload: ExecuteTask) -> None:
        """What took it over could hand it on, the first time since it could not."""
        self._host.taken(workload.executor)

    def sync(self) -> None:
        """Deliver again what no worker has begun: a message that was lost, a worker that ended before it claimed."""
        now = self._host.clock.monotonic()
        for key, each in list(self._delivered.items()):
            if each.workload is None or now - each.at < each.wait:
                continue
            if self._host.has_begun(key):
                each.workload = None
                continue
            self._deliver_again(each, each.workload, now)

    def _deliver_again(self, each: _Delivered, workload: ExecuteTask, now: float) -> None:
        # with no worker at all each message that is sent again is one more that lies there
        log.log(
            logging.DEBUG if each.again else logging.INFO,
            "task '%s' (attempt %s) was handed over %.0f s ago and no worker has begun it: it is handed over again; "
            "is a worker listening on queue '%s'?",
            workload.task_id,
            workload.key.attempt_id,
            now - each.first,
            workload.queue,
        )
        each.at, each.again, each.wait = now, True, min(each.wait * 2, self._redeliver_seconds * _LONGEST_WAIT)
        try:
            self.deliver(workload)
        except ExecutorUnavailable as error:
            self.not_delivered(workload, str(error))

    def adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        """Have those that run go on. Those that were only queued are made anew: what claims them is nowhere known."""
        now = self._host.clock.monotonic()
        self._delivered.update(
            (each.key, _Delivered(None, now, self._redeliver_seconds)) for each in attempts if each.running
        )
        return [each.key for each in attempts if not each.running]

    def terminate(self, key: AttemptKey) -> None:
        if key not in self._delivered:
            return
        if self._host.has_reported(key):
            # it ended by itself, and has said how
            del self._delivered[key]
            return
        self.withdraw(key)
        self.forget(key, ProcessExit(reason="it was told to stop"))

    def forget(self, key: AttemptKey, exit: ProcessExit) -> None:
        """Have it no more, and say why."""
        if self._delivered.pop(key, None) is not None:
            self._host.exited(key, exit)

    def running(self) -> frozenset[AttemptKey]:
        return frozenset(self._delivered)

    def end(self, grace: timedelta) -> None:
        self._delivered.clear()
