"""Everything of one history: the actors and what they share, and the steps each of them could take now."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tests.simulation.chain_check import ChainCheck
from tests.simulation.chain_ends import ChainEnds
from tests.simulation.clock import HostClock
from tests.simulation.database import SimulatedCrash, SimulatedDatabase
from tests.simulation.engine import SETTINGS, SimulatedEngine
from tests.simulation.executor import Claimed, SimulatedExecutor, WaitingProcesses
from tests.simulation.fiber import Fiber
from tests.simulation.invariants import Invariants
from tests.simulation.pipeline import SimulatedFiles, branch_of, pipeline_of
from tests.simulation.process import Process
from tests.simulation.shared_world import SharedWorld
from tests.simulation.trigger_loop import TriggerLoop
from tests.simulation.worker import SimulatedAttempt, StoreFault
from trainflow.messages.execution_api import Outcome, Refused, Reply, Request, Start
from trainflow.messages.parsed_file import ChainAccess
from trainflow.messages.workload import AttemptKey, ExecuteTask
from trainflow.metadata import attempt_credentials
from trainflow.metadata.queries import dag_queries
from trainflow.settings.project import Project
from trainflow.storage.store import Store
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain
from trainflow.workspace.workspace import Workspace


class Action(NamedTuple):
    """Something that could happen next."""

    who: str
    #: returns what it did
    run: Callable[[], str]


class World:
    """One home with its database, its engines and its processes, on a surface that others may share."""

    def __init__(self, shared: SharedWorld, database: SimulatedDatabase, project: Project) -> None:
        scenario = self.scenario = shared.scenario
        shared.homes.append(self)
        #: those beside it on the surface, and it
        self.homes = shared.homes
        self.clock, self.table, self.store = shared.clock, shared.table, shared.store
        self.pipeline, self.files, self.ledger = shared.pipeline, shared.files, shared.ledger
        self.arrivals = shared.arrivals
        self._ends = ChainEnds(shared)
        self.database = database
        self.project = project
        self.settings = SETTINGS
        self.invariants = Invariants(database, self.ledger, self.pipeline, self.clock, shared.expected_errors)
        self.engines: list[SimulatedEngine] = []
        self.processes: dict[int, Process] = {}
        #: what the branch was forked with, if there is one
        self.branch: dict[str, str] | None = None
        #: some of them have ended
        self._living: list[Process] = []
        self.spooled: dict[AttemptKey, Outcome] = {}
        #: what attempts on other hosts have sent lately
        self.sent: deque[tuple[Process, Request]] = deque(maxlen=50)
        #: engines whose process was seen to be gone
        self.seen_gone: set[int] = set()
        self.wanted_engines = scenario.engines
        #: what the next process meets in the store
        self.store_fault: StoreFault | None = None
        #: how far the clocks of hosts are wrong that attempts are handed to
        self.workers_are_off = timedelta()
        #: the next engine does not see what runs
        self.blind_next = False
        self.begins = 0
        self.decisions = 0
        #: so many steps until a process goes on
        self._stalled: dict[int, int] = {}
        #: by the monotonic clock: how long engines stand still
        self._frozen: dict[int, float] = {}
        self._owners: dict[int, SimulatedEngine] = {}
        #: unfinished runs, and the version of the database that has them
        self._unfinished = (0, 0), 0
        self.new_database()
        self.database.on_done_again = self.wake

    # -- the control plane -----------------------------------------------------------------------------------------

    def edit(self, begin: datetime) -> None:
        """The pipeline's file is changed: its samples start at `begin` from now on."""
        self.table.begin = begin
        self.pipeline = pipeline_of(self.scenario, begin, branch=self.branch)
        self.files = SimulatedFiles(self.pipeline)
        self.invariants.has_changed(self.pipeline)
        self._store_documents()

    def add_branch(self, overrides: Mapping[str, str]) -> None:
        """The file is read for a branch as well from now on."""
        self.branch = dict(overrides)
        self.ledger.add(pipeline_of(self.scenario, self.table.begin, branch=overrides).expected(self.scenario))
        self.edit(self.table.begin)

    def read_pipeline(self, workspace: Workspace, path: Path, overrides: Mapping[str, str]) -> OpenedPipeline:
        """See `StorageProvider`."""
        documents = branch_of(self.scenario, self.table.begin, overrides).documents
        chains = [
            PipelineChain(dag_id, each.chain, ChainAccess(), workspace)
            for dag_id, each in documents.items()
            if each.chain
        ]
        return OpenedPipeline(path, workspace, list(documents.values()), chains, overrides=dict(overrides))

    def new_database(self) -> None:
        """An empty database that knows the pipeline."""
        self.database.wipe()
        self._store_documents()

    def _store_documents(self) -> None:
        with self.database.transaction() as connection:
            for document in self.pipeline.documents.values():
                encoded, source = self.pipeline.encoded[document.dag_id], self.pipeline.source_of(document.dag_id)
                dag_queries.store(connection, document, encoded, source, self.clock.now())

    @property
    def living(self) -> list[SimulatedEngine]:
        """Engines that were not killed."""
        return [engine for engine in self.engines if engine.alive]

    @property
    def up(self) -> list[SimulatedEngine]:
        """Engines that could answer now."""
        return [engine for engine in self.living if engine.is_up and not self.is_frozen(engine)]

    def start_engine(self) -> str:
        """A new process of the control plane."""
        pids = 1_000_000 * (len(self.engines) + 1)
        executor = SimulatedExecutor(self, None if self.scenario.remote else WaitingProcesses(pids))
        executor.blind, self.blind_next = self.blind_next, False
        engine = SimulatedEngine(
            len(self.engines) + 1,
            self.database,
            executor,
            HostClock(self.clock),
            self.project,
            lambda: TriggerLoop(self.table, self.clock, self.settings),
            self.invariants,
            self.seen_gone.__contains__,
            remote=self.scenario.remote,
        )
        self.engines.append(engine)
        return f"engine {engine.number} is started"

    def crash(self, engine: SimulatedEngine) -> None:
        """Its process is gone; what it has started goes on."""
        engine.alive = False

    def freeze(self, engine: SimulatedEngine, seconds: float) -> None:
        """It does nothing for a while, and does not know."""
        self._frozen[engine.number] = self.clock.monotonic() + seconds
        engine.has_stood_still = True

    def is_frozen(self, engine: SimulatedEngine) -> bool:
        """Does it stand still?"""
        return bool(self._frozen) and self._frozen.get(engine.number, -1.0) > self.clock.monotonic()

    def thaw(self) -> None:
        """All go on."""
        self._frozen.clear()
        self._stalled.clear()

    def stall(self, process: Process, steps: int) -> None:
        """It does nothing for a while, and does not know."""
        self._stalled[process.work.pid] = steps

    def _is_stalled(self, process: Process) -> bool:
        left = self._stalled.get(process.work.pid, 0) - 1 if self._stalled else -1
        if left >= 0:
            self._stalled[process.work.pid] = left
        return left >= 0

    # -- processes -------------------------------------------------------------------------------------------------

    def launch(self, workload: ExecuteTask, claimed: Claimed | None = None) -> Process:
        """See `Host`."""
        pid = len(self.processes) + 100 if claimed is None else claimed.process.pid
        # workers have the code of the engine
        workload = replace(workload, version="")
        self.invariants.workloads[workload.key] = workload
        store_fault, self.store_fault = self.store_fault, None
        clock = HostClock(self.clock)
        clock.jump(self.workers_are_off)
        work = SimulatedAttempt(workload, pid, float(pid), self.store, self, clock, store_fault)
        if claimed is not None:
            work.started = claimed.started
            self.invariants.saw_answer(work.claim, claimed.started)
        process = self.processes[pid] = Process(work)
        self._living.append(process)
        return process

    def store_of(self, fiber: Fiber | None) -> Store:
        """See `Reached`: each process has its own way to the store."""
        return self.store if fiber is None else fiber.owner.store

    def kill_everything(self) -> None:
        """The history is over."""
        for process in self.running:
            process.kill()

    def find(self, pid: int | None) -> Process | None:
        """See `Host`."""
        return self.processes.get(pid or 0)

    @property
    def running(self) -> list[Process]:
        """Processes that live."""
        self._living = [process for process in self._living if process.alive]
        return self._living

    def answer(self, process: Process, request: Request) -> Reply | None:
        """See `ControlPlane`: by the engine it has spoken with before, or by any that is there."""
        owner = self._owners.get(process.work.pid)
        if owner is None or owner not in self.up:
            if not self.up:
                return None
            owner = self._owners[process.work.pid] = self.up[0]
        if process.work.is_remote:
            self.sent.append((process, request))
        reply = self._answered(owner, process, request)
        if reply is not None:
            self.invariants.saw_stop(process.was_told_to_stop, request, reply)
        return reply

    def arrive_late(self, process: Process, request: Request) -> None:
        """A message arrives that was sent long ago; nothing waits for its answer."""
        if self.up:
            self._answered(self.up[0], process, request)

    def _answered(self, owner: SimulatedEngine, process: Process, request: Request) -> Reply | None:
        """The answer of an engine; None where it dies over it."""
        work, service = process.work, owner.service
        try:
            if not work.is_remote:
                return service.handle(request)
            # as the API server does
            if isinstance(request, Start):
                return service.claim_from_afar(request, work.workload.claim_secret, work.token)
            if self.database.read(lambda connection: attempt_credentials.holder(connection, work.token)) != request.key:
                return Refused("this token is not that of the attempt")
            return service.handle(request)
        except (attempt_credentials.CredentialRefused, attempt_credentials.AttemptTaken) as error:
            return Refused(str(error))
        except SimulatedCrash:
            self.crash(owner)
            return None

    def spool(self, outcome: Outcome) -> None:
        """See `ControlPlane`."""
        self.spooled[outcome.key] = outcome

    # -- people ----------------------------------------------------------------------------------------------------

    def person(self, does: Callable[[Connection], object]) -> None:
        """A command that writes to the database, and tells the engines."""
        self.invariants.reports.by_person = True
        try:
            with self.database.transaction() as connection:
                does(connection)
        except (SimulatedCrash, DBAPIError):
            return
        self.wake()

    def wake(self) -> None:
        """Engines hear that something was written."""
        for engine in self.up:
            engine.scheduler.sweep()
            engine.triggerer.sweep()

    # -- where the chain is ----------------------------------------------------------------------------------------

    @property
    def unfinished_runs(self) -> int:
        """Runs that are queued or running."""
        version, count = self._unfinished
        if version != self.database.version:
            [(count,)] = self.database.rows("SELECT count(*) FROM dag_run WHERE state IN ('queued', 'running')")
            self._unfinished = self.database.version, count
        return count

    @property
    def complete(self) -> bool:
        """Everything was trained on, and all are done."""
        return (
            not self.arrivals
            and not self.running
            and self.is_trained
            and not self.unfinished_runs
            and not self.has_other_samples
        )

    @property
    def has_other_samples(self) -> bool:
        """See `ChainEnds`."""
        return self._ends.has_other_samples(self.pipeline)

    @property
    def is_trained(self) -> bool:
        """See `ChainEnds`."""
        return self._ends.is_trained(self.pipeline)

    @property
    def stopped(self) -> list[ChainCheck]:
        """Chains that wait for a person's decision, while none has lost entries."""
        if self.ledger.is_short:
            return []
        return [chain for chain in self.ledger.chains.values() if chain.stopped is not None]

    # -- moves -----------------------------------------------------------------------------------------------------

    def moves(self, *, far: bool) -> list[Action]:
        """What could happen now, time aside. `far`: engines do not stop where nothing has changed."""
        moves: list[Action] = []
        living = self.living
        if len(living) < self.wanted_engines:
            moves.append(Action("world", self.start_engine))
        for engine in living:
            if not self.is_frozen(engine):
                self._add_moves_of(engine, moves, far)
        no_engine = not self.up
        ready = [process for process in self.running if not self._is_stalled(process)]
        return moves + [
            Action(process.name, partial(process.step, self))
            for process in ready
            if not (no_engine and process.waits_for_answer)
        ]

    def _add_moves_of(self, engine: SimulatedEngine, moves: list[Action], far: bool) -> None:
        runs: list[Callable[[], str]] = []
        if engine.ready:
            runs.append(partial(engine.step, far=far))
        if engine.is_up:
            loop = engine.triggerer.loop
            runs += [partial(self._notice, engine, key) for key in engine.executor.has_ended]
            runs += [partial(self._fire, engine, number) for number in (loop.over if loop else ())]
        moves += [Action(f"engine {engine.number}", partial(self._guarded, engine, run)) for run in runs]

    def arrive(self) -> str:
        """The next partition is written."""
        number = self.arrivals.pop(0)
        self.table.arrive(number)
        return f"partition {number} arrives"

    def pass_time(self, fraction: float) -> str:
        """A moment goes by; when nothing can happen, all the time until something can."""
        seconds = fraction * 2.0
        self.clock.advance(timedelta(seconds=seconds))
        return f"{seconds:.1f} s go by"

    def skip_time(self, beside: Sequence[World] = ()) -> str:
        """Go to the next moment at which something is due, here or beside."""
        seconds = min((left for world in (self, *beside) for left in world.seconds_left), default=1.0)
        self.clock.advance(timedelta(seconds=max(seconds, 0.001)))
        return f"until {self.clock.now():%H:%M:%S}"

    @property
    def seconds_left(self) -> list[float]:
        """Until something is due, for each that waits."""
        left = [engine.seconds_left for engine in self.up]
        loops = [engine.triggerer.loop for engine in self.up]
        left += [loop.seconds_left for loop in loops if loop is not None and loop.seconds_left is not None]
        now = self.clock.monotonic()
        return left + [moment - now for moment in self._frozen.values() if moment > now]

    def _notice(self, engine: SimulatedEngine, key: AttemptKey) -> str:
        engine.executor.notice(key)
        return f"sees {key.attempt_id[-4:]} end"

    def _fire(self, engine: SimulatedEngine, trigger_id: int) -> str:
        loop = engine.triggerer.loop
        assert loop is not None
        engine.triggerer.deliver(loop.fire(trigger_id))
        return f"wait {trigger_id} is over"

    def _guarded(self, engine: SimulatedEngine, run: Callable[[], str]) -> str:
        try:
            return run()
        except SimulatedCrash as crash:
            self.crash(engine)
            return f"dies {crash}"
