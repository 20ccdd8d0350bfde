"""What all pages share: the project, what is watched of it, and what a page is made of."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.clock import Clock
from trainflow.errors import InputError, NotFound, TrainflowError
from trainflow.insight import live
from trainflow.insight.chains.chain_status import chain_access
from trainflow.insight.chains.history import ChainHistory
from trainflow.insight.snapshot import DagSnapshot
from trainflow.insight.status import Overview, overview_of
from trainflow.messages.parsed_file import ChainAccess
from trainflow.pages.feed import Feed
from trainflow.pages.idempotency import FormsOnce
from trainflow.pages.watch import ChainWatch
from trainflow.workspace.locate import Selection
from trainflow.workspace.pipelines import PipelineChain
from trainflow.workspace.workspace import Workspace

log = logging.getLogger(__name__)

#: so many entries of a ledger are read while a page is waited for
_AT_ONCE = 1000
_LONGEST_READING_SECONDS = 60.0
#: overviews are good for so many seconds: one request asks several times
_OVERVIEW_SECONDS = 1.0


class Answer(NamedTuple):
    """A page: its template, what it shows, and the topics on whose change it is another one."""

    template: str
    values: Mapping[str, Any]
    topics: tuple[str, ...] = ()
    status: int = 200


class OpenedChain:
    """A chain that pages have asked about; ledger and history are read on. One thread at a time: `lock`."""

    def __init__(self, chain: PipelineChain, ledger: Ledger) -> None:
        self.chain = chain
        self.ledger = ledger
        self.lock = threading.RLock()
        self._history = ChainHistory()
        #: set once what is read beside is there; None: nothing is
        self._read: threading.Event | None = None

    def history(self) -> ChainHistory:
        """The history up to now. Where it is being read beside, that is waited for: two that read the same long ledger
        take turns with each file, and take many times as long. Not to be called with `lock` held. Raises
        LedgerCorrupt, StoreFailure."""
        if (reading := self._read) is not None:
            reading.wait(_LONGEST_READING_SECONDS)
        with self.lock:
            try:
                self._history.read(self.ledger)
            except TrainflowError:
                # a ledger that was restored is read anew
                self._history = ChainHistory()
                self._history.read(self.ledger)
            return self._history

    def history_at_hand(
        self, begin: Callable[[Callable[[], None]], object], tell: Callable[[], object]
    ) -> ChainHistory:
        """The history up to now where little of it is new; of a long chain that was not read yet, what is known, and
        the rest is read beside: `begin` starts that, `tell` is called when it is there."""
        with self.lock:
            if self._read is not None:
                return self._history
            if self.ledger.state().sequence - self._history.sequence > _AT_ONCE:
                self._read = done = threading.Event()
                begin(lambda: self._read_beside(done, tell))
                return self._history
        return self.history()

    def _read_beside(self, done: threading.Event, tell: Callable[[], object]) -> None:
        found: ChainHistory | None = None
        try:
            found = ChainHistory()
            # a ledger of its own: the other one is used meanwhile
            found.read(self.chain.ledger(self.ledger.chain))
        except TrainflowError as error:
            found = None
            log.warning("%s: its ledger cannot be read: %s", self.ledger.chain, error)
        finally:
            with self.lock:
                self._history = found or self._history
                self._read = None
            done.set()
        if found is not None:
            tell()


class Site:
    """One project, for all pages. Fit for several threads."""

    def __init__(self, workspace: Workspace, clock: Clock) -> None:
        self.workspace = workspace
        self.clock = clock
        self.feed = Feed(self._look, clock, beside=self._beside)
        self.forms = FormsOnce(workspace, clock)
        self.watch = ChainWatch(workspace, clock, self._status_changed)
        self._chains: dict[ChainKey, OpenedChain] = {}
        self._lock = threading.Lock()
        self._overview: tuple[float, Overview] | None = None

    @property
    def now(self) -> datetime:
        """Time at this moment."""
        return self.clock.now()

    def overview(self) -> Overview:
        """All DAGs of the project, as the database and the files have them."""
        with self._lock:
            if self._overview is None or self.clock.monotonic() - self._overview[0] > _OVERVIEW_SECONDS:
                self._overview = self.clock.monotonic(), overview_of(Selection(self.workspace), self.now)
            return self._overview[1]

    def snapshot_of(self, key: ChainKey) -> DagSnapshot | None:
        """The DAG that trains a chain; of a branch that no DAG is known of, that of its stage."""
        found = [each for each in self.overview().snapshots if each.chain is not None]
        names = {(each.chain.pipeline, each.chain.stage, each.chain.branch): each for each in found if each.chain}
        exact = names.get((key.pipeline, key.stage, key.branch))
        return exact or next((each for name, each in names.items() if name[:2] == (key.pipeline, key.stage)), None)

    def chain(self, key: ChainKey) -> OpenedChain:
        """A chain by its name. Raises NotFound, and what its store raises."""
        with self._lock:
            opened = self._chains.get(key)
        if opened is not None:
            return opened
        snapshot = self.snapshot_of(key)
        if snapshot is None or snapshot.chain is None:
            raise NotFound(f"no pipeline of this project trains a chain {key}")
        document = msgspec.structs.replace(snapshot.chain, branch=key.branch)
        chain = PipelineChain(snapshot.dag_id, document, ChainAccess(), self.workspace)
        opened = OpenedChain(*_reached(chain, snapshot))
        with self._lock:
            return self._chains.setdefault(key, opened)

    def history_of(self, opened: OpenedChain) -> ChainHistory:
        """The history of a chain as far as it is at hand; pages that show the chain are told when there is more."""
        return opened.history_at_hand(self.watch.beside, lambda: self._status_changed(opened.chain.dag_id))

    def seen_of(self, opened: OpenedChain, look: Callable[[OpenedChain, datetime], Any]) -> Any:
        """What a look at the samples of a chain found last; an old one is taken anew beside. Pages that show the chain
        are told when that has come."""
        return self.watch.seen(opened.chain.dag_id, opened.ledger.chain, lambda: look(opened, self.now))

    def forget_overview(self) -> None:
        """Look anew: something was done."""
        with self._lock:
            self._overview = None

    def close(self) -> None:
        """End what was begun."""
        self.feed.close()
        self.watch.close()

    def _look(self) -> live.Look:
        return live.look(self.workspace.project, self.workspace.settings, self.workspace.database, self.now)

    def _beside(self) -> None:
        if any(topic == "fleet" or topic.startswith("dag:") for topic in self.feed.watched):
            self.watch.keep_fresh(self.now)

    def _status_changed(self, dag_id: str) -> None:
        self.feed.changed(("fleet", f"dag:{dag_id}"))


def _reached(chain: PipelineChain, snapshot: DagSnapshot) -> tuple[PipelineChain, Ledger]:
    """The chain with the settings of the project; where these do not do, with what stands in its file."""
    try:
        ledger = chain.ledger()
        ledger.state()
    except TrainflowError:
        access = chain_access(snapshot.dag_id, snapshot.path, chain.workspace.project)
        if access is None:
            raise
        chain = chain._replace(access=access)
        ledger = chain.ledger()
    return chain, ledger


Handler = Callable[[Site, Request], Any]


def key_of(request: Request) -> ChainKey:
    """The chain that a path names. Raises NotFound."""
    names = request.path_params
    try:
        return ChainKey(names["pipeline"], names["stage"], names["branch"])
    except InputError as error:
        raise NotFound(str(error)) from None
