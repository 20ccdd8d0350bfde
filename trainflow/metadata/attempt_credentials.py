"""Let a worker on another host speak for an attempt: a claim secret that is used once, and a token from then on.

The claim secret travels in the workload. The worker makes its token itself and registers it with its claim, so that a
claim whose answer was lost is sent again as it was, and no secret ever stands in an answer. The database keeps digests
only. A token is good for as long as the attempt is the one that the database knows: there is no clock in it, and
nothing that could expire in a queue.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, Update, and_, bindparam, exists, insert, or_, select, update

from trainflow.errors import StateError
from trainflow.messages.http_protocol import CLAIM_PREFIX
from trainflow.messages.workload import AttemptKey, ExecuteTask
from trainflow.metadata.bound_parameters import in_parts
from trainflow.metadata.models import (
    AttemptCredentialTable,
    AttemptTable,
    DagRunTable,
    TaskInstanceTable,
)
from trainflow.metadata.queries import service_queries
from trainflow.metadata.queries.task_queries import parameters_of
from trainflow.states import TaskInstanceState

CREDENTIAL = AttemptCredentialTable.table
ATTEMPT = AttemptTable.table
TASK = TaskInstanceTable.table
RUN = DagRunTable.table

_RANDOM_BYTES = 32


class CredentialRefused(StateError):
    """A claim secret or a token is not that of the attempt it was shown for."""


class AttemptTaken(StateError):
    """The claim secret of an attempt was exchanged by another process: that one runs it."""


def for_another_host(connection: Connection, workload: ExecuteTask, api_url: str) -> ExecuteTask:
    """A workload that claims its attempt at an API server, by a secret."""
    return msgspec.structs.replace(
        workload,
        api_url=api_url,
        claim_secret=issue(connection, workload.key),
        installation=service_queries.installation(connection),
    )


def issue(connection: Connection, key: AttemptKey) -> str:
    """Make the claim secret of an attempt that is handed to another host; only its digest is kept."""
    secret = CLAIM_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    connection.execute(
        _ISSUE,
        {
            "attempt_id": key.attempt_id,
            "deferral_number": key.deferral_number,
            "claim_hash": digest(secret),
            "heartbeats": 0,
            "log_bytes": 0,
        },
    )
    return secret


_ISSUE = insert(CREDENTIAL)


def digest(secret: str) -> str:
    """What is kept of a secret. Not salted, not slow: what is hashed has 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def exchange(connection: Connection, key: AttemptKey, claim_secret: str, token: str) -> None:
    """Register `token` for the attempt that `claim_secret` claims; the same again changes nothing.

    Raises CredentialRefused when the secret is not that of the attempt, or the token stands for another one;
    AttemptTaken when the secret was exchanged for another token.
    """
    registered = begin_exchange(connection, key, claim_secret, token)
    row = connection.execute(_OF_KEY, parameters_of(key)).one_or_none()
    if row is None or not hmac.compare_digest(row.claim_hash, digest(claim_secret)):
        raise CredentialRefused("this claim secret is not that of the attempt")
    if row.token_hash not in (None, digest(token)):
        raise AttemptTaken("another process has claimed this attempt")
    if not registered():
        raise CredentialRefused("this token stands for another attempt")


def begin_exchange(connection: Connection, key: AttemptKey, claim_secret: str, token: str) -> Callable[[], bool]:
    """`exchange`, if nothing is wrong: call what is returned to know that; where it is not so, the transaction is to be
    rolled back. What is asked in between goes along to the server."""
    hashes = {"claim": digest(claim_secret), "token": digest(token)}
    stands_for = connection.execute(_HOLDER, {"token": hashes["token"]})
    done = connection.execute(_REGISTER, {**parameters_of(key), **hashes, "b_token": hashes["token"]})

    def registered() -> bool:
        held = stands_for.one_or_none()
        return done.rowcount == 1 and (held is None or AttemptKey(*held) == key)

    return registered


_OF_ATTEMPT = (
    CREDENTIAL.c.attempt_id == bindparam("attempt"),
    CREDENTIAL.c.deferral_number == bindparam("deferral"),
)
_OF_KEY = select(CREDENTIAL.c.claim_hash, CREDENTIAL.c.token_hash).where(*_OF_ATTEMPT)
_REGISTER = (
    update(CREDENTIAL)
    .where(
        *_OF_ATTEMPT,
        # digests: how long it takes to compare them tells nothing of the secret
        CREDENTIAL.c.claim_hash == bindparam("claim"),
        or_(CREDENTIAL.c.token_hash.is_(None), CREDENTIAL.c.token_hash == bindparam("token")),
    )
    .values(token_hash=bindparam("b_token"))
)


def holder(connection: Connection, token: str) -> AttemptKey | None:
    """The attempt that a token stands for, whether it is still waited for or not; None: nothing has such a token."""
    row = connection.execute(_HOLDER, {"token": digest(token)}).one_or_none()
    return None if row is None else AttemptKey(row.attempt_id, row.deferral_number)


_HOLDER = select(CREDENTIAL.c.attempt_id, CREDENTIAL.c.deferral_number).where(
    CREDENTIAL.c.token_hash == bindparam("token")
)


