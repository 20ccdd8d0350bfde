"""One simulated process of the control plane: the real parts, composed as the engine does, one named step at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, cast

from sqlalchemy import Connection

from tests.simulation.clock import HostClock
from tests.simulation.database import SimulatedCrash, SimulatedDatabase
from tests.simulation.executor import SimulatedExecutor
from tests.simulation.trigger_loop import SimulatedTriggerer, Timers, TriggerLoop
from tests.simulation.violation import Violation
from trainflow.executors.reactor import Reactor
from trainflow.messages.execution_api import Done, Outcome, Reply, Request, Start
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import in_flight, service_list_queries, service_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.scheduler.loop import Scheduler
from trainflow.scheduler.recovery import Reconciler, adopt_orphans
from trainflow.settings.model import EngineSettings, Settings, TrackingSettings
from trainflow.settings.project import Project

SLOTS = 2
SETTINGS = Settings(
    engine=EngineSettings(lost_attempts=50, heartbeat_seconds=30.0, dead_after_seconds=90.0, poll_seconds=30.0),
    executors={"local": {"slots": SLOTS}},
    tracking=TrackingSettings(enabled=False),
)


class Step(NamedTuple):
    """Something an engine does, between two points where it could die."""

    name: str
    run: Callable[[], None]


class Observer(Protocol):
    """Sees what attempts and executors report, and what they are answered."""

    def saw_answer(self, request: Request, reply: Reply) -> None: ...
    def saw_exit(self, key: AttemptKey, exit: ProcessExit) -> None: ...


class ObservedService(ExecutionService):
    """The execution service, before a observer."""

    observer: Observer

    def handle(self, request: Request) -> Reply:
        try:
            reply = super().handle(request)
        except SimulatedCrash as crash:
            if crash.committed and isinstance(request, Outcome):
                self.observer.saw_answer(request, Done())
            raise
        self.observer.saw_answer(request, reply)
        return reply

    def claim_from_afar(self, request: Start, claim_secret: str, token: str) -> Reply:
        reply = super().claim_from_afar(request, claim_secret, token)
        self.observer.saw_answer(request, reply)
        return reply

    def exited(self, key: AttemptKey, exit: ProcessExit) -> bool:
        self.observer.saw_exit(key, exit)
        return super().exited(key, exit)


class SimulatedEngine:
    """An engine that does one step when it is told to."""

    def __init__(
        self,
        number: int,
        database: SimulatedDatabase,
        executor: SimulatedExecutor,
        clock: HostClock,
        project: Project,
        make_loop: Callable[[], TriggerLoop],
        observer: Observer,
        sees_gone: Callable[[int], bool],
        *,
        remote: bool = False,
    ) -> None:
        """`remote`: its attempts run on other hosts."""
        self.number = number
        self._remote = remote
        self.database = database
        self.executor = executor
        self.clock = clock
        self.settings = SETTINGS
        self.project = project
        self.alive = True
        self.leases = Leases(clock.monotonic, SETTINGS.engine.dead_after_seconds)
        self.is_registered = False
        self._witness = observer
        #: whether the process of an engine, by its number, is seen to be gone
        self._sees_gone = sees_gone
        #: the loops of triggers it has had
        self.loops: list[TriggerLoop] = []
        self._new_loop = make_loop
        self.timers = Timers(clock)
        self._steps: deque[Step] = deque([Step("register", self._register)])
        self._heartbeat_at = self._look_at = clock.monotonic()
        #: it stood still for longer than its lease: others may count it as dead
        self.has_stood_still = False

    # -- host of the executor --------------------------------------------------------------------------------------

    @property
    def reactor(self) -> Reactor:
        """There is none: nothing simulated has a file descriptor."""
        raise AssertionError("a simulated executor asked for file descriptors")

    @property
    def api(self) -> ExecutionService:
        return self.service

    def has_begun(self, key: AttemptKey, pid: int | None = None) -> bool:
        """See `ExecutorHost.has_begun`."""
        return self.service.has_begun(key, pid)

    def has_reported(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_reported`."""
        return self.service.has_reported(key)

    def explain(self, key: AttemptKey, cause: str) -> None:
        """See `ExecutorHost.explain`."""

    def note(self, key: AttemptKey, text: str | None) -> None:
        """See `ExecutorHost.note`."""
        raise AssertionError("a simulated executor has nothing that waits")

    def not_taken(self, workload: ExecuteTask, reason: str) -> None:
        """See `ExecutorHost.not_taken`."""
        raise AssertionError("a simulated executor is never away")

    def taken(self, executor: str) -> None:
        """See `ExecutorHost.taken`."""
        raise AssertionError("a simulated executor is never away")

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`."""
        self.service.exited(key, exit)

    # -- life ------------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """It lives and has everything it is made of."""
        return self.alive and self.is_registered

    def _register(self) -> None:
        self.executor.start(self)
        versions = Versions()
        self.service = ObservedService(
            self.database, self.clock, versions, lost_attempts=SETTINGS.engine.lost_attempts, on_change=self._changed
        )
        self.service.observer = self._witness
        self.service_id = self.database.write(self._write_lease)
        self.triggerer = SimulatedTriggerer(
            self.database,
            cast("Reactor", self.timers),
            self.service,
            clock=self.clock,
            project=self.project,
            settings=SETTINGS,
            service_id=self.service_id,
            leases=self.leases,
            on_change=self._changed,
        )
        self.triggerer.make_loop = self._make_loop
        self.reconciler = Reconciler(self.database, self.executor, self.service, own=self.service_id)
        self.scheduler = Scheduler(
            self.database,
            self.executor,
            clock=self.clock,
            versions=versions,
            project=self.project,
            settings=SETTINGS,
            service_id=self.service_id,
        )
        self.service.follow_up = self.scheduler
        self.scheduler.isolation.tell = _nothing_is_set_aside
        self.scheduler.task_queue.is_remote = lambda _executor: self._remote
        self.is_registered = True
        self._steps.append(Step("adopt", self._adopt))

    def _make_loop(self) -> TriggerLoop:
        self.loops.append(self._new_loop())
        return self.loops[-1]

    def _changed(self, change: AppliedChange) -> None:
        if not self.is_up:
            return
        self.scheduler.notice(change)
        if change.deferred:
            self.triggerer.notice()

    def stop(self) -> None:
        """End in good order: what is left to do when the attempts had their time."""
        self.triggerer.close()
        with self.database.transaction() as connection:
            service_queries.stop(connection, self.service_id, self.clock.now())
        self.alive = False

    # -- steps -----------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Is there something to do now?"""
        if self._steps:
            return True
        now = self.clock.monotonic()
        return self.is_up and (now >= self._heartbeat_at or now >= self._look_at or self._busy)

    @property
    def seconds_left(self) -> float:
        """Until there is something to do if nothing happens."""
        now = self.clock.monotonic()
        parts = [self.scheduler.seconds_left, self.triggerer.seconds_left, self.timers.seconds_left]
        return min([self._heartbeat_at - now, self._look_at - now, *(left for left in parts if left is not None)])

    @property
    def _busy(self) -> bool:
        if self.scheduler.busy or self.triggerer.busy:
            return True
        return any(left is not None and left <= 0 for left in (self.triggerer.seconds_left, self.timers.seconds_left))

    def step(self, *, far: bool = False) -> str:
        """Do the next step; with `far` the next one that changes something, if one of those that are planned does.
        Returns the name of the last one."""
        if not self._steps:
            self._plan()
        before = self.database.raw.total_changes
        while True:
            step = self._steps.popleft()
            step.run()
            if not far or not self._steps or self.database.raw.total_changes != before:
                return step.name

    def _plan(self) -> None:
        now = self.clock.monotonic()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + SETTINGS.engine.heartbeat_seconds
            self._steps.extend(
                [
                    Step("heartbeat", self._heartbeat),
                    Step("sync", self.executor.sync),
                    Step("reconcile", self.reconciler.reconcile),
                    Step("adopt", self._adopt),
                ]
            )
        elif now >= self._look_at:
            self._look_at = now + SETTINGS.engine.poll_seconds
            self._steps.append(Step("sweep", self.scheduler.sweep))
            self._steps.append(Step("sweep triggers", self.triggerer.sweep))
        else:
            at = self.clock.now()
            self._steps.extend(
                Step(phase.name, partial(self.scheduler.run, phase, at)) for phase in self.scheduler.phases
            )
            self._steps.append(Step("timers", self.timers.run))
            self._steps.append(Step("triggerer", self.triggerer.tick))

    def _write_lease(self, connection: Connection) -> int:
        return service_queries.register(
            connection,
            kind="engine",
            hostname=f"host-{self.number}",
            pid=self.number,
            process_started=1.0,
            now=self.clock.now(),
        )

    def _heartbeat(self) -> None:
        now = self.clock.now()

        def write(connection: Connection) -> list[int]:
            # before its sign of life, which makes one live again that was taken for dead
            living = [row.id for row in service_list_queries.not_stopped(connection)]
            service_queries.renew_lease(connection, self.service_id, now)
            in_flight.heartbeat(connection, self.service_id, now)
            return living

        living = self.database.write(write)
        if self.service_id not in living and not self.has_stood_still:
            raise Violation("the living keep what they hold", f"engine {self.number} lives and counts as dead")

    def _adopt(self) -> None:
        adopt_orphans(
            self.database,
            self.executor,
            self.service,
            self.leases,
            own=self.service_id,
            now=self.clock.now(),
            gone=lambda service: self._sees_gone(int(service.pid)),
        )


def _nothing_is_set_aside(why: str) -> None:
    raise Violation("nothing is set aside", why)
