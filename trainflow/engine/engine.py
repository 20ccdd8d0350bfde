"""One process of the control plane: the parts it was asked for, turning on one reactor."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from trainflow.bootstrap import is_replaced, version
from trainflow.clock import Clock
from trainflow.dag_processor.parsing_worker import ParsingWorker
from trainflow.dag_processor.processor import DagProcessor
from trainflow.deadlines import pause_after
from trainflow.engine.api_server_process import ApiServerProcess
from trainflow.engine.channels import channel_dispatchers
from trainflow.engine.home_upkeep import HomeUpkeep
from trainflow.engine.loop_utilization import LoopUtilization
from trainflow.engine.scheduling import ChangeLine, SchedulerHost, Scheduling
from trainflow.engine.startup import ALL_PARTS, Part, ignoring_outage, kind_of
from trainflow.executors.configured import ConfiguredExecutors
from trainflow.executors.execution_socket import nudge
from trainflow.executors.reactor import Reactor, Timer
from trainflow.executors.spawn import SpawnedForkserver
from trainflow.failpoint import enter
from trainflow.messages.workload import ParseProblem
from trainflow.metadata import schema
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import in_flight, service_list_queries, service_queries, trigger_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.triggerer.triggerer import TRIGGER_TIMEOUT, Triggerer

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from trainflow.engine.channel_dispatcher import ChannelDispatcher
    from trainflow.engine.mlflow_dispatcher import MlflowDispatcher
    from trainflow.engine.notifier import Notifier

log = logging.getLogger(__name__)

#: a wait that was handed over is watched at most this much later
CLAIM_SECONDS = 0.05


class Engine:
    """Composes the parts. With all of them it is what `trainflow start` and `trainflow standalone` run."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        *,
        clock: Clock,
        parts: frozenset[Part] = ALL_PARTS,
        prestarted: SpawnedForkserver | None = None,
        api_listener: socket.socket | None = None,
    ) -> None:
        """`prestarted`: a warm worker that imports since before this module did. `api_listener`: of its API server."""
        self.project = project
        self.settings = settings
        self.clock = clock
        self.parts = parts
        self.reactor = Reactor(clock)
        self.database = Database.of(project.home, settings)
        # a person who asked to stop does not wait for a database that is away
        self.database.give_up = lambda: self.stop_requested > 0
        self.database.on_done_again = self.reactor.wake
        self.versions = Versions()
        #: how often; whether it was since the package was installed anew, and no person asked for it
        self.stop_requested, self.is_replaced = 0, False
        #: called when a file was read: its path, and what is wrong with it
        self.on_parsed: Callable[[Path, ParseProblem | None], None] = lambda _path, _problem: None
        self.dag_processor: DagProcessor | None = None
        self.mirror: MlflowDispatcher | None = None
        #: the other channels of the outbox
        self.channels: list[ChannelDispatcher] = []
        self.notifier: Notifier | None = None
        #: None in a process without scheduler
        self.executor = ConfiguredExecutors(settings, prestarted=prestarted) if Part.SCHEDULER in parts else None
        self._parsing_worker = ParsingWorker(
            self.reactor, clock, project.root, lambda: self.executor.warm_process if self.executor else None
        )
        self._scheduling: Scheduling | None = None
        self._triggerer: Triggerer | None = None
        #: in the order in which they have their turn
        self._turning: list[Scheduling | Triggerer | ChannelDispatcher | Notifier] = []
        self._api_server = None if api_listener is None else ApiServerProcess(self.reactor, project, api_listener)
        self._upkeep: HomeUpkeep | None = None
        self._claim_timer: Timer | None = None
        #: whether the next tick looks at everything; how long the last such one took
        self._swept, self._sweep_seconds = False, 0.0
        self._loop_utilization = LoopUtilization(clock, self.reactor)

    # -- life ------------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[Engine]:
        """Set up everything for what runs inside; on the way out attempts are stopped in good order and leases given
        back."""
        self.project.home.create()
        with ExitStack() as on_failure:
            on_failure.callback(self.reactor.close)
            on_failure.callback(self.database.close)
            if self.executor is not None:
                # before the database is made: the warm worker imports meanwhile
                host = SchedulerHost(
                    self.project, self.settings, self.clock, self.reactor, self.executor, lambda: self.service
                )
                self.executor.start(host)
                on_failure.callback(self.executor.end, timedelta())
            schema.ensure_schema(self.database)
            self._make_service()
            on_failure.pop_all()
        try:
            self._make_parts()
            enter("engine")
            yield self
        finally:
            self._close()

    def _make_service(self) -> None:
        self.service = ExecutionService(
            self.database,
            self.clock,
            self.versions,
            lost_attempts=self.settings.engine.lost_attempts,
            on_change=self._changed,
        )
        self._line = ChangeLine(self.database, self.reactor, heard=self._heard)
        self._leases = Leases(self.clock.monotonic, self.settings.engine.dead_after_seconds)
        kind = kind_of(self.parts)
        self.service_id = self.database.write(
            lambda connection: service_queries.register_this_process(connection, kind, self.clock.now())
        )

    def _make_parts(self) -> None:
        if self._api_server is not None:
            self._api_server.start()
        if self.executor is not None:
            self._scheduling = self._make_scheduling(self.executor)
        if Part.TRIGGERER in self.parts:
            self._triggerer = self._make_triggerer()
        if Part.DAG_PROCESSOR in self.parts:
            self.dag_processor = self._make_dag_processor()
        if Part.MIRROR in self.parts:
            self._make_dispatchers()
        made = (self._scheduling, self._triggerer, self.mirror, *self.channels, self.notifier)
        self._turning = [part for part in made if part is not None]
        self._heartbeat()
        if self._scheduling is not None:
            self._scheduling.on_left = self._line.tell_left
            self._upkeep = HomeUpkeep(
                self.project, self.settings, self.database, self.reactor, self.clock,
                may_delete_runs=partial(service_queries.is_first_scheduler, own=self.service_id, leases=self._leases),
            )  # fmt: skip
            self._upkeep.begin()
            if not self.database.is_sqlite:
                self._look_for_others()
        self._look_around()

    def _make_scheduling(self, executor: ConfiguredExecutors) -> Scheduling:
        return Scheduling(
            self.database, self.reactor, self.service, executor, clock=self.clock, versions=self.versions,
            project=self.project, settings=self.settings, service_id=self.service_id, leases=self._leases,
            on_notice=self._notice_came, on_change=self._changed,
        )  # fmt: skip

    def _make_triggerer(self) -> Triggerer:
        return Triggerer(
            self.database, self.reactor, self.service, clock=self.clock, project=self.project, settings=self.settings,
            service_id=self.service_id, leases=self._leases, on_change=self._changed,
        )  # fmt: skip

    def _make_dag_processor(self) -> DagProcessor:
        return DagProcessor(
            self.database,
            self.reactor,
            clock=self.clock,
            project=self.project,
            settings=self.settings,
            worker=self._parsing_worker,
            on_parsed=self._parsed,
        )

    def _make_dispatchers(self) -> None:
        from trainflow.engine.notifier import Notifier

        about: dict[str, Any] = {"clock": self.clock, "versions": self.versions, "project": self.project}
        # most of an engine's work needs none of them
        if self.settings.tracking.enabled:
            from trainflow.engine.mlflow_dispatcher import MlflowDispatcher

            self.mirror = MlflowDispatcher(self.database, self.reactor, settings=self.settings, **about)
        self.channels = channel_dispatchers(self.settings, self.database, self.reactor, **about)
        self.notifier = Notifier(
            self.database, self.reactor, clock=self.clock, project=self.project, settings=self.settings
        )

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool]) -> None:
        """Turn until `until` says so, or a stop is asked for."""
        while not self._has_to_stop() and not until():
            began, swept, self._swept = self.clock.processor(), self._swept, False
            self._loop_utilization.begin()
            self.tick()
            if swept:
                self._sweep_seconds = self.clock.processor() - began
            if not self.stop_requested:
                self.reactor.turn(self._patience())
            if self.reactor.woken:
                self.reactor.woken = False
                self._database_changed()
            self._loop_utilization.end()

    def _has_to_stop(self) -> bool:
        """Whether a stop was asked for, or what this process would import from now on is of another build."""
        if not self.stop_requested and is_replaced():
            log.warning("trainflow %s was replaced where it is installed: this engine stops in good order", version())
            self.is_replaced = True
            self.request_stop()
        return self.stop_requested > 0

    def tick(self) -> None:
        """Let every part do what it can do now."""
        for part in self._turning:
            part.tick()

    def _patience(self) -> float | None:
        """How long nothing will be due; timers of the reactor are its own business."""
        if any(part.busy for part in self._turning):
            return 0.0
        left = [seconds for part in self._turning if (seconds := part.seconds_left) is not None]
        return min(max(min(left), 0.0), self.settings.engine.poll_seconds) if left else None

    # -- what happens ----------------------------------------------------------------------------------------------

    def _changed(self, change: AppliedChange) -> None:
        if self._scheduling is not None:
            self._scheduling.notice(change)
        else:
            self._tell_scheduler()
        if self._scheduling is None or (change.deferred and self._triggerer is None):
            self._line.tell(change)
        if change.deferred and self._triggerer is not None:
            self._claim_soon()
        if change.ended:
            self._outbox_grew()
        if change.told:
            self._notice_came()

    def _heard(self, change: AppliedChange | None) -> None:
        """Another process has changed something; None: it did not say what."""
        if change is None:
            self._database_changed()
        elif self._scheduling is not None:
            self._scheduling.notice(change)
        if change is not None and change.deferred and self._triggerer is not None:
            self._claim_soon()

    def _outbox_grew(self) -> None:
        for channel in (self.mirror, *self.channels):
            if channel is not None:
                channel.notice()

    def _notice_came(self) -> None:
        if self.notifier is not None:
            self.notifier.notice()

    def _claim_soon(self) -> None:
        """Waits often come in crowds: they are claimed together."""
        if self._claim_timer is None:
            self._claim_timer = self.reactor.call_later(CLAIM_SECONDS, self._claim)

    def _claim(self) -> None:
        self._claim_timer = None
        if self._triggerer is not None:
            self._triggerer.notice()

    def _parsed(self, path: Path, problem: ParseProblem | None) -> None:
        self.versions.forget_sources()
        if self._scheduling is not None:
            self._scheduling.sweep()
        else:
            self._tell_scheduler()
        self.on_parsed(path, problem)

    def _tell_scheduler(self) -> None:
        """The scheduler of this home, if there is one in another process, has something to look at."""
        nudge(self.project.home.socket_path)

    def _database_changed(self) -> None:
        """Woken from outside: another process changed the database, or a signal came."""
        self.versions.forget_sources()
        if self._scheduling is not None:
            self._scheduling.sweep()
        if self._triggerer is not None:
            self._triggerer.sweep()
        elif self._scheduling is not None:
            # the triggerer is another process, or there is none: a deadline holds all the same
            self.database.write(self._fail_overdue)

    def _fail_overdue(self, connection: Connection) -> None:
        services = service_list_queries.not_stopped(connection)
        living = {each.id for each in services} - self._leases.silent(services)
        trigger_queries.fail_overdue(connection, living, TRIGGER_TIMEOUT, self.clock.now())

    # -- from time to time -----------------------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        self.database.write(self._renew_leases)
        if self._scheduling is not None:
            self._scheduling.heartbeat()
        if self._triggerer is not None:
            self._triggerer.end_stalled_loops()
        self._line.keep()
        self.reactor.call_later(self.settings.engine.heartbeat_seconds, self._heartbeat)

    def _renew_leases(self, connection: Connection) -> None:
        now = self.clock.now()
        details = None if self._scheduling is None else self._loop_utilization.details()
        service_queries.renew_lease(connection, self.service_id, now, details)
        if self._scheduling is not None:
            in_flight.heartbeat(connection, self.service_id, now)

    def _look_around(self) -> None:
        """The safety net: whatever no event told us. Takes no more than a hundredth of a processor as long as that is
        once a minute. Waiting does not count: for a database that is slow, or the lock of another scheduler."""
        self._database_changed()
        self._swept = True
        self._outbox_grew()
        self._notice_came()
        pause = pause_after(self._sweep_seconds, self.settings.engine.poll_seconds)
        self.reactor.call_later(pause, self._look_around)

    def _look_for_others(self) -> None:
        """What another scheduler leaves to this one is not told by any event."""
        if self._scheduling is not None:
            began = self.clock.processor()
            self._scheduling.look_for_others()
            pause = pause_after(self.clock.processor() - began, self._line.look_seconds)
            self.reactor.call_later(min(pause, self.settings.engine.poll_seconds), self._look_for_others)

    def scan_files(self) -> None:
        """Look after the project's pipeline files, from now on."""
        if self.dag_processor is None:
            return
        self.dag_processor.scan()
        self.reactor.call_later(self.settings.dag_processor.refresh_seconds, self.scan_files)

    # -- the end ---------------------------------------------------------------------------------------------------

    def request_stop(self, number: int = 0, _frame: FrameType | None = None) -> None:
        """Stop in good order; asked a second time, stop at once. Fit for a signal handler. The first signal to one that
        stops because its package was replaced has no other take its place."""
        if number and self.is_replaced:
            self.is_replaced = False
            return
        self.stop_requested += 1
        if self.stop_requested > 1 and self.executor is not None:
            self.executor.hurry()
        self.reactor.wake()

    def _close(self) -> None:
        # an outcome that cannot be written now is written down by its attempt
        self.database.patience_seconds = 0.0
        if self._scheduling is not None:
            self._scheduling.drain()
        if self.dag_processor is not None:
            self.dag_processor.close()
        if self.executor is not None:
            grace = 0.0 if self.stop_requested > 1 else self.settings.engine.stop_grace_seconds
            self.executor.end(timedelta(seconds=grace))
        if self._triggerer is not None:
            with ignoring_outage("give its waits back"):
                self._triggerer.close()
        self._parsing_worker.close()
        for part in (self._api_server, self.mirror, *self.channels, self.notifier, self._upkeep, self._line):
            if part is not None:
                part.close()
        if self._scheduling is not None:
            self._scheduling.close()
        with ignoring_outage("say that this process has ended"):
            now = self.clock.now()
            self.database.write(lambda connection: service_queries.stop(connection, self.service_id, now))
        self.database.close()
        self.reactor.close()
