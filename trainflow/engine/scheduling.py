"""The scheduler of a process with what belongs to it: its executors and what these ask and tell, who hears attempts,
who looks after orphans, and the line to other schedulers of the database."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.executors.configured import ConfiguredExecutors
from trainflow.executors.execution_socket import ExecutionSocket
from trainflow.executors.reactor import Reactor
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessExit
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.change_notices import MAY_QUEUE, ChangeNotices
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import in_flight, service_list_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.drain_queries import DrainKind
from trainflow.metadata.queries.service_list_queries import ExecutorState, Service, executors_of
from trainflow.metadata.queries.service_queries import note_executors
from trainflow.scheduler.executor_slots import LEFT
from trainflow.scheduler.loop import Scheduler
from trainflow.scheduler.lost_attempts import RemoteAttempts
from trainflow.scheduler.recovery import Reconciler, adopt_orphans, is_gone
from trainflow.settings.executors import LOCAL
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

log = logging.getLogger(__name__)


class Scheduling:
    """Decides what runs next, hands it to the executor, and keeps the two of one mind."""

    def __init__(
        self,
        database: Database,
        reactor: Reactor,
        service: ExecutionService,
        executor: ConfiguredExecutors,
        *,
        clock: Clock,
        versions: Versions,
        project: Project,
        settings: Settings,
        service_id: int,
        leases: Leases,
        on_notice: Callable[[], None],
        on_change: Callable[[AppliedChange], None],
    ) -> None:
        """`on_change`: told of what an API server of this home has changed."""
        self._database = database
        self._service = service
        self._executor = executor
        self._clock = clock
        self._leases = leases
        self._own = service_id
        self._supervision = ExecutionSocket(reactor, service, project.home.socket_path, on_change=on_change)
        self._scheduler = Scheduler(
            database,
            executor,
            clock=clock,
            versions=versions,
            project=project,
            settings=settings,
            service_id=service_id,
        )
        service.follow_up = self._scheduler
        self._scheduler.on_notice = on_notice
        self._scheduler.task_queue.problems = lambda: executor.problems
        self._scheduler.task_queue.is_remote = executor.is_remote
        self._scheduler.task_queue.on_not_taken = self._was_not_taken
        self._reconciler = Reconciler(database, executor, service, own=service_id)
        #: called when tasks are left to other engines, which do not know that yet
        self.on_left: Callable[[], None] = lambda: None
        self._left: set[int] = set()
        #: what was last written of the executors
        self._told: list[ExecutorState] = []
        self._remote = RemoteAttempts(
            database,
            service.exited,
            clock.monotonic,
            own=service_id,
            lost_after_seconds=settings.workers.lost_after_seconds,
        )

    @property
    def busy(self) -> bool:
        """Whether there is something to do right now."""
        return self._scheduler.busy

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the next retry is due."""
        return self._scheduler.seconds_left

    def tick(self) -> None:
        """Decide what can be decided now."""
        self._scheduler.tick()
        left = {task for task, reason in self._scheduler.task_queue.refused.items() if reason == LEFT}
        if left - self._left:
            self.on_left()
        self._left = left

    def _was_not_taken(self, key: AttemptKey, error: Exception) -> None:
        self._service.exited(key, ProcessExit(reason=f"the executor could not start it: {error}"))

    def notice(self, change: AppliedChange) -> None:
        """An attempt changed something."""
        self._scheduler.notice(change)

    def sweep(self) -> None:
        """Another process wrote into the database: look at everything."""
        self._scheduler.sweep()
        self._reconciler.end_unwanted()
        if self._scheduler.task_queue.drains:
            self._put_back_drained()

    def _put_back_drained(self) -> None:
        """What was handed over and not begun is nothing that runs: it waits here until its queue or DAG goes on."""
        drains = self._scheduler.task_queue.drains
        for row in self._database.read(lambda connection: in_flight.queued_of_service(connection, self._own)):
            drain = drains.of_task(row.dag_id, row.queue)
            if drain is not None and self._executor.is_remote(row.executor or LOCAL):
                key = AttemptKey(row.attempt_id, row.deferral_number)
                self._service.exited(key, ProcessExit(reason=drain.sentence, delivered=False))
                self._executor.terminate(key)

    def look_for_others(self) -> None:
        """See `Scheduler.look_for_others`."""
        self._scheduler.look_for_others()

    def _others(self, connection: Connection) -> dict[int, int]:
        """Local slots of the other engines that live."""
        services = service_list_queries.not_stopped(connection)
        silent = self._leases.silent(services)
        slots = {
            row.id: sum(state.slots for state in executors_of(row) if state.type == LOCAL)
            for row in services
            if row.id != self._own and row.id not in silent and not is_gone(row) and not self._is_drained(row)
        }
        return {number: count for number, count in slots.items() if count > 0}

    def _is_drained(self, row: Service) -> bool:
        return self._scheduler.task_queue.drains.get(DrainKind.WORKER, row.hostname) is not None

    def heartbeat(self) -> None:
        """Compare what is held with what runs; take over what a dead scheduler held."""
        if not self._database.is_sqlite:
            self._scheduler.task_queue.others = self._database.read(self._others)
        self._executor.sync()
        self._tell_of_executors()
        self._reconciler.reconcile()
        self._remote.look()
        adopt_orphans(
            self._database,
            self._executor,
            self._service,
            self._leases,
            own=self._own,
            now=self._clock.now(),
        )

    def _tell_of_executors(self) -> None:
        problems = self._executor.problems
        states = [
            ExecutorState(each.name, each.type, each.slots, problems.get(each.name)) for each in self._executor.entries
        ]
        if states != self._told:
            self._database.write(lambda connection: note_executors(connection, self._own, states))
            self._told = states

    def drain(self) -> None:
        """Queue nothing more; end what is not waited for any more. The executor is about to end."""
        self._scheduler.draining = True
        try:
            self._reconciler.end_strays()
        except Exception as error:
            # whatever became of the database, the attempts must be told to stop
            log.warning("cannot see which attempts are still waited for: %s", error, exc_info=error)

    def close(self) -> None:
        """Hear attempts no more."""
        self._supervision.close()


