"""The triggerer's half in the control plane: claims waits, sends them to the event loop, turns events into moves."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.due import Countdowns, seconds_left
from trainflow.errors import InputError, ProtocolError
from trainflow.executors.framed_socket import Peer
from trainflow.executors.reactor import Reactor
from trainflow.messages.watches import (
    AskDagRun,
    Crashed,
    DagRunAnswer,
    Fired,
    FromLoop,
    LoopAlive,
    Made,
    Making,
    Unwatch,
    Watch,
)
from trainflow.metadata import service_queries, trigger_queries
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import Change, ExecutionService
from trainflow.metadata.leases import Leases
from trainflow.metadata.transaction_failures import is_refusal
from trainflow.observability.redaction import presentable
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

log = logging.getLogger(__name__)

#: the error a task resumes with when its wait took longer than its timeout (Airflow's words)
TRIGGER_TIMEOUT = "Trigger timeout"
_BATCH = 2000
#: a trigger over which the event loop ends so often fails its task
_MOST_DEATHS = 3
_PROBLEM_CHARACTERS = 4_000
#: a wait that is overdue when it is claimed is looked at all the same: for so long, then it has failed
LOOK_SECONDS = 10.0
#: an event loop that ends before it has said a word is started again after this long, twice as long each time
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


class Triggerer:
    """Watches the waits of one database. The event loop's process is started when there is something to wait for."""

    def __init__(
        self,
        database: Database,
        reactor: Reactor,
        service: ExecutionService,
        *,
        clock: Clock,
        project: Project,
        settings: Settings,
        service_id: int,
        leases: Leases,
        on_change: Callable[[Change], None],
    ) -> None:
        self._database = database
        self._reactor = reactor
        self._service = service
        self._clock = clock
        self._project = project
        self._settings = settings
        self._service_id = service_id
        self._leases = leases
        self._on_change = on_change
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(FromLoop)
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: Peer | None = None
        self._watched: set[int] = set()
        self._heard_at = clock.monotonic()
        self._spoke = False
        self._may_claim = True
        #: waits that do not last for ever
        self._time_outs: Countdowns[int] = Countdowns(clock)
        #: event loops in a row that ended before they had said a word; until when none is started
        self._stillborn = 0
        self._pausing = False
        #: the trigger of the user's that the event loop is making; how often it ended over each
        self._making: int | None = None
        self._deaths: Counter[int] = Counter()

    # -- what others tell it ---------------------------------------------------------------------------------------

    def notice(self) -> None:
        """A wait was handed over: claim it in the next tick."""
        self._may_claim = True

    @property
    def busy(self) -> bool:
        """Is there something to do right now?"""
        return self._may_claim and not self._pausing

    @property
    def seconds_left(self) -> float | None:
        """Until the next wait is overdue."""
        return self._time_outs.seconds_left

    def tick(self) -> None:
        """Claim what is new; end what is overdue."""
        now = self._clock.now()
        if self.busy:
            self._claim(now)
        if overdue := self._time_outs.take_over():
            self._end_overdue(overdue, now)

    def sweep(self) -> None:
        """The safety net: forget waits that nobody waits for, look after the event loop, claim again."""
        abandoned, mine = self._database.write(self._forget_abandoned)
        for trigger_id in self._watched - mine:
            self._send(Unwatch(trigger_id, killed=trigger_id in abandoned))
            self._forget(trigger_id)
        # claimed by a transaction whose end this process has not heard of
        if unheard := mine - self._watched:
            for row in self._database.read(lambda connection: trigger_queries.watched(connection, unheard)):
                self._watch(row, self._clock.now())
        self._may_claim = True
        silent = self._clock.monotonic() - self._heard_at
        if self._process is not None and silent > self._settings.triggerer.watchdog_seconds:
            log.error("the triggers' event loop has been silent for %.0f s: something blocks it; restarted", silent)
            self._kill_loop()

    def _forget_abandoned(self, connection: Connection) -> tuple[list[int], set[int]]:
        abandoned = trigger_queries.abandoned(connection)
        trigger_queries.forget(connection, abandoned)
        return abandoned, trigger_queries.watched_ids(connection, self._service_id)

    # -- waits -----------------------------------------------------------------------------------------------------

    def _claim(self, now: datetime) -> None:
        self._may_claim = False
        rows = self._database.write(self._take_unwatched)
        for row in rows:
            self._watch(row, now)
        self._may_claim = len(rows) == _BATCH

    def _take_unwatched(self, connection: Connection) -> list[Any]:
        services = service_queries.not_stopped(connection)
        silent = self._leases.silent(services)
        living = [each.id for each in services if each.id not in silent and each.kind in ("engine", "triggerer")]
        return trigger_queries.claim(connection, self._service_id, living, _BATCH)

    def _watch(self, row: Any, now: datetime) -> None:
        self._watched.add(row.id)
        if row.deadline is not None:
            whole = max((row.deadline - row.created_at).total_seconds(), 0.0)
            left = seconds_left(row.created_at, whole, now)
            self._time_outs.begin(row.id, left or min(whole, LOOK_SECONDS))
        try:
            self._send(Watch(row.id, row.trigger_class, row.kwargs))
        except ProtocolError as error:
            self._fail(row.id, f"the trigger cannot be handed over: {error}", now)

    def _end_overdue(self, overdue: list[int], now: datetime) -> None:
        ended = self._database.write(
            lambda connection: [trigger_queries.fail(connection, each, TRIGGER_TIMEOUT, now) for each in overdue]
        )
        for trigger_id, run in zip(overdue, ended, strict=True):
            self._resumed(run)
            self._forget(trigger_id)
            self._send(Unwatch(trigger_id))

    def _forget(self, trigger_id: int) -> None:
        self._watched.discard(trigger_id)
        self._time_outs.stop(trigger_id)

    def _heard(self, message: bytes) -> None:
        self._heard_at = self._clock.monotonic()
        self._stillborn = 0
        self._spoke = True
        now = self._clock.now()
        try:
            answer = self._decoder.decode(message)
        except (msgspec.DecodeError, RecursionError) as error:
            log.error("the triggers' event loop said what cannot be understood (%s): it is started again", error)
            self._kill_loop()
            return
        match answer:
            case Fired(trigger_id, payload):
                self._forget(trigger_id)
                self._fire(trigger_id, payload, now)
            case Crashed(trigger_id, message_text, trace):
                self._forget(trigger_id)
                log.warning("a trigger failed: %s\n%s", message_text, trace)
                self._fail(trigger_id, message_text, now)
            case AskDagRun(question, dag_id, run_id):
                self._send(DagRunAnswer(question, self._dag_run_state(dag_id, run_id)))
            case Making(trigger_id):
                self._making = trigger_id
            case Made():
                self._making = None
            case LoopAlive():
                pass

    def _fire(self, trigger_id: int, payload: msgspec.Raw, now: datetime) -> None:
        try:
            run = self._database.write(lambda connection: trigger_queries.fire(connection, trigger_id, payload, now))
        except Exception as error:
            if not isinstance(error, InputError) and not is_refusal(error):
                raise
            log.error("the event of wait %d cannot be kept: its task fails", trigger_id, exc_info=error)
            self._fail(trigger_id, presentable(f"the event cannot be kept: {error}", _PROBLEM_CHARACTERS), now)
            return
        self._resumed(run)

    def _fail(self, trigger_id: int, message: str, now: datetime) -> None:
        self._watched.discard(trigger_id)
        self._resumed(
            self._database.write(lambda connection: trigger_queries.fail(connection, trigger_id, message, now))
        )

    def _dag_run_state(self, dag_id: str, run_id: str) -> str | None:
        try:
            return self._service.dag_run_state(dag_id, run_id)
        except Exception as error:
            if not is_refusal(error):
                raise
            return None  # what no database can name is in none

    def _resumed(self, dag_run_id: int | None) -> None:
        if dag_run_id is not None:
            self._on_change(Change(dag_run_id))

    # -- the event loop's process ----------------------------------------------------------------------------------

    def _send(self, message: Watch | Unwatch | DagRunAnswer) -> None:
        if self._peer is None:
            if not isinstance(message, Watch):
                return
            self._start_loop()
        assert self._peer is not None
        self._peer.send(self._encoder.encode(message))

    def _start_loop(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "trainflow.triggerer.event_loop",
                    str(theirs.fileno()),
                    str(self._project.root),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._heard_at = self._clock.monotonic()
        self._spoke = False
        self._peer = Peer(self._reactor, ours, on_message=self._heard, on_close=self._loop_ended)

    def _loop_ended(self) -> None:
        """The process died: what it watched is claimed again, by a new one."""
        self._peer = None
        code: int | None = None
        if self._process is not None:
            # hung up without ending: not waited for
            self._kill_loop()
            code = self._process.wait()
            self._process = None
        if self._spoke:
            log.warning("the triggers' event loop ended unexpectedly: it is started again")
        else:
            self._pause(code)
        self._watched.clear()
        self._time_outs.clear()
        self._database.write(lambda connection: trigger_queries.release(connection, self._service_id))
        self._may_claim = True
        self._blame()

    def _blame(self) -> None:
        """A trigger that ends the process each time it is made would keep all others from being watched."""
        blamed, self._making = self._making, None
        if blamed is None:
            return
        self._deaths[blamed] += 1
        if self._deaths[blamed] >= _MOST_DEATHS:
            del self._deaths[blamed]
            message = f"the triggers' event loop ended {_MOST_DEATHS} times while it imported and made this trigger"
            log.error("wait %d fails: %s", blamed, message)
            self._fail(blamed, message, self._clock.now())

    def _pause(self, code: int | None) -> None:
        """One that cannot even start would be started again for ever, as fast as the machine can."""
        self._stillborn += 1
        seconds = min(_FIRST_PAUSE_SECONDS * 2 ** (self._stillborn - 1), _LONGEST_PAUSE_SECONDS)
        log.error(
            "the triggers' event loop ended (exit code %s) before it could watch anything, %d times in a row: nothing "
            "that is waited for is noticed. What it printed says why. Started again in %g s",
            code,
            self._stillborn,
            seconds,
        )
        self._pausing = True
        self._reactor.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pausing = False

    def _kill_loop(self) -> None:
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Stop watching; the waits stay, for the next triggerer."""
        if self._peer is not None:
            peer, self._peer = self._peer, None
            peer.hang_up()
        if self._process is not None:
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self._kill_loop()
                self._process.wait()
            self._process = None
        self._database.write(lambda connection: trigger_queries.release(connection, self._service_id))
