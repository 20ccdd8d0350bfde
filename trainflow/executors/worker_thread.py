"""A `Worker` in a thread of its own, for programs that run each task in a thread and wait for it there."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from trainflow.clock import Clock
from trainflow.errors import TrainflowError
from trainflow.executors.handed_attempt import WorkloadEnd
from trainflow.executors.worker import Worker
from trainflow.messages.workload import AttemptKey, ExecuteTask

_TURN_SECONDS = 5.0


class _Wait:
    """What one thread waits for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.end: WorkloadEnd | None = None


class WorkerThread:
    """Runs attempts for other threads."""

    def __init__(self, home: Path, clock: Clock, *, grace: timedelta) -> None:
        """`grace`: how long attempts may take to stop when the worker ends."""
        self._home = home
        self._clock = clock
        self._grace = grace
        self._waits: dict[AttemptKey, _Wait] = {}
        self._ending = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attempts", daemon=True)
        self._thread.start()
        self._ready.wait()

    def execute(self, workload: ExecuteTask, root: Path) -> WorkloadEnd:
        """Run one attempt with the code in `root`, and wait for its end."""
        wait = _Wait()
        with suppress(OSError):  # it has ended
            self._worker.reactor.call_soon(lambda: self._begin(workload, root, wait))
        while not wait.done.wait(_TURN_SECONDS) and self._thread.is_alive():
            pass
        return wait.end or WorkloadEnd(workload.key, False, "not begun: this worker has ended", is_left=True)

    def _begin(self, workload: ExecuteTask, root: Path, wait: _Wait) -> None:
        if workload.key in self._waits:
            self._finish(wait, WorkloadEnd(workload.key, True, "not run twice: this worker has it"))
        elif self._ending.is_set():
            self._finish(wait, WorkloadEnd(workload.key, False, "not begun: this worker ends", is_left=True))
        else:
            self._waits[workload.key] = wait
            try:
                self._worker.run(workload, root)
            except (TrainflowError, OSError) as error:
                self._ended(WorkloadEnd(workload.key, False, f"it cannot be run here: {error}"))

    @staticmethod
    def _finish(wait: _Wait, end: WorkloadEnd) -> None:
        wait.end = end
        wait.done.set()

    def _ended(self, end: WorkloadEnd) -> None:
        wait = self._waits.pop(end.key, None)
        if wait is not None:
            self._finish(wait, end)

    def _run(self) -> None:
        self._worker = Worker(self._home, self._clock, self._ended)
        self._ready.set()
        try:
            while not self._ending.is_set():
                self._worker.turn(_TURN_SECONDS)
            self._worker.end(self._grace)
        finally:
            self._ending.set()
            for key in list(self._waits):
                self._ended(WorkloadEnd(key, False, "this worker has ended"))

    def request_stop(self) -> None:
        """Have attempts stop, save how far they are and report. Fit for a signal handler."""
        if not self._ending.is_set():
            self._ending.set()
            self._worker.reactor.wake()

    def join(self) -> None:
        """Wait until they have."""
        self._thread.join()