class SchedulerHost:
    """The `ExecutorHost` of an engine. Executors start before its database is there, and ask nothing until it is."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        clock: Clock,
        reactor: Reactor,
        executors: ConfiguredExecutors,
        service: Callable[[], ExecutionService],
    ) -> None:
        self.project, self.settings, self.clock, self.reactor = project, settings, clock, reactor
        self._executors, self._service = executors, service

    @property
    def api(self) -> ExecutionService:
        """Answers attempts."""
        return self._service()

    def has_begun(self, key: AttemptKey, pid: int | None = None) -> bool:
        """See `ExecutorHost.has_begun`."""
        return self.api.has_begun(key, pid)

    def has_reported(self, key: AttemptKey) -> bool:
        """See `ExecutorHost.has_reported`."""
        return self.api.has_reported(key)

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`."""
        self.api.exited(key, exit)

    def note(self, key: AttemptKey, text: str | None) -> None:
        """See `ExecutorHost.note`."""
        self.api.note_queued(key, text)

    def explain(self, key: AttemptKey, cause: str) -> None:
        """See `ExecutorHost.explain`."""
        self.api.explain(key, cause)

    def not_taken(self, workload: ExecuteTask, reason: str) -> None:
        """See `ExecutorHost.not_taken`."""
        self._executors.not_taken(workload, reason)

    def taken(self, executor: str) -> None:
        """See `ExecutorHost.taken`."""
        self._executors.taken(executor)


#: how often a scheduler looks for what others over the same database have left to it; where they tell it, it is only
#: made sure of
_OTHERS_SECONDS, _TOLD_SECONDS = 0.25, 1.0


class ChangeLine:
    """Hears and tells where the database can do that (PostgreSQL); elsewhere nothing, and others are looked for."""

    def __init__(self, database: Database, reactor: Reactor, *, heard: Callable[[AppliedChange | None], None]) -> None:
        """`heard`: called with each change that another process made; None: with what is not known."""
        self._notices = ChangeNotices(database) if ChangeNotices.are_told(database) else None
        self._reactor = reactor
        self._heard = heard

    @property
    def look_seconds(self) -> float:
        """How often it is looked for what others have left."""
        return _TOLD_SECONDS if self._notices is not None and self._notices.is_listening else _OTHERS_SECONDS

    def keep(self) -> None:
        """Listen, where that is not done already. Asked from time to time."""
        if self._notices is not None and not self._notices.is_listening and self._notices.listen():
            self._reactor.watch(self._notices.descriptor, self._hear)

    def _hear(self) -> None:
        assert self._notices is not None
        heard = self._notices.heard()
        if heard is None:
            self._reactor.unwatch(self._notices.descriptor)
        for change in heard or ():
            self._heard(change)

    def tell(self, change: AppliedChange) -> None:
        """Tell all others of a change."""
        if self._notices is not None:
            self._notices.tell(change)

    def tell_left(self) -> None:
        """Tell all others that something waits for them."""
        self.tell(MAY_QUEUE)

    def close(self) -> None:
        """Hear nothing more."""
        if self._notices is not None:
            self._reactor.unwatch(self._notices.descriptor)
            self._notices.close()
