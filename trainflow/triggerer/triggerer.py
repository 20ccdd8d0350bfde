"""The triggerer's half in the control plane: claims waits, sends them to the event loop, turns events into moves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from trainflow.clock import Clock
from trainflow.deadlines import MonotonicDeadlines, seconds_left
from trainflow.errors import InputError, ProtocolError
from trainflow.executors.reactor import Reactor
from trainflow.messages.triggerer import (
    AskDagRun,
    Crashed,
    DagRunAnswer,
    Fired,
    FromLoop,
    LoopAlive,
    NotMade,
    Unwatch,
    Watch,
)
from trainflow.metadata.applied_change import AppliedChange
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import service_list_queries, trigger_queries
from trainflow.metadata.retry_policy import pause_before_start_over
from trainflow.metadata.transaction_retries import is_refusal
from trainflow.observability.oom_kills import OomKills
from trainflow.observability.redaction import presentable
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.triggerer.crash_causes import MOST_ENDS, Blame
from trainflow.triggerer.loop_process import Loop, LoopProcess
from trainflow.triggerer.loop_watchdog import end_stalled

log = logging.getLogger(__name__)

#: the error a task resumes with when its wait took longer than its timeout (Airflow's words)
TRIGGER_TIMEOUT = "Trigger timeout"
_BATCH = 2000
_PROBLEM_CHARACTERS = 4_000
#: a wait that is overdue when it is claimed is looked at all the same: for so long, then it has failed
LOOK_SECONDS = 10.0
#: an event loop that ends before it has said a word is started again after this long, twice as long each time
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
#: processes at once that watch what is suspected of ending the event loop
_MOST_APART = 4


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
        on_change: Callable[[AppliedChange], None],
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
        #: the event loops; all but the first one watch what is suspected
        self._loops: list[Loop] = []
        #: waits of an event loop that ended, and whether they are watched apart from now on
        self._unwatched: list[tuple[set[int], bool]] = []
        #: those that hung up and clean up
        self._leaving: list[Loop] = []
        self._blame_trigger = Blame()
        self._memory_kills = OomKills(clock)
        self._may_claim = True
        #: waits that do not last for ever
        self._time_outs: MonotonicDeadlines[int] = MonotonicDeadlines(clock)
        #: waits that cannot be taken up, and why: until their tasks start over
        self._start_overs: MonotonicDeadlines[int] = MonotonicDeadlines(clock)
        self._not_made: dict[int, str] = {}
        #: event loops in a row that ended before they had said a word; until when none is started
        self._stillborn = 0
        self._pausing = False

    # -- what others tell it ---------------------------------------------------------------------------------------

    def notice(self) -> None:
        """A wait was handed over: claim it in the next tick."""
        self._may_claim = True

    @property
    def busy(self) -> bool:
        """Whether there is something to do right now."""
        return (self._may_claim or bool(self._unwatched)) and not self._pausing

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the next wait is overdue, or its task starts over."""
        left = (self._time_outs.seconds_left, self._start_overs.seconds_left)
        return min((seconds for seconds in left if seconds is not None), default=None)

    def tick(self) -> None:
        """Claim what is new; end what is overdue."""
        now = self._clock.now()
        if self.busy:
            self._watch_again(now)
            self._claim(now)
        if overdue := self._time_outs.take_over():
            self._end_overdue(overdue, now)
        for trigger_id in self._start_overs.take_over():
            self._start_over(trigger_id, now)

    def sweep(self) -> None:
        """The safety net: forget waits that no task waits for, look after the event loops, claim again."""
        abandoned, mine = self._database.write(self._forget_abandoned)
        for trigger_id in self._watched - mine:
            self._unwatch(trigger_id, killed=trigger_id in abandoned)
        # claimed by a transaction whose end this process has not heard of
        if unheard := mine - self._watched:
            self._watch_all(unheard, self._clock.now())
        self._may_claim = True
        self._leaving = [loop for loop in self._leaving if not loop.has_ended]
        self.end_stalled_loops()

    def end_stalled_loops(self) -> None:
        """End event loops that have not turned for too long (`loop_watchdog`)."""
        end_stalled(self._loops, self._clock.monotonic(), self._settings.triggerer.watchdog_seconds)

    @property
    def _watched(self) -> set[int]:
        return set[int]().union(*(loop.watched for loop in self._loops), *(waits for waits, _ in self._unwatched))

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
        services = service_list_queries.not_stopped(connection)
        silent = self._leases.silent(services)
        living = [each.id for each in services if each.id not in silent and each.kind in ("engine", "triggerer")]
        return trigger_queries.claim(connection, self._service_id, living, _BATCH)

    def _watch(self, row: Any, now: datetime, loop: Loop | None = None) -> None:
        loop = loop or self._common()
        loop.watched.add(row.id)
        if row.deadline is not None:
            whole = max((row.deadline - row.created_at).total_seconds(), 0.0)
            left = seconds_left(row.created_at, whole, now)
            self._time_outs.begin(row.id, left or min(whole, LOOK_SECONDS))
        try:
            self._send(loop, Watch(row.id, row.trigger_class, row.kwargs))
        except ProtocolError as error:
            self._fail(row.id, f"the trigger cannot be handed over: {error}", now)

    def _watch_all(self, ids: Collection[int], now: datetime, loop: Loop | None = None) -> None:
        for row in self._database.read(lambda connection: trigger_queries.watched(connection, ids)):
            self._watch(row, now, loop)

    def _watch_again(self, now: datetime) -> None:
        """What event loops watched that have ended."""
        unwatched, self._unwatched = self._unwatched, []
        for waits, is_apart in unwatched:
            self._watch_all(waits, now, self._apart() if is_apart else None)

    def _end_overdue(self, overdue: list[int], now: datetime) -> None:
        ended = self._database.write(
            lambda connection: [
                trigger_queries.fail(connection, each, TRIGGER_TIMEOUT, now, by=self._service_id) for each in overdue
            ]
        )
        for trigger_id, run in zip(overdue, ended, strict=True):
            self._resumed(run)
            self._unwatch(trigger_id)

    def _unwatch(self, trigger_id: int, *, killed: bool = False) -> None:
        for loop in self._loops:
            if trigger_id in loop.watched:
                self._send(loop, Unwatch(trigger_id, killed))
        self._forget(trigger_id)

    def _forget(self, trigger_id: int) -> None:
        """Forget a wait that is over, or another triggerer's."""
        for waits in (*(loop.watched for loop in self._loops), *(waits for waits, _ in self._unwatched)):
            waits.discard(trigger_id)
        self._time_outs.stop(trigger_id)
        self._start_overs.stop(trigger_id)
        self._not_made.pop(trigger_id, None)
        self._blame_trigger.forget((trigger_id,))
        for loop in [loop for loop in self._loops if loop.is_apart and not loop.watched]:
            self._let_go(loop)

    def _heard(self, loop: Loop, message: bytes) -> None:
        loop.heard_at = self._clock.monotonic()
        loop.missed_at = None
        loop.spoke = True
        self._stillborn = 0
        now = self._clock.now()
        try:
            answer = self._decoder.decode(message)
        except (msgspec.DecodeError, RecursionError) as error:
            log.error("the triggers' event loop said what cannot be understood (%s): it is started again", error)
            loop.kill()
            return
        match answer:
            case Fired(trigger_id, payload):
                self._forget(trigger_id)
                self._fire(trigger_id, payload, now)
            case Crashed(trigger_id, message_text, trace):
                log.warning("a trigger failed: %s\n%s", message_text, trace)
                self._fail(trigger_id, message_text, now)
            case NotMade(trigger_id, message_text):
                self._not_taken_up(trigger_id, message_text)
            case AskDagRun(question, dag_id, run_id):
                self._send(loop, DagRunAnswer(question, self._dag_run_state(dag_id, run_id)))
            case LoopAlive():
                pass

    def _fire(self, trigger_id: int, payload: msgspec.Raw, now: datetime) -> None:
        try:
            self._end(trigger_queries.fire, trigger_id, payload, now)
        except Exception as error:
            if not isinstance(error, InputError) and not is_refusal(error):
                raise
            log.error("the event of wait %d cannot be kept: its task fails", trigger_id, exc_info=error)
            self._fail(trigger_id, presentable(f"the event cannot be kept: {error}", _PROBLEM_CHARACTERS), now)

    def _fail(self, trigger_id: int, message: str, now: datetime) -> None:
        self._forget(trigger_id)
        self._end(trigger_queries.fail, trigger_id, message, now)

    def _end(self, how: Callable[..., int | None], trigger_id: int, what: Any, now: datetime) -> None:
        """End a wait, if it is still this triggerer's: one that stood still for long may have lost it to another."""
        own = self._service_id
        self._resumed(self._database.write(lambda connection: how(connection, trigger_id, what, now, by=own)))

    def _not_taken_up(self, trigger_id: int, why: str) -> None:
        """A wait was handed over by other code, an older build or a newer one."""
        times = self._database.read(lambda connection: trigger_queries.start_overs(connection, trigger_id))
        if times is None:
            return
        pause = pause_before_start_over(times)
        if pause is None:
            self._fail(
                trigger_id,
                f"{why}. The task has started over {times} times for that: what runs it and the triggerer have "
                "different code; bring both to the same version, then clear the task",
                self._clock.now(),
            )
            return
        log.warning("a wait cannot be taken up: %s. Its task starts over in %g s", why, pause.total_seconds())
        self._not_made[trigger_id] = why
        self._start_overs.begin(trigger_id, pause.total_seconds())

    def _start_over(self, trigger_id: int, now: datetime) -> None:
        why = self._not_made[trigger_id]
        self._forget(trigger_id)
        self._end(trigger_queries.start_over, trigger_id, why, now)

    def _dag_run_state(self, dag_id: str, run_id: str) -> str | None:
        try:
            return self._service.dag_run_state(dag_id, run_id)
        except Exception as error:
            if not is_refusal(error):
                raise
            return None  # what no database can name is in none

    def _resumed(self, dag_run_id: int | None) -> None:
        if dag_run_id is not None:
            self._on_change(AppliedChange(dag_run_id))

    # -- the event loops' processes --------------------------------------------------------------------------------

    def _send(self, loop: Loop, message: Watch | Unwatch | DagRunAnswer) -> None:
        loop.send(self._encoder.encode(message))

    def _common(self) -> Loop:
        """The one that watches all that is not suspected."""
        for loop in self._loops:
            if not loop.is_apart:
                return loop
        self._loops.insert(0, self._start_loop())
        return self._loops[0]

    def _apart(self) -> Loop:
        """One more for what is suspected. When there are too many, the waits of the oldest go back to the others."""
        apart = [loop for loop in self._loops if loop.is_apart]
        if len(apart) >= _MOST_APART:
            self._unwatched.append((apart[0].watched, False))
            self._let_go(apart[0])
        loop = self._start_loop()
        loop.is_apart = True
        self._loops.append(loop)
        return loop

    def _let_go(self, loop: Loop) -> None:
        self._loops.remove(loop)
        loop.hang_up()
        self._leaving.append(loop)

    def _start_loop(self) -> Loop:
        return LoopProcess(
            self._reactor,
            self._clock,
            self._project,
            self._settings.triggerer.threads,
            self._memory_kills,
            on_message=self._heard,
            on_end=self._loop_ended,
        )

    def _loop_ended(self, loop: Loop) -> None:
        """The process died: what it watched stays claimed, and is watched again, by a new one."""
        self._loops.remove(loop)
        end = loop.end()
        if not loop.spoke:
            self._pause(loop.describe_end())
            self._unwatched.append((loop.watched, loop.is_apart))
            return
        log.warning("the triggers' event loop %s: it is started again", loop.describe_end())
        verdict = self._blame_trigger.judge(end)
        if verdict.apart:
            self._unwatched.append((set(verdict.apart), True))
            loop.watched -= verdict.apart
        self._unwatched.append((loop.watched, loop.is_apart))
        if verdict.failed is not None:
            self._condemn(verdict.failed, loop.describe_end())

    def _condemn(self, trigger_id: int, how: str) -> None:
        message = (
            f"{MOST_ENDS} times the triggers' event loop {how} while it ran this trigger. `run` must not block, and "
            "must not end the process: what blocks belongs into `await self.in_thread(...)`"
        )
        log.error("wait %d fails: %s", trigger_id, message)
        self._fail(trigger_id, message, self._clock.now())

    def _pause(self, how: str) -> None:
        """One that cannot even start would be started again for ever, as fast as the machine can."""
        self._stillborn += 1
        seconds = min(_FIRST_PAUSE_SECONDS * 2 ** (self._stillborn - 1), _LONGEST_PAUSE_SECONDS)
        log.error(
            "the triggers' event loop %s before it could watch anything, %d times in a row: nothing "
            "that is waited for is noticed. What it printed says why. Started again in %g s",
            how,
            self._stillborn,
            seconds,
        )
        self._pausing = True
        self._reactor.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pausing = False

    def close(self) -> None:
        """Stop watching; the waits stay, for the next triggerer."""
        for loop in self._loops:
            loop.hang_up()
        for loop in (*self._loops, *self._leaving):
            loop.wait()
        self._loops, self._leaving = [], []
        self._database.write(lambda connection: trigger_queries.release(connection, self._service_id))
