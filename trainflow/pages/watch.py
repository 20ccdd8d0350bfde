"""Where the chains are, asked of ledgers and samples only while a person looks, and never on the way of a request that
could be answered without."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, NamedTuple

from trainflow.checkpoints.chain import ChainKey
from trainflow.clock import Clock
from trainflow.insight.chains.chain_status import ChainStatus, chain_status_in
from trainflow.insight.snapshot import DagSnapshot
from trainflow.metadata.transaction_retries import is_own_fault
from trainflow.workspace.workspace import Workspace

log = logging.getLogger(__name__)

#: what was asked of samples is good for so many seconds
FRESH_SECONDS = 15.0
#: where a run has ended since, which may have committed
_FRESH_AFTER_RUN_SECONDS = 2.0
#: a first answer is waited for so many seconds: later ones come by the stream
_PATIENCE_SECONDS = 1.5
#: lags that are remembered of a chain: what a sparkline shows
_TREND = 60
_THREADS = 2


class WatchedChain:
    """A chain as it was asked about last, and its lags so far."""

    def __init__(self, snapshot: DagSnapshot) -> None:
        self.snapshot = snapshot
        self.status: ChainStatus | None = None
        self.asked_at = float("-inf")
        #: the run that had ended last when it was asked about
        self.last_run: str | None = None
        self.future: Future[None] | None = None
        self.lags: deque[float] = deque(maxlen=_TREND)


class _Sight:
    """A look at the samples of a chain."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.taken_at = float("-inf")
        self.looking = False


class SeenChain(NamedTuple):
    """What is known of a chain now; None: nothing has answered yet."""

    status: ChainStatus | None
    lags: list[float]


class ChainWatch:
    """Fit for several threads. `tell`: is called with a DAG's id when its chain's status has changed."""

    def __init__(self, workspace: Workspace, clock: Clock, tell: Callable[[str], None]) -> None:
        self._workspace = workspace
        self._clock = clock
        self._tell = tell
        self._chains: dict[str, WatchedChain] = {}
        self._sights: dict[ChainKey, _Sight] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="chains")

    def see(
        self, snapshots: list[DagSnapshot], now: datetime, *, patience: float = _PATIENCE_SECONDS
    ) -> list[SeenChain]:
        """The chains of these DAGs, as they were asked about last; what is old is asked again meanwhile. The very first
        answer is waited for, all together for `patience` seconds."""
        watched = [self._ask(each, now) for each in snapshots]
        deadline = self._clock.monotonic() + patience
        for each in watched:
            if each.status is None and each.future is not None:
                _wait(each.future, deadline - self._clock.monotonic())
        return [SeenChain(each.status, list(each.lags)) for each in watched]

    def seen(self, dag_id: str, key: ChainKey, look: Callable[[], list[Any]]) -> list[Any]:
        """What a look at the samples of a chain found last, nothing before the first; an old one is taken anew beside,
        and told when it found something else."""
        with self._lock:
            sight = self._sights.setdefault(key, _Sight())
            if not sight.looking and self._clock.monotonic() - sight.taken_at >= FRESH_SECONDS:
                sight.looking = True
                self._pool.submit(self._take, sight, dag_id, look)
            return sight.found

    def _take(self, sight: _Sight, dag_id: str, look: Callable[[], list[Any]]) -> None:
        try:
            found = look()
        except Exception as error:
            # what cannot be looked at is shown as it was: the chain's status says why
            own = error if is_own_fault(error) else None
            log.warning("%s: its samples cannot be looked at: %s", dag_id, error, exc_info=own)
            found = sight.found
        finally:
            sight.taken_at, sight.looking = self._clock.monotonic(), False
        if found != sight.found:
            sight.found = found
            self._tell(dag_id)

    def keep_fresh(self, now: datetime) -> None:
        """Ask again about chains whose answer is old, for pages that are open and are not asked for anew."""
        for snapshot in [each.snapshot for each in list(self._chains.values())]:
            self._ask(snapshot, now)

    def beside(self, work: Callable[[], None]) -> None:
        """Have something done that no request waits for."""
        self._pool.submit(work)

    def forget(self, dag_id: str) -> None:
        """Ask anew about a chain: something was decided about it."""
        with self._lock:
            if dag_id in self._chains:
                self._chains[dag_id].asked_at = float("-inf")

    def close(self) -> None:
        """End; what is being asked is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, snapshot: DagSnapshot, now: datetime) -> WatchedChain:
        with self._lock:
            watched = self._chains.setdefault(snapshot.dag_id, WatchedChain(snapshot))
            watched.snapshot = snapshot
            last = snapshot.last.run_id if snapshot.last is not None else None
            fresh = FRESH_SECONDS if watched.last_run == last else _FRESH_AFTER_RUN_SECONDS
            due = self._clock.monotonic() - watched.asked_at >= fresh
            if due and snapshot.chain is not None and (watched.future is None or watched.future.done()):
                watched.asked_at, watched.last_run = self._clock.monotonic(), last
                watched.future = self._pool.submit(self._look, snapshot, watched, now)
            return watched

    def _look(self, snapshot: DagSnapshot, watched: WatchedChain, now: datetime) -> None:
        try:
            found = chain_status_in(self._workspace, snapshot, now)
        except Exception as error:
            # a store may fail in ways that no list holds: the page says it, and asks again
            own = error if is_own_fault(error) else None
            log.warning("%s: its chain cannot be read: %s", snapshot.dag_id, error, exc_info=own)
            found = ChainStatus(problem=f"{type(error).__name__}: {error}")
        before, watched.status = watched.status, found
        if found is not None and found.lag is not None:
            watched.lags.append(float(found.lag))
        if before != found:
            self._tell(snapshot.dag_id)


def _wait(future: Future[None], seconds: float) -> None:
    try:
        future.result(max(0.0, seconds))
    except TimeoutError:
        return
