"""Queue scheduled tasks in one transaction, under slots, pools and limits, and hand them to executors after it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace
from sqlalchemy import Connection

from trainflow.errors import LostTransition
from trainflow.executors.executor import Executor
from trainflow.messages.execution_api import Reply, Start, Started
from trainflow.messages.workload import AttemptKey, ExecuteTask, ProcessIdentity
from trainflow.metadata import attempt_claims, attempt_credentials
from trainflow.metadata.queries import (
    attempt_queries,
    dag_queries,
    in_flight,
    pool_queries,
    queueing_lock,
    task_queries,
)
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.metadata.queries.drain_queries import DrainKind, Drains
from trainflow.metadata.queries.in_flight import InFlightTask
from trainflow.metadata.queries.pool_queries import PoolSlots
from trainflow.metadata.queries.scheduled_queries import Candidate, ask_and_lock_scheduled
from trainflow.observability.log_names import attempt_log_name
from trainflow.observability.processes import hostname
from trainflow.scheduler.error_containment import Each
from trainflow.scheduler.executor_slots import ExecutorSlots
from trainflow.scheduler.queueing import Limits, choose, resumes_after_wait, workload_of
from trainflow.serialization.document import DagDocument
from trainflow.settings.executors import executor_entries
from trainflow.settings.model import Settings
from trainflow.settings.project import Project
from trainflow.states import TaskInstanceState

log = logging.getLogger(__name__)

_T = TaskInstanceState


class _Queued(NamedTuple):
    """What was queued. `move`: to be checked after the commit. `process`: one that waits, for which it was claimed;
    `claimed` gives the answer to that after the commit."""

    workload: ExecuteTask
    move: task_queries.Move | None = None
    process: ProcessIdentity | None = None
    claimed: Callable[[], Reply | None] | None = None

    @property
    def for_any(self) -> ExecuteTask:
        """The workload for another process than the one that it was claimed for."""
        return replace(self.workload, instead_of=self.process) if self.process is not None else self.workload

    def answer(self) -> Started | None:
        """What the process is told for which it was claimed; None: it has to ask for itself."""
        try:
            reply = self.claimed() if self.claimed is not None else None
        except Exception:
            log.warning(
                "attempt %s: it cannot be told beforehand what to do", self.workload.key.attempt_id, exc_info=True
            )
            return None
        return reply if isinstance(reply, Started) else None


class _Full(NamedTuple):
    """What has no slot left, whichever scheduler asks: its tasks are not looked at."""

    executors: frozenset[str | None] = frozenset()
    pools: frozenset[str] = frozenset()


class TaskQueue:
    """What one scheduler queues for its executors."""

    def __init__(
        self, executor: Executor, *, versions: Versions, project: Project, settings: Settings, service_id: int
    ) -> None:
        self._executor = executor
        self._versions = versions
        self._project = project
        self._settings = settings
        self._service_id = service_id
        self._hostname = hostname()
        self._executors = executor_entries(settings)
        #: what was queued and is not handed over: whether it was is known once its transaction is committed
        self._handover: list[_Queued] = []
        #: slots that were free the last time: how many tasks are worth looking at
        self._free = 0
        #: a limit was so near the last time that the next time no other scheduler is to queue meanwhile
        self._is_near = False
        #: executors and pools that were full for all the last time
        self._full = _Full()
        #: what a transaction queued of which it is not known whether it counts
        self._unsure: list[ExecuteTask] = []
        #: how many tasks of one run were in the hands of executors the last time, at most
        self.widest = 0
        #: why task instances that could be queued are not (id → sentence)
        self.refused: dict[int, str] = {}
        #: slots of the local executors of other engines that live, by their ids: they have their share
        self.others: dict[int, int] = {}
        #: what takes nothing new
        self.drains = Drains()
        #: executors that take nothing now, by name, and why
        self.problems: Callable[[], Mapping[str, str]] = dict
        #: whether the attempts of an executor speak over HTTP
        self.is_remote: Callable[[str], bool] = lambda _name: False
        #: called when the executor did not take an attempt
        self.on_not_taken: Callable[[AttemptKey, Exception], None] = lambda _key, _error: None

    @property
    def waits(self) -> bool:
        """Whether something is queued that was not handed over."""
        return bool(self._handover)

    @property
    def is_unsure(self) -> bool:
        """Whether it is not known of something whether it was queued."""
        return bool(self._unsure)

    def start_over(self) -> None:
        """A transaction lost against another one, and nothing of it has happened; or all of it has, unheard of."""
        self._unsure += [queued.for_any for queued in self._handover]
        self._handover = []

    def forget(self) -> None:
        """Forget what was queued since the last `hand_over`: it has not happened."""
        self._handover.clear()

    def queue_all(self, now: datetime, without_runs: Collection[int], connection: Connection, each: Each) -> bool:
        """Queue what may be queued; each run by itself. Returns whether to do it again at once, in a transaction of its
        own: what others queue at the same time matters."""
        if self._unsure:
            held = {row.attempt_id for row in in_flight.in_flight_of_services(connection, [self._service_id])}
            self._handover = [_Queued(workload) for workload in self._unsure if workload.key.attempt_id in held]
        refused: dict[int, str] = {}
        full_runs = set(without_runs)
        seat = self._seat(connection)
        passed_over = _Full() if seat is None else self._full
        # asked together: the lock, the pools and what other schedulers have queued before it was had, and, as if as
        # much were free as the last time, what may be queued
        asked_pools = pool_queries.ask_and_lock_slots(connection, seat=seat)
        asked_held = in_flight.ask_in_flight_tasks(connection)
        # few: each is locked, which is written down, and most often the first are taken
        most = self._free + 2
        asked = ask_and_lock_scheduled(
            connection,
            limit=most,
            without_executors=passed_over.executors,
            without_pools=passed_over.pools,
            without_runs=full_runs,
        )
        limits = self._limits(connection, asked_pools(), asked_held(), now)
        near = False
        while (free := limits.executors.free) > 0 and not (near and seat is not None):
            candidates = asked()
            known = self._with_document(connection, candidates, each)
            choice = choose(
                known,
                limits,
                lambda one: in_flight.count_in_flight(connection, one.dag_id, one.task_id),
                beside=seat is not None,
            )
            for candidate in choice.chosen:
                executor = limits.executors.name_of(candidate)
                each(candidate.dag_run_id, partial(self._queue, connection, candidate, executor, now))
            refused.update(choice.refused)
            near = near or choice.near
            full_runs.update(c.dag_run_id for c in known if limits.run_is_full(c))
            full = _Full(limits.executors.full_for_all(), frozenset(limits.full_pools()))
            if len(candidates) < most and passed_over.executors <= full.executors and passed_over.pools <= full.pools:
                break
            # with a seat it takes no more, and what it only looks at no other one sees
            passed_over, most = full, free * 2 + 16 if seat is None else 2 * queueing_lock.MOST_BESIDE
            asked = ask_and_lock_scheduled(
                connection,
                limit=most,
                without_executors=limits.executors.full(),
                without_pools=full.pools,
                without_runs=full_runs,
                without_ids=refused,
            )
        self._is_near, self._full = near, _Full(limits.executors.full_for_all(), frozenset(limits.full_pools()))
        self._free, self.widest, self.refused = limits.executors.free, limits.widest, refused
        return near and seat is not None

    def _seat(self, connection: Connection) -> int | None:
        """The seat beside other schedulers; None: alone."""
        if not self.others or self._is_near or not queueing_lock.has_seats(connection):
            return None
        # each knows of the others: most often they choose different ones
        return sorted([self._service_id, *self.others]).index(self._service_id) % queueing_lock.SEATS

    def _with_document(self, connection: Connection, candidates: Sequence[Candidate], each: Each) -> list[Candidate]:
        """Candidates whose limits can be read."""
        known: list[Candidate] = []

        def look(candidate: Candidate) -> None:
            self._document(connection, candidate)
            known.append(candidate)

        for candidate in candidates:
            each(candidate.dag_run_id, partial(look, candidate))
        return known

    def _limits(
        self, connection: Connection, pools: Mapping[str, PoolSlots], held: Sequence[InFlightTask], now: datetime
    ) -> Limits:
        return Limits(
            executors=ExecutorSlots(
                self._executors,
                self._settings.executor.default,
                held,
                own=self._service_id,
                problems={**self.problems(), **self._drained_here()},
                others=self.others,
                now=now,
            ),
            pools=pools,
            held=held,
            documents=lambda candidate: self._document(connection, candidate),
            drains=self.drains,
        )

    def _drained_here(self) -> dict[str, str]:
        """The executors that run attempts on this host, when it is drained."""
        drain = self.drains.get(DrainKind.WORKER, self._hostname) if self.drains else None
        if drain is None:
            return {}
        return {name: drain.sentence for name, entry in self._executors.items() if entry.is_local}

    def _document(self, connection: Connection, candidate: Candidate) -> DagDocument:
        return self._versions.get(connection, candidate.version_id)[0]

    def _queue(self, connection: Connection, candidate: Candidate, executor: str, now: datetime) -> None:
        document, source = self._versions.get(connection, candidate.version_id)
        workload = workload_of(
            candidate,
            document,
            source,
            self._project,
            now,
            executor=executor,
            is_traced=self._settings.telemetry.is_on,
        )
        move = task_queries.begin_move(
            connection,
            candidate.id,
            leaving={_T.SCHEDULED},
            to=_T.QUEUED,
            attempt_id=workload.key.attempt_id,
            deferral_number=workload.key.deferral_number,
            service_id=self._service_id,
            executor=executor,
            queued_at=now,
            note=None,
            resumed=False,
            pid=None,
        )
        if resumes_after_wait(candidate):
            attempt_queries.note(connection, workload.key.attempt_id, service_id=self._service_id)
        else:
            attempt_queries.record(
                connection,
                attempt_id=workload.key.attempt_id,
                task_instance_id=candidate.id,
                try_number=candidate.failures + 1,
                now=now,
                log_name=attempt_log_name(workload.dag_id, workload.run_id, workload.task_id, workload.key.attempt_id),
                service_id=self._service_id,
            )
        if self.is_remote(executor):
            workload = self._for_another_host(connection, workload, candidate.version_id)
        self._handover.append(self._claimed(connection, _Queued(workload, move), candidate, now))

    def _claimed(self, connection: Connection, queued: _Queued, candidate: Candidate, now: datetime) -> _Queued:
        """Claim what was queued for a process that waits for it: the same transaction, and none of its own later. Only
        where nothing has to be looked at for that: a task that has had no attempt before."""
        if candidate.attempt_id is not None:
            return queued
        taken = [other.process for other in self._handover]
        waiting = self._executor.waiting_processes(queued.workload)
        process = next((each for each in waiting if each not in taken), None)
        if process is None:
            return queued
        claim = Start(queued.workload.key, process.pid, process.process_started, self._hostname)
        return queued._replace(process=process, claimed=attempt_claims.begin_fresh(connection, claim, now))

    def _for_another_host(self, connection: Connection, workload: ExecuteTask, version_id: int) -> ExecuteTask:
        """Add what a worker needs that has no engine: where to claim it and with what, its code, and which version."""
        pinned = replace(
            workload, version=dag_queries.digest_of(connection, version_id), code=self._settings.workers.code
        )
        return attempt_credentials.for_another_host(connection, pinned, self._settings.api.address)

    def hand_over(self, _now: datetime) -> None:
        """Hand over what was queued."""
        # first what was claimed for a process: another one would be given to that
        handover = sorted(self._handover, key=lambda queued: queued.process is None)
        self._handover, self._unsure = [], []
        for queued in handover:
            workload = queued.workload
            try:
                if queued.move is not None:
                    # its row was locked: it is there. Asked after the commit, it costs no question of its own
                    queued.move.check()
                started = queued.answer()
                if started is not None and queued.process is not None:
                    self._executor.queue_claimed(workload, queued.process, started)
                else:
                    self._executor.queue_workload(queued.for_any)
            except LostTransition as lost:
                log.error("%s", lost)
            except Exception as error:
                # it is queued in the database: comparing the two puts it back, the others are handed over
                log.error("the executor does not take attempt %s", workload.key.attempt_id, exc_info=error)
                self.on_not_taken(workload.key, error)
