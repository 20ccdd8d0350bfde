"""The tables of the API server: tokens, what was done through it, and requests that are done once."""

from __future__ import annotations

from sqlalchemy import Index, Integer, String

from trainflow.metadata.column_types import BigKey, Json, LongText, UtcDateTime
from trainflow.metadata.models import METADATA as METADATA
from trainflow.metadata.models import TableModel, optional, required


class ApiTokenTable(TableModel, name="api_token"):
    """A token of the API server, for a person or a program. Digests only."""

    id = required(BigKey, primary_key=True, autoincrement=True)
    name = required(String(250), unique=True)
    role = required(String(20))
    token_hash = required(String(64), unique=True)
    created_at = required(UtcDateTime())
    created_by = required(String(250))
    expires_at = optional(UtcDateTime())
    revoked_at = optional(UtcDateTime())


class EventTable(TableModel, name="event"):
    """What a person or a program did: who, when, from where. Only ever added to."""

    constraints = (Index("ix_event_dag_id", "dag_id", "id"),)

    id = required(BigKey, primary_key=True, autoincrement=True)
    at = required(UtcDateTime())
    event = required(String(100))
    owner = required(String(250))
    address = required(String(250))
    dag_id = optional(String(250))
    run_id = optional(String(250))
    task_id = optional(String(250))
    extra = required(Json())


class IdempotencyKeyTable(TableModel, name="idempotency_key"):
    """A request that is done once however often it comes, and its answer."""

    owner = required(String(250), primary_key=True)
    key = required(String(200), primary_key=True)
    #: digest of what was asked
    fingerprint = required(String(64))
    #: of the answer; None: it is being answered
    status = optional(Integer())
    answer = optional(LongText())
    created_at = required(UtcDateTime(), index=True)
