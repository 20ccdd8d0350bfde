"""Where the chains are, as numbers. Ledgers and samples are read beside: a store that does not answer holds up no
scrape, and no other store."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.clock import Clock
from trainflow.errors import InputError
from trainflow.insight.chains.chain_status import chain_access, chain_status_of, holes_of
from trainflow.messages.parsed_file import ChainAccess
from trainflow.metadata.transaction_retries import is_own_fault
from trainflow.observability.prometheus import MetricFamily
from trainflow.samples.partitions import after_watermark, mean_seconds
from trainflow.samples.spec import Samples
from trainflow.samples.throughput import Lag
from trainflow.serialization.document import ChainDocument
from trainflow.workspace.pipelines import PipelineChain
from trainflow.workspace.workspace import Workspace

log = logging.getLogger(__name__)

#: what was read of a ledger is good for so many seconds: several servers may ask
LEDGER_SECONDS = 5.0
#: samples are listed at most so often, and only while metrics are asked for
SAMPLES_SECONDS = 60.0
#: an answer waits so long for ledgers that are read, and for samples that were never looked at
PATIENCE_SECONDS = 2.0


class SampleLook(NamedTuple):
    """What a look at the samples of a chain found. `ready_until`: the end of the newest partition that is ready."""

    at: datetime
    ready_until: datetime
    #: ready and not trained, when `trained` partitions were
    lag: int
    trained: int
    holes_arrived: int
    republished: int


def lag_since(look: SampleLook, next_start: datetime, trained: int) -> Lag:
    """The lag by a look at the samples, of a chain that has moved since: on, or back by a rewind. `next_start`: of the
    partition that comes next; `trained`: partitions trained up to there."""
    seconds = max(0.0, (look.ready_until - next_start).total_seconds())
    return Lag(max(0, look.lag - (trained - look.trained)) if seconds else 0, seconds)


class _WatchedChain:
    """A chain as it was read last. Read by one thread at a time, each value replaced as a whole."""

    def __init__(self, chain: PipelineChain, ledger: Ledger, samples: Samples | None) -> None:
        self.document: ChainDocument = chain.document
        self.root = chain.root
        self.ledger = ledger
        self.samples = samples
        self.state: ChainState | None = None
        self.read_at: datetime | None = None
        self.look: SampleLook | None = None
        self.problem: str | None = None
        #: by the monotonic clock
        self.asked_at = self.looked_at = float("-inf")
        self.reading = threading.Event()
        self.reading.set()

    @property
    def labels(self) -> dict[str, str]:
        """The names of the chain."""
        return {"pipeline": self.document.pipeline, "stage": self.document.stage, "branch": self.document.branch}

    def read(self, now: datetime, *, samples_too: bool) -> None:
        """Read the ledger, and list the samples. Raises what these raise."""
        self.problem = None
        self.state, self.read_at = self.ledger.state(), now
        if samples_too and self.samples is not None:
            self._look(self.state, self.samples, now)

    def _look(self, state: ChainState, samples: Samples, now: datetime) -> None:
        found = chain_status_of(self.ledger, samples, self.root, now)
        self.problem = found.problem or found.samples_changed
        if found.lag is None or found.lag_seconds is None:
            return
        first = after_watermark(samples, state.edge)
        lag = max(found.lag, round(found.lag_seconds / mean_seconds(samples))) if found.lag_is_more else found.lag
        until = first + timedelta(seconds=found.lag_seconds)
        trained, arrived = _trained(state), found.holes_arrived or 0
        self.look = SampleLook(now, until, lag, trained, arrived, len(found.republished))

    @property
    def lag(self) -> Lag | None:
        """How far it is behind what is ready; None: not known."""
        if self.look is None or self.state is None or self.samples is None:
            return None
        return lag_since(self.look, after_watermark(self.samples, self.state.edge), _trained(self.state))


def _trained(state: ChainState) -> int:
    """Partitions trained from the root to the head."""
    known = state.recently(state.head.id) if state.head is not None else None
    return known.partitions if known is not None else 0


class _Lane:
    """A thread that does one thing after the other, and ends when there is nothing to do."""

    def __init__(self) -> None:
        self._work: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._running = False

    def put(self, work: Callable[[], None]) -> None:
        """Have it done. `work` never raises."""
        with self._lock:
            self._work.append(work)
            if not self._running:
                self._running = True
                threading.Thread(target=self._go_on, name="chain-gauges", daemon=True).start()

    def _go_on(self) -> None:
        while True:
            with self._lock:
                if not self._work:
                    self._running = False
                    return
                work = self._work.popleft()
            work()


class ChainGauges:
    """All chains of a workspace. For one thread at a time."""

    def __init__(self, workspace: Workspace, clock: Clock) -> None:
        self._workspace = workspace
        self._clock = clock
        #: (DAG, version) → its chain; None: it has none that can be named
        self._chains: dict[tuple[str, int], _WatchedChain | None] = {}
        #: by the URL of the store, and whether samples are listed
        self._lanes: dict[tuple[str, bool], _Lane] = {}

    def families(self, dags: list[tuple[str, int, str, ChainDocument | None]]) -> list[MetricFamily]:
        """The chains of these DAGs: (id, version, path of its file, chain). Reads what is old, and waits a moment for
        it."""
        watched = self._watched(dags)
        due = [each for each in watched.values() if each.reading.is_set() and self._is_due(each)]
        for each in due:
            self._read_beside(each)
        deadline = self._clock.monotonic() + PATIENCE_SECONDS
        for each in watched.values():
            each.reading.wait(max(0.0, deadline - self._clock.monotonic()))
        return _families(watched)

    def _watched(self, dags: list[tuple[str, int, str, ChainDocument | None]]) -> dict[str, _WatchedChain]:
        keys = {(dag_id, version) for dag_id, version, _, _ in dags}
        self._chains = {key: each for key, each in self._chains.items() if key in keys}
        for dag_id, version, path, document in dags:
            if (dag_id, version) not in self._chains:
                made = None if document is None else self._open(dag_id, path, document)
                self._chains[dag_id, version] = made
        return {dag_id: each for (dag_id, _), each in self._chains.items() if each is not None}

    def _open(self, dag_id: str, path: str, document: ChainDocument) -> _WatchedChain | None:
        access = chain_access(dag_id, path, self._workspace.project) or ChainAccess()
        chain = PipelineChain(dag_id, document, access, self._workspace)
        try:
            return _WatchedChain(chain, chain.ledger(), chain.samples)
        except InputError as error:  # only a run can name it
            log.info("%s: no metrics of its chain: %s", dag_id, error)
            return None

    def _is_due(self, each: _WatchedChain) -> bool:
        return self._clock.monotonic() - each.asked_at >= LEDGER_SECONDS

    def _read_beside(self, each: _WatchedChain) -> None:
        now, moment = self._clock.now(), self._clock.monotonic()
        samples_too = moment - each.looked_at >= SAMPLES_SECONDS
        each.asked_at = moment
        if samples_too:
            each.looked_at = moment
        each.reading.clear()
        lane = self._lanes.setdefault((each.document.store, samples_too), _Lane())
        lane.put(lambda: _read(each, now, samples_too=samples_too))


def _read(each: _WatchedChain, now: datetime, *, samples_too: bool) -> None:
    try:
        each.read(now, samples_too=samples_too)
    except Exception as error:
        # a store may fail in ways that no list holds: the gauges say that it did, and it is asked again
        own = error if is_own_fault(error) else None
        log.warning("%s: it cannot be read for metrics: %s", each.ledger.chain, error, exc_info=own)
        each.problem = f"{type(error).__name__}: {error}"
    finally:
        each.reading.set()


def _families(watched: dict[str, _WatchedChain]) -> list[MetricFamily]:
    made = {name: MetricFamily(f"trainflow_{name}", "gauge", says) for name, says in _GAUGES.items()}
    for dag_id, each in sorted(watched.items()):
        labels = {"dag_id": dag_id, **each.labels}
        for name, value in _values(each).items():
            made[name].add(value, **labels)
    return list(made.values())


_GAUGES = {
    "chain_watermark_timestamp_seconds": "The exclusive end of what the chain was trained on.",
    "chain_head_number": "The number of the head; 0: nothing is committed.",
    "chain_partitions": "Partitions trained, from the first to the head.",
    "chain_rewinds": "Rewinds so far.",
    "chain_committed_timestamp_seconds": "When the head was committed.",
    "chain_lag_seconds": "From the watermark to the end of the newest partition that is ready.",
    "chain_lag_partitions": "Partitions that are ready and not trained.",
    "chain_holes": "Partitions that the line stepped over and has not trained since.",
    "chain_holes_arrived": "Those of them that are there now.",
    "chain_republished": "Partitions that were published again after they were trained on.",
    "chain_stopped": "1: gates refused a checkpoint, and no person has decided yet.",
    "chain_problem": "1: the ledger or the samples cannot be read, or are not those that it was trained on.",
    "chain_read_timestamp_seconds": "When the ledger was read.",
    "chain_samples_read_timestamp_seconds": "When the samples were listed.",
    "split_partitions": "Partitions of the split that the head was trained on.",
    "split_rows": "Rows of the split that the head was trained on.",
    "train_seconds": "From the split of the head to its commit.",
    "train_rows_per_second": "Rows of the split of the head for each second from that split to its commit.",
}  # fmt: skip


def _values(each: _WatchedChain) -> dict[str, float | None]:
    problem: dict[str, float | None] = {"chain_problem": int(each.problem is not None)}
    state, look, lag = each.state, each.look, each.lag
    if look is not None and lag is not None:
        problem |= {
            "chain_lag_seconds": lag.seconds,
            "chain_lag_partitions": lag.partitions,
            "chain_holes_arrived": look.holes_arrived,
            "chain_republished": look.republished,
            "chain_samples_read_timestamp_seconds": look.at.timestamp(),
        }
    if state is None:
        return problem
    return {
        **problem,
        "chain_watermark_timestamp_seconds": state.watermark.timestamp() if state.watermark else None,
        "chain_head_number": state.head_number,
        "chain_partitions": _trained(state),
        "chain_rewinds": state.generation,
        "chain_holes": holes_of(state, each.samples) if each.samples is not None else None,
        "chain_stopped": int(state.stopped is not None),
        "chain_read_timestamp_seconds": each.read_at.timestamp() if each.read_at else None,
        **_of_head(state),
    }


def _of_head(state: ChainState) -> dict[str, float | None]:
    head = state.head
    if head is None:
        return {}
    rows, seconds = head.split.rows, head.seconds
    return {
        "chain_committed_timestamp_seconds": head.at.timestamp(),
        "split_partitions": len(head.split.partitions),
        "split_rows": rows,
        "train_seconds": seconds,
        "train_rows_per_second": rows / seconds if rows is not None and seconds else None,
    }
