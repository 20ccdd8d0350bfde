"""An attempt claims its task instance: who it is, in which process, and what it has to know to begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from trainflow.messages.execution_api import EarlierAttempt, HandedXCom, Refused, Reply, RunInfo, Start, Started
from trainflow.messages.workload import AttemptKey
from trainflow.metadata import attempt_credentials
from trainflow.metadata.database import Database
from trainflow.metadata.queries import attempt_queries, in_flight, run_queries, task_queries, xcom_queries
from trainflow.states import TaskInstanceState

_T = TaskInstanceState
STALE = Refused("the attempt is stale: its task instance was queued again, or cleared")


def begin_fresh(connection: Connection, request: Start, now: datetime) -> Callable[[], Reply | None]:
    """Claim a task instance that has had no attempt before, and is not claimed yet. Nothing is looked at: each
    statement holds, or changes nothing. Call what is returned after the commit; None: nothing was claimed."""
    asked, asked_run, handed = _ask(connection, request.key)
    taken = _take(connection, request, now, fresh=True)
    attempt_queries.note_start(connection, request.key, now, request.hostname)

    def answer() -> Reply | None:
        row, run = asked(), asked_run()
        if taken.moved.rowcount != 1 or row is None or run is None:
            return None
        return _started(row, run, handed(), now, is_first=True)

    return answer


def claim(connection: Connection, request: Start, now: datetime) -> Reply:
    """Move `queued` → `running`; asked again by the same process, the same answer. Raises LostTransition."""
    asked, asked_run, handed = _ask(connection, request.key)
    taken = _take(connection, request, now)
    row, run = asked(), asked_run()
    if row is None or run is None:
        return STALE
    is_first = row.started_at is None
    if row.state == _T.RUNNING and _is_claimed_for(row, request):
        is_first = row.started_at == attempt_queries.started_at(connection, request.key.attempt_id)
        in_flight.note_process(connection, request.key, request.pid, request.process_started)
    else:
        taken.check()
        _note(connection, row, request, now)
    began = None if row.next_method is None else attempt_queries.started_at(connection, request.key.attempt_id)
    elapsed = max((now - began).total_seconds(), 0.0) if began is not None else 0.0
    is_first = is_first and row.cleared_at is None
    earlier = [] if is_first else attempt_queries.begun_before(connection, row.id, request.key.attempt_id)
    return _started(row, run, handed(), now, elapsed, is_first=is_first, earlier=earlier)


def _is_claimed_for(row: Row[Any], request: Start) -> bool:
    """Whether the attempt was claimed by this very process, or for one whose claim it inherits."""
    # on the hosts of a fleet the same number and the same second are found twice
    process, other = (row.pid, row.process_started, row.hostname), request.instead_of
    if process == (request.pid, request.process_started, request.hostname):
        return True
    return other is not None and process == (other.pid, other.process_started, request.hostname)


class _NotFresh(Exception):
    """An attempt that has to be looked at before it is claimed."""


def claim_from_afar(database: Database, request: Start, claim_secret: str, token: str, now: datetime) -> Reply:
    """`claim` by a worker on another host, which speaks for the attempt by `token` from then on, in transactions of its
    own. Raises LostTransition, CredentialRefused and AttemptTaken, and then has changed nothing."""
    try:
        with database.transaction() as connection:
            exchanged = attempt_credentials.begin_exchange(connection, request.key, claim_secret, token)
            reply = begin_fresh(connection, request, now)()
            if reply is None or not exchanged():
                # rolled back: no token is to be left of a claim that was refused
                raise _NotFresh
            return reply
    except _NotFresh:
        with database.transaction() as connection:
            attempt_credentials.exchange(connection, request.key, claim_secret, token)
            return claim(connection, request, now)


def _ask(
    connection: Connection, key: AttemptKey
) -> tuple[Callable[[], Row[Any] | None], Callable[[], Row[Any] | None], Callable[[], list[HandedXCom]]]:
    """Ask for the attempt's task instance, its run, and what that has handed over."""
    return (
        in_flight.ask_by_key(connection, key),
        run_queries.ask_of_attempt(connection, key),
        xcom_queries.ask_handed(connection, key),
    )


def _take(connection: Connection, request: Start, now: datetime, *, fresh: bool = False) -> task_queries.Move:
    return task_queries.begin_move(
        connection,
        None,
        leaving={_T.QUEUED},
        to=_T.RUNNING,
        key=request.key,
        first_started_at=now,
        fresh=fresh,
        heartbeat_at=now,
        pid=request.pid,
        process_started=request.process_started,
        hostname=request.hostname,
        progress=None,
        problem=None,
        note=None,
    )


def _note(connection: Connection, row: Row[Any], request: Start, now: datetime) -> None:
    if row.next_method is not None:
        waits = attempt_queries.waits_until(connection, request.key.attempt_id, now)
        attempt_queries.note(
            connection,
            request.key.attempt_id,
            outcome=None,
            ended_at=None,
            hostname=request.hostname,
            waits=waits,
        )
        return
    if row.had_problem or row.reschedules:
        # a new try starts clean; one that resumes after a wait keeps what it pushed before
        xcom_queries.forget(connection, row.dag_run_id, row.task_id, row.map_index)
    attempt_queries.note(connection, request.key.attempt_id, started_at=now, hostname=request.hostname)


def _started(
    row: Row[Any],
    run: Row[Any],
    handed: list[HandedXCom],
    now: datetime,
    elapsed_seconds: float = 0.0,
    *,
    is_first: bool,
    earlier: Sequence[EarlierAttempt] = (),
) -> Started:
    """`row` as it was before the claim. `is_first`: no attempt has started before this one."""
    return Started(
        run=RunInfo(
            dag_id=run.dag_id,
            run_id=run.run_id,
            run_type=run.run_type,
            conf=run.conf,
            queued_at=run.queued_at,
            started_at=run.started_at,
            run_after=run.run_after,
            logical_date=run.logical_date,
            note=run.note,
        ),
        try_number=row.failures + 1,
        max_tries=row.max_tries,
        next_method=row.next_method,
        next_kwargs=row.next_kwargs or {},
        elapsed_seconds=elapsed_seconds,
        first_started_at=row.started_at or now,
        reschedule_count=row.reschedules,
        cleared_at=row.cleared_at,
        first_attempt=is_first,
        earlier_attempts=list(earlier),
        xcoms=handed,
    )
