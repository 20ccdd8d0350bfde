"""One process of the control plane: the parts it was asked for, turning on one reactor."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from trainflow.chaos import enter
from trainflow.clock import Clock
from trainflow.dag_processor.processor import DagProcessor
from trainflow.engine import leftovers
from trainflow.errors import DatabaseAway, EngineError
from trainflow.executors.executor import Executor
from trainflow.executors.local import LocalExecutor
from trainflow.executors.reactor import Reactor, Timer
from trainflow.executors.supervision import Supervision, nudge
from trainflow.executors.warm_process import WarmProcess
from trainflow.executors.warm_spawn import Spawned, spawn
from trainflow.messages.exits import ProcessExit
from trainflow.messages.warm import FromWorker, Stale
from trainflow.messages.workload import AttemptKey, ParseProblem
from trainflow.metadata import held_queries, schema, service_queries, trigger_queries
from trainflow.metadata.dag_queries import Versions
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import Change, ExecutionService
from trainflow.observability.processes import started_at
from trainflow.scheduler.loop import Scheduler
from trainflow.scheduler.recovery import Reconciler, adopt_orphans
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.triggerer.triggerer import TRIGGER_TIMEOUT, Triggerer

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from trainflow.engine.mirror import Mirror
    from trainflow.engine.notifier import Notifier

log = logging.getLogger(__name__)


class Part(StrEnum):
    """What a process of the control plane can do."""

    SCHEDULER = "scheduler"
    TRIGGERER = "triggerer"
    DAG_PROCESSOR = "dag_processor"
    #: what leaves the project: MLflow and notifications
    MIRROR = "mirror"


ALL_PARTS = frozenset(Part)
#: a wait that was handed over is watched at most this much later
CLAIM_SECONDS = 0.05
#: stopped services are remembered this long
_REMEMBER = timedelta(days=7)


class Engine:
    """Composes the parts. With all of them it is what `trainflow start` and `trainflow standalone` run."""

    def __init__(
        self,
        project: Project,
        settings: Settings,
        *,
        clock: Clock,
        parts: frozenset[Part] = ALL_PARTS,
        database: Database | None = None,
        prestarted: Spawned | None = None,
    ) -> None:
        """`prestarted`: a warm worker that was started before this module was imported, and imports in parallel."""
        self.project = project
        self.settings = settings
        self.clock = clock
        self.parts = parts
        self.reactor = Reactor(clock)
        self.versions = Versions()
        self.stop_requested = 0
        #: called when a file was read: its path, and what is wrong with it
        self.on_parsed: Callable[[Path, ParseProblem | None], None] = _ignore_parsed
        self._given_database = database
        self._executor = LocalExecutor(prestarted) if Part.SCHEDULER in parts else None
        self._scheduler: Scheduler | None = None
        self._triggerer: Triggerer | None = None
        self.dag_processor: DagProcessor | None = None
        self.mirror: Mirror | None = None
        self.notifier: Notifier | None = None
        self._parser: WarmProcess | None = None
        self._claim_timer: Timer | None = None
        #: the next tick looks at everything; how long the last such tick took
        self._swept = False
        self._sweep_seconds = 0.0
        self._supervision: Supervision | None = None

    # -- host of the executor --------------------------------------------------------------------------------------

    @property
    def api(self) -> ExecutionService:
        """Answers attempts."""
        return self.service

    @property
    def executor(self) -> Executor:
        """The executor. Raises EngineError in a process without scheduler."""
        if self._executor is None:
            raise EngineError("this process has no scheduler")
        return self._executor

    def exited(self, key: AttemptKey, exit: ProcessExit) -> None:
        """See `ExecutorHost.exited`."""
        self.service.exited(key, exit)

    # -- life ------------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[Engine]:
        """Everything is set up inside; on the way out attempts are stopped in good order and leases given back."""
        self.project.home.create()
        self.database = self._given_database or Database.of(self.project.home, self.settings)
        # whoever asked to stop does not wait for a database that is away
        self.database.give_up = lambda: self.stop_requested > 0
        with ExitStack() as on_failure:
            on_failure.callback(self.reactor.close)
            on_failure.callback(self.database.close)
            if self._executor is not None:
                # before the database is made: the warm worker imports meanwhile
                self._executor.start(self)
                on_failure.callback(self._executor.end, timedelta())
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
        self._register()

    def _register(self) -> None:
        kind = "engine" if len(self.parts) > 1 else next(iter(self.parts)).value
        now = self.clock.now()

        def register(connection: Connection) -> int:
            service_queries.forget_stopped(connection, now - _REMEMBER)
            return service_queries.register(
                connection,
                kind=kind,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                process_started=started_at(os.getpid()),
                now=now,
            )

        self.service_id = self.database.write(register)

    def _make_parts(self) -> None:
        if self._executor is not None:
            self._make_scheduler(self._executor)
        if Part.TRIGGERER in self.parts:
            self._triggerer = Triggerer(
                self.database,
                self.reactor,
                self.service,
                clock=self.clock,
                project=self.project,
                settings=self.settings,
                service_id=self.service_id,
                on_change=self._changed,
            )
        if Part.DAG_PROCESSOR in self.parts:
            self.dag_processor = DagProcessor(
                self.database,
                self.reactor,
                clock=self.clock,
                project=self.project,
                settings=self.settings,
                worker=self._parsing_worker,
                on_parsed=self._parsed,
            )
        if Part.MIRROR in self.parts and self.settings.tracking.enabled:
            from trainflow.engine.mirror import Mirror  # most of an engine's work does not need it

            self.mirror = Mirror(
                self.database,
                self.reactor,
                clock=self.clock,
                versions=self.versions,
                project=self.project,
                settings=self.settings,
            )
        if Part.MIRROR in self.parts:
            from trainflow.engine.notifier import Notifier

            self.notifier = Notifier(
                self.database, self.reactor, clock=self.clock, project=self.project, settings=self.settings
            )
        self._heartbeat()
        self._look_around()

    def _make_scheduler(self, executor: Executor) -> None:
        self._supervision = Supervision(self.reactor, self.service, self.project.home.socket_path)
        self._scheduler = Scheduler(
            self.database,
            executor,
            clock=self.clock,
            versions=self.versions,
            project=self.project,
            settings=self.settings,
            service_id=self.service_id,
        )
        self._scheduler.on_notice = self._notice_came
        self._reconciler = Reconciler(self.database, executor, self.service, own=self.service_id)
        self._adopt()
        self._sweep_leftovers()

    def _parsing_worker(self) -> WarmProcess:
        """The executor's warm worker where there is one; otherwise one of our own."""
        if isinstance(self._executor, LocalExecutor) and self._executor.warm_process is not None:
            return self._executor.warm_process
        if self._parser is None:
            self._parser = WarmProcess(
                self.reactor,
                spawn(self.project.root),
                on_message=self._parser_said,
                on_death=self._parser_died,
            )
        return self._parser

    def _parser_said(self, process: WarmProcess, message: FromWorker) -> None:
        if isinstance(message, Stale):
            self._parser = None
            process.close()

    def _parser_died(self, _process: WarmProcess) -> None:
        self._parser = None

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool]) -> None:
        """Turn until `until` says so, or somebody asks to stop."""
        while not self.stop_requested and not until():
            began, swept, self._swept = self.clock.monotonic(), self._swept, False
            self.tick()
            if swept:
                self._sweep_seconds = self.clock.monotonic() - began
            if not self.stop_requested:
                self.reactor.turn(self._patience())
            if self.reactor.woken:
                self.reactor.woken = False
                self._somebody_wrote()

    def tick(self) -> None:
        """Let every part do what it can do now."""
        if self._scheduler is not None:
            self._scheduler.tick()
        if self._triggerer is not None:
            self._triggerer.tick()
        if self.mirror is not None:
            self.mirror.tick()
        if self.notifier is not None:
            self.notifier.tick()

    def _patience(self) -> float | None:
        """How long nothing will be due; timers of the reactor are its own business."""
        if (self._scheduler and self._scheduler.busy) or (self._triggerer and self._triggerer.busy):
            return 0.0
        moments = [
            self._scheduler.next_due if self._scheduler else None,
            self._triggerer.next_deadline if self._triggerer else None,
            self.mirror.next_due if self.mirror else None,
            self.notifier.next_due if self.notifier else None,
        ]
        due = [moment for moment in moments if moment is not None]
        if not due:
            return None
        seconds = (min(due) - self.clock.now()).total_seconds()
        return min(max(seconds, 0.0), self.settings.engine.poll_seconds)

    def _changed(self, change: Change) -> None:
        if self._scheduler is not None:
            self._scheduler.notice(change)
        else:
            self._tell_scheduler()
        if change.deferred and self._triggerer is not None:
            self._claim_soon()
        if change.ended and self.mirror is not None:
            self.mirror.notice()
        if change.told:
            self._notice_came()

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

    def _somebody_wrote(self) -> None:
        """Woken from outside: another process changed the database, or a signal came."""
        self.versions.forget_sources()
        if self._scheduler is not None:
            self._scheduler.sweep()
            self._reconciler.end_unwanted()
        if self._triggerer is not None:
            self._triggerer.sweep()
        elif self._scheduler is not None:
            # the triggerer is another process, or there is none: a deadline holds all the same
            now = self.clock.now()
            self.database.write(lambda connection: trigger_queries.fail_overdue(connection, TRIGGER_TIMEOUT, now))

    # -- from time to time -----------------------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        self.database.write(self._renew_leases)
        if self._scheduler is not None:
            self.executor.sync()
            self._reconciler.reconcile()
            self._adopt()
        self.reactor.call_later(self.settings.engine.heartbeat_seconds, self._heartbeat)

    def _renew_leases(self, connection: Connection) -> None:
        now = self.clock.now()
        service_queries.renew_lease(connection, self.service_id, now)
        if self._scheduler is not None:
            held_queries.heartbeat(connection, self.service_id, now)

    def _look_around(self) -> None:
        """The safety net: whatever no event told us. Takes no more than a hundredth of the time, however much there is
        to look at."""
        self._somebody_wrote()
        self._swept = True
        if self.mirror is not None:
            self.mirror.notice()
        self._notice_came()
        pause = max(self.settings.engine.poll_seconds, self._sweep_seconds * 100)
        self.reactor.call_later(pause, self._look_around)

    def _sweep_leftovers(self) -> None:
        leftovers.sweep(self.project.home, self.database, self.clock.now())
        self.reactor.call_later(leftovers.OLD.total_seconds(), self._sweep_leftovers)

    def scan_files(self) -> None:
        """Look after the project's pipeline files, from now on."""
        if self.dag_processor is None:
            return
        self.dag_processor.scan()
        self.reactor.call_later(self.settings.dag_processor.refresh_seconds, self.scan_files)

    def _adopt(self) -> None:
        adopt_orphans(
            self.database,
            self.executor,
            self.service,
            own=self.service_id,
            now=self.clock.now(),
            dead_after=timedelta(seconds=self.settings.engine.dead_after_seconds),
        )

    def _parsed(self, path: Path, problem: ParseProblem | None) -> None:
        self.versions.forget_sources()
        if self._scheduler is not None:
            self._scheduler.sweep()
        else:
            self._tell_scheduler()
        self.on_parsed(path, problem)

    def _tell_scheduler(self) -> None:
        """The scheduler of this home, if there is one in another process, has something to look at."""
        nudge(self.project.home.socket_path)

    # -- the end ---------------------------------------------------------------------------------------------------

    def request_stop(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Stop in good order; asked a second time, stop at once. Fit for a signal handler."""
        self.stop_requested += 1
        if self.stop_requested > 1 and self._executor is not None:
            self._executor.hurry()
        self.reactor.wake()

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask the engine to stop."""
        before = {number: signal.signal(number, self.request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _close(self) -> None:
        # an outcome that cannot be written now is written down by its attempt
        self.database.patience_seconds = 0.0
        if self._scheduler is not None:
            self._scheduler.draining = True
            self._end_strays()
        if self.dag_processor is not None:
            self.dag_processor.close()
        if self._executor is not None:
            at_once = self.stop_requested > 1
            grace = 0.0 if at_once else self.settings.engine.stop_grace_seconds
            self._executor.end(timedelta(seconds=grace))
        if self._triggerer is not None:
            with _unless_away("give its waits back"):
                self._triggerer.close()
        if self._parser is not None:
            self._parser.close()
        if self.mirror is not None:
            self.mirror.close()
        if self.notifier is not None:
            self.notifier.close()
        if self._supervision is not None:
            self._supervision.close()
        with _unless_away("say that this process has ended"):
            now = self.clock.now()
            self.database.write(lambda connection: service_queries.stop(connection, self.service_id, now))
        self.database.close()
        self.reactor.close()

    def _end_strays(self) -> None:
        try:
            self._reconciler.end_strays()
        except Exception as error:
            # whatever became of the database, the attempts must be told to stop
            log.warning("cannot see which attempts nobody waits for: %s", error)


@contextmanager
def _unless_away(what: str) -> Iterator[None]:
    """A step on the way out that the next engine makes up for."""
    try:
        yield
    except DatabaseAway as error:
        log.warning("could not %s: %s", what, error)


def _ignore_parsed(_path: Path, _problem: ParseProblem | None) -> None:
    return None