def meet(connection: Connection, key: AttemptKey, claim_secret: str, address: str | None) -> Row[Any] | None:
    """The row of an attempt whose ranks wait for each other: `rank_address`, where its first rank is. `address`: keep
    this one. None: it is waited for no more, or has begun. Raises CredentialRefused when the secret is not its own."""
    row = connection.execute(_OF_KEY, parameters_of(key)).one_or_none()
    if row is None or not hmac.compare_digest(row.claim_hash, digest(claim_secret)):
        raise CredentialRefused("this claim secret is not that of the attempt")
    if address is not None:
        connection.execute(_KEEP_ADDRESS, {**parameters_of(key), "b_address": address})
    return connection.execute(_ADDRESS, parameters_of(key)).one_or_none()


_WAITS = (
    *_OF_ATTEMPT,
    CREDENTIAL.c.token_hash.is_(None),
    exists().where(
        TASK.c.attempt_id == CREDENTIAL.c.attempt_id,
        TASK.c.deferral_number == CREDENTIAL.c.deferral_number,
        TASK.c.state == TaskInstanceState.QUEUED,
    ),
)
_ADDRESS = select(CREDENTIAL.c.rank_address).where(*_WAITS)
_KEEP_ADDRESS = update(CREDENTIAL).where(*_WAITS).values(rank_address=bindparam("b_address"))


# -- heartbeats ----------------------------------------------------------------------------------------------------


class RemoteAttempt(NamedTuple):
    """An attempt that runs on another host, and how often it has said that it lives."""

    id: AttemptKey
    heartbeats: int


def note_heartbeats(connection: Connection, keys: Collection[AttemptKey]) -> set[AttemptKey]:
    """Raise the counters of attempts that say that they live. Returns those of them that run and are waited for."""
    alive: set[AttemptKey] = set()
    for part in in_parts(sorted({key.attempt_id for key in keys})):
        connection.execute(_BEAT, {"attempts": part})
        alive |= {AttemptKey(*row) for row in connection.execute(_ALIVE, {"attempts": part})}
    return alive & set(keys)


_RUNS = TASK.c.state == TaskInstanceState.RUNNING
_BEAT: Update = (
    update(CREDENTIAL)
    .where(
        CREDENTIAL.c.attempt_id.in_(bindparam("attempts", expanding=True)),
        exists().where(
            TASK.c.attempt_id == CREDENTIAL.c.attempt_id,
            TASK.c.deferral_number == CREDENTIAL.c.deferral_number,
            _RUNS,
        ),
    )
    .values(heartbeats=CREDENTIAL.c.heartbeats + 1)
)
_ALIVE = select(TASK.c.attempt_id, TASK.c.deferral_number).where(
    TASK.c.attempt_id.in_(bindparam("attempts", expanding=True)), _RUNS
)


def running_elsewhere(connection: Connection, service_id: int) -> list[RemoteAttempt]:
    """The running attempts of one scheduler that speak by HTTP, with their counters."""
    return [
        RemoteAttempt(AttemptKey(attempt, deferral), heartbeats)
        for attempt, deferral, heartbeats in connection.execute(_ELSEWHERE, {"service": service_id})
    ]


_ELSEWHERE = (
    select(CREDENTIAL.c.attempt_id, CREDENTIAL.c.deferral_number, CREDENTIAL.c.heartbeats)
    .join(
        TASK,
        and_(
            TASK.c.attempt_id == CREDENTIAL.c.attempt_id,
            TASK.c.deferral_number == CREDENTIAL.c.deferral_number,
        ),
    )
    .where(TASK.c.service_id == bindparam("service"), _RUNS)
)


# -- logs ----------------------------------------------------------------------------------------------------------


class RemoteLog(NamedTuple):
    """The log of an attempt: how much of it was taken, and whose it is."""

    size: int
    dag_id: str
    run_id: str
    task_id: str


def lock_log(connection: Connection, key: AttemptKey) -> RemoteLog:
    """How much of a log was taken; no other process adds to it in this transaction. Raises CredentialRefused for an
    attempt that is not remembered any more."""
    row = connection.execute(_LOG, parameters_of(key)).one_or_none()
    if row is None:
        raise CredentialRefused("the attempt is not remembered any more")
    return RemoteLog._make(row)


_LOG = (
    select(CREDENTIAL.c.log_bytes, RUN.c.dag_id, RUN.c.run_id, TASK.c.task_id)
    .select_from(
        CREDENTIAL.join(ATTEMPT, ATTEMPT.c.attempt_id == CREDENTIAL.c.attempt_id)
        .join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id)
        .join(RUN, RUN.c.id == TASK.c.dag_run_id)
    )
    .where(*_OF_ATTEMPT)
    .with_for_update(of=CREDENTIAL)
)


def note_log(connection: Connection, key: AttemptKey, size: int) -> None:
    """Remember how much of a log was taken."""
    connection.execute(_NOTE_LOG, {**parameters_of(key), "b_size": size})


_NOTE_LOG = update(CREDENTIAL).where(*_OF_ATTEMPT).values(log_bytes=bindparam("b_size"))
