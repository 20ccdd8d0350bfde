"""Look after what a dead scheduler left: adopt what still runs, put back what does not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from trainflow.executors.executor import Executor, InFlightAttempt
from trainflow.messages.workload import AttemptKey, ProcessExit
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.leases import Leases
from trainflow.metadata.queries import attempt_queries, in_flight, service_list_queries, service_queries
from trainflow.metadata.queries.service_list_queries import Service
from trainflow.observability.processes import hostname, is_alive
from trainflow.settings.executors import LOCAL
from trainflow.states import TaskInstanceState

log = logging.getLogger(__name__)

#: outcomes of attempts that were ended from outside
_UNWANTED = frozenset({"cancelled", "cleared"})


class DeadServices(NamedTuple):
    """Parts of the control plane that are no more, by id."""

    #: ended in good order, or were found dead before
    stopped: list[int]
    #: ended without saying so, as far as is known
    vanished: list[int]


def is_gone(service: Service) -> bool:
    """Whether a part ran on this host, and its process is not there any more."""
    return service.hostname == hostname() and not is_alive(service.pid, service.process_started)


def dead_services(connection: Connection, leases: Leases, *, own: int, gone: Callable[[Service], bool]) -> DeadServices:
    """Who is no more: by the lease, and on this host by looking whether the process is there."""
    dead = DeadServices([], [])
    rows = service_list_queries.everyone(connection)
    silent = leases.silent(row for row in rows if row.stopped_at is None)
    for row in rows:
        if row.id == own:
            continue
        if row.stopped_at is not None:
            dead.stopped.append(row.id)
            continue
        if row.id in silent or gone(row):
            dead.vanished.append(row.id)
    return dead


def adopt_orphans(
    database: Database,
    executor: Executor,
    service: ExecutionService,
    leases: Leases,
    *,
    own: int,
    now: datetime,
    gone: Callable[[Service], bool] = is_gone,
) -> None:
    """Take over what dead schedulers held. What no executor finds alive counts as lost: it is scheduled again."""
    dead = database.read(lambda connection: dead_services(connection, leases, own=own, gone=gone))
    services = [*dead.stopped, *dead.vanished]
    if not dead.vanished and not database.read(
        lambda connection: in_flight.in_flight_of_services(connection, services)
    ):
        return
    rows = _taken_over(database, dead, own, now)
    attempts = [
        InFlightAttempt(
            AttemptKey(row.attempt_id, row.deferral_number),
            row.state == TaskInstanceState.RUNNING,
            row.hostname,
            row.pid,
            row.process_started,
            row.executor or LOCAL,
        )
        for row in rows
    ]
    lost = executor.adopt(attempts)
    if attempts:
        log.info("found %d attempts of an engine that ended: %d still run", len(attempts), len(attempts) - len(lost))
    had_begun = {attempt.key for attempt in attempts if attempt.running}
    for key in lost:
        reason = "its engine and its process ended before it reported an outcome"
        service.exited(key, ProcessExit(reason=reason, delivered=key in had_begun))


def _taken_over(database: Database, dead: DeadServices, own: int, now: datetime) -> list[Row[Any]]:
    """What was theirs and is ours now. Done again after a commit that was not heard of, there is nothing left to take:
    what the first time has found counts, as far as it is ours."""
    found: dict[int, Row[Any]] = {}

    def take(connection: Connection) -> set[int]:
        again = bool(found)
        found.update((row.id, row) for row in _take_over(connection, dead, own, now))
        return {row.id for row in in_flight.in_flight_of_services(connection, [own])} if again else set(found)

    ours = database.write(take)
    return [row for row in found.values() if row.id in ours]


def _take_over(connection: Connection, dead: DeadServices, own: int, now: datetime) -> list[Row[Any]]:
    rows = in_flight.take_over(connection, [*dead.stopped, *dead.vanished], own)
    for service_id in dead.vanished:
        service_queries.stop(connection, service_id, now)
    return rows


class Reconciler:
    """Compare what the database says this scheduler holds with what its executor has."""

    def __init__(self, database: Database, executor: Executor, service: ExecutionService, *, own: int) -> None:
        self._database = database
        self._executor = executor
        self._service = service
        self._own = own
        self._suspects: frozenset[AttemptKey] = frozenset()

    def reconcile(self) -> None:
        """End attempts that are not waited for any more; put back what the executor does not know."""
        wanted, running = self._wanted(), self._executor.running()
        known = wanted.keys()
        # one that has just reported is about to end by itself: only what is seen twice is told to stop
        strays = self._held_by_none(running - known)
        for key in sorted(strays & self._suspects, key=_by_name):
            self._executor.terminate(key)
        self._suspects = strays
        for key in sorted(known - running, key=_by_name):
            reason = "the executor does not know the attempt"
            self._service.exited(key, ProcessExit(reason=reason, delivered=wanted[key]))

    def end_strays(self) -> None:
        """The executor is about to end: attempts that are not waited for any more need no time to save anything."""
        for key in sorted(self._held_by_none(self._executor.running() - self._wanted().keys()), key=_by_name):
            self._executor.terminate(key)

    def end_unwanted(self) -> None:
        """End at once what was cancelled or cleared under way: such an attempt has not reported, and never will."""
        if not self._executor.running():
            return
        strays = self._executor.running() - self._wanted().keys()
        if not strays:
            return
        ids = {key.attempt_id for key in strays}
        unwanted = self._database.read(lambda connection: attempt_queries.that_ended(connection, ids, _UNWANTED))
        for key in sorted((key for key in strays if key.attempt_id in unwanted), key=_by_name):
            self._executor.terminate(key)

    def _held_by_none(self, strays: frozenset[AttemptKey]) -> frozenset[AttemptKey]:
        """Attempts that are not waited for. What another scheduler has taken over, while this one stood still, runs
        here and is that one's business."""
        if not strays:
            return strays
        return strays - self._database.read(lambda connection: in_flight.held(connection, strays))

    def _wanted(self) -> dict[AttemptKey, bool]:
        """Attempts that are waited for, and whether each has begun."""
        rows = self._database.read(lambda connection: in_flight.in_flight_of_services(connection, [self._own]))
        return {AttemptKey(row.attempt_id, row.deferral_number): row.state == TaskInstanceState.RUNNING for row in rows}


def _by_name(key: AttemptKey) -> str:
    """An order that is the same in every process."""
    return key.attempt_id
