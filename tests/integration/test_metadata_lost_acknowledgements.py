"""A commit counts, and its maker does not hear of it: the work is done again, and all is as if it had been heard.

One history of a control plane is played without a loss, then once for each transaction that it commits, with the
acknowledgement of that one lost. What the database holds at the end, and what was handed to the executor, is the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from tests.support.control_plane import control_plane, empty_task
from trainflow.executors.executor import InFlightAttempt
from trainflow.messages.execution_api import AttemptFailure, Deferral, OutcomeState, TriggeredRun, TriggerRun, XComItem
from trainflow.messages.triggerer import Crashed, Fired, FromLoop, NotMade, ToLoop, Watch
from trainflow.messages.workload import AttemptKey, ExecuteTask
from trainflow.metadata.database import Database
from trainflow.metadata.fast_path import Plans
from trainflow.metadata.queries import notification_queries, outbox_queries, service_queries
from trainflow.metadata.queries.attempt_queries import ATTEMPT
from trainflow.metadata.queries.run_queries import RUN
from trainflow.metadata.queries.task_queries import TASK
from trainflow.metadata.queries.trigger_queries import TRIGGER
from trainflow.metadata.queries.xcom_queries import XCOM
from trainflow.scheduler.recovery import Reconciler, adopt_orphans
from trainflow.serialization.document import ChainDocument, RetryDocument
from trainflow.states import TriggerRule
from trainflow.triggerer.loop_process import Loop
from trainflow.triggerer.triggerer import Triggerer

if TYPE_CHECKING:
    from trainflow.executors.reactor import Reactor

State = OutcomeState
PLANS = Plans(Database("sqlite://").engine.dialect)
CHAIN = ChainDocument(pipeline="p", stage="main", branch="main", store="checkpoints")


def lost_acknowledgement() -> DBAPIError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return DBAPIError("COMMIT", None, error)


class Losses:
    """Loses the acknowledgement of one commit. Counts those that changed something."""

    def __init__(self, database: Database, lose: int | None) -> None:
        self.count = 0
        self.armed = True
        self._lose = lose
        self._real = database.transaction
        database.transaction = self._transaction  # type: ignore[method-assign]
        database.sleep = lambda _seconds: None

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._real() as connection:
            before = _changes(connection)
            yield connection
            changed = _changes(connection) != before
        if not self.armed or not changed:
            return
        number, self.count = self.count, self.count + 1
        if number == self._lose:
            raise lost_acknowledgement()

    @contextmanager
    def none(self) -> Iterator[None]:
        """What is done inside is done by people."""
        self.armed = False
        yield
        self.armed = True


def _changes(connection: Connection) -> int:
    driver = cast("sqlite3.Connection", connection.connection.driver_connection)
    return driver.total_changes


class LoneTriggerer(Triggerer):
    """A triggerer whose event loop is the test."""

    def _start_loop(self) -> Loop:
        self.told: dict[int, Watch] = {}
        return Loop(self._told)

    def _told(self, payload: bytes) -> None:
        """What the event loop is told."""
        message = msgspec.json.decode(payload, type=ToLoop)
        if isinstance(message, Watch):
            self.told[message.trigger_id] = message

    def hear(self, make: Callable[[int], FromLoop]) -> None:
        """The event loop says something about the wait it was told of."""
        [number] = self.told
        del self.told[number]
        self._heard(self._loops[0], msgspec.json.encode(make(number)))


class End(NamedTuple):
    """What a history has come to."""

    handed_over: list[tuple[str, str, int]]
    rows: dict[str, list[Any]]


class History:
    """Everything a control plane writes, once."""

    def __init__(self, folder: Path, lose: int | None) -> None:
        self._context = control_plane(folder)
        self.plane = plane = self._context.__enter__()
        self.handed_over: list[ExecuteTask] = []
        self.losses = Losses(plane.database, lose)
        self.triggerer = LoneTriggerer(
            plane.database,
            cast("Reactor", None),
            plane.service,
            clock=plane.clock,
            project=plane.project,
            settings=plane.settings,
            service_id=plane.service_id,
            leases=plane.leases,
            on_change=plane.scheduler.notice,
        )
        plane.database.on_done_again = self.look_around
        self.reconciler = Reconciler(plane.database, plane.executor, plane.service, own=plane.service_id)

    def look_around(self) -> None:
        """What an engine does when it is woken."""
        self.plane.scheduler.sweep()
        self.woken = True

    def tick(self) -> list[ExecuteTask]:
        self.woken = False
        found = self.plane.tick()
        while self.woken or self.plane.scheduler.busy:
            self.woken = False
            found += self.plane.tick()
        self.triggerer.sweep()
        self.triggerer.tick()
        self.triggerer.sweep()
        self.handed_over += found
        return found

    def only(self) -> ExecuteTask:
        [found] = self.tick()
        return found

    def play(self) -> None:
        plane = self.plane
        with self.losses.none():
            retry = RetryDocument(retries=3, delay_seconds=10)
            first = empty_task("a", retry=retry)
            last = empty_task("b", "a", retry=retry)
            always = empty_task("c", "b", trigger_rule=TriggerRule.ALL_DONE)
            plane.add_dag("chain", first, last, always, chain=CHAIN, max_active_runs=1)
            plane.add_dag("other", empty_task("x"))
            plane.add_run("chain")
        work = self.only()
        plane.claim(work)
        plane.service.handle(TriggerRun(work.key, TriggeredRun("other", "now")))
        [other] = self.tick()
        plane.play(other, xcoms=[XComItem("k", msgspec.Raw(b"1"))])
        self.defer(work)
        self.triggerer.hear(lambda number: Fired(number, msgspec.Raw(b'"came"')))
        work = self.only()
        plane.claim(work)
        self.defer(work)
        self.triggerer.hear(lambda number: NotMade(number, "of another build"))
        self.triggerer.tick()
        work = self.only()
        plane.claim(work)
        self.defer(work)
        self.triggerer.hear(lambda number: Crashed(number, "broken"))
        plane.play(self.only(), State.FAILED, problem=AttemptFailure("no"))
        self.tick()
        plane.clock.advance(timedelta(seconds=10))
        work = self.only()
        plane.claim(work)
        self.defer(work, timeout_seconds=5.0)
        plane.clock.advance(timedelta(seconds=5))
        self.triggerer.tick()
        work = self.only()
        plane.claim(work)
        plane.exit(work)
        work = self.only()
        plane.play(work, xcoms=[XComItem("k", msgspec.Raw(b"2"))])
        work = self.only()
        plane.play(work, State.RESCHEDULED, reschedule_seconds=7.0)
        self.tick()
        plane.clock.advance(timedelta(seconds=7))
        plane.play(self.only(), triggered_runs=[TriggeredRun("chain", "r2")])
        self.die_and_be_taken_over(self.only())
        plane.play(self.only(), State.FAILED, problem=AttemptFailure("for good", retryable=False))
        self.tick()

    def defer(self, work: ExecuteTask, **more: Any) -> None:
        self.plane.report(work, State.DEFERRED, deferral=Deferral("m.C", {"a": 1}, "came", {"b": 2}, **more))
        self.tick()

    def die_and_be_taken_over(self, work: ExecuteTask) -> None:
        """The attempt belongs to an engine that is no more, and it lives: the engine that adopts it finds it."""
        plane = self.plane
        plane.claim(work)
        plane.executor.alive.discard(work.key)
        plane.executor.adopt = self._adopt  # type: ignore[method-assign]
        with self.losses.none(), plane.database.transaction() as connection:
            dead = service_queries.register(
                connection, kind="engine", hostname="gone", pid=1, process_started=1.0, now=plane.clock.now()
            )
            connection.execute(TASK.update().where(TASK.c.state == "running").values(service_id=dead))
        for _ in range(2):
            adopt_orphans(
                plane.database, plane.executor, plane.service, plane.leases,
                own=plane.service_id, now=plane.clock.now(), gone=lambda service: service.hostname == "gone",
            )  # fmt: skip
            self.reconciler.reconcile()
        plane.report(work)

    def _adopt(self, attempts: Sequence[InFlightAttempt]) -> list[AttemptKey]:
        self.plane.executor.alive.update(attempt.key for attempt in attempts)
        return []

    def end(self) -> End:
        number = {row.id: row.run_id for row in self._rows(select(RUN.c.id, RUN.c.run_id))}
        tables = {
            "runs": select(RUN.c.id, RUN.c.state, RUN.c.number, RUN.c.ended_at, RUN.c.note),
            "tasks": select(
                TASK.c.dag_run_id, TASK.c.task_id, TASK.c.state, TASK.c.failures, TASK.c.lost, TASK.c.problem,
                TASK.c.reschedules, TASK.c.deferral_number, TASK.c.retry_at,
            ),
            "xcoms": select(XCOM.c.dag_run_id, XCOM.c.task_id, XCOM.c.key, XCOM.c.value),
            "triggers": select(TRIGGER.c.id),
        }  # fmt: skip
        rows: dict[str, list[Any]] = {
            name: sorted(((number.get(row[0], row[0]), *row[1:]) for row in self._rows(statement)), key=repr)
            for name, statement in tables.items()
        }
        rows["attempts"] = sorted(
            self._rows(select(ATTEMPT.c.try_number, ATTEMPT.c.outcome, ATTEMPT.c.problem)), key=repr
        )
        rows["outbox"] = sorted(self._rows(select(outbox_queries.OUTBOX.c.kind)))
        rows["notices"] = self._rows(select(notification_queries.NOTIFICATION.c.key))
        return End([(each.run_id, each.task_id, each.key.deferral_number) for each in self.handed_over], rows)

    def _rows(self, statement: Any) -> list[Any]:
        with self.plane.database.reading() as connection:
            return list(connection.execute(statement).all())

    def close(self) -> None:
        self._context.__exit__(None, None, None)


def played(folder: Path, lose: int | None) -> tuple[End, int]:
    history = History(folder, lose)
    # statements are compiled once for all of them
    history.plane.database._plans = PLANS
    try:
        history.play()
        return history.end(), history.losses.count
    finally:
        history.close()


def test_commit_with_lost_acknowledgement_counts_once(tmp_path: Path) -> None:
    expected, count = played(tmp_path / "none", None)
    assert count > 30
    assert [row[1] for row in expected.rows["runs"]].count("success") >= 1
    for lose in range(count):
        found, _ = played(tmp_path / str(lose), lose)
        assert found == expected, f"the acknowledgement of commit {lose} was lost"
