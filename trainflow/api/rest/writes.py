"""Requests that change something: done once for each `Idempotency-Key`, and noted in the event log."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from sqlalchemy import Connection

from trainflow.api.rest.endpoints import ApiCall, DryRun, Endpoint
from trainflow.api.rest.problems import RequestRefused, not_understood, problem_of
from trainflow.clock import Clock
from trainflow.metadata.queries import event_queries, idempotency_queries
from trainflow.metadata.queries.event_queries import ApiEvent
from trainflow.observability.redaction import redact
from trainflow.workspace.workspace import Workspace

#: characters of a key
_SHORTEST, _LONGEST = 1, 200


class Writes:
    """What endpoints that write are called through. Fit for several threads."""

    def __init__(self, workspace: Workspace, clock: Clock) -> None:
        self._workspace = workspace
        self._clock = clock

    def apply(self, endpoint: Endpoint, call: ApiCall[Any, Any], key: str | None) -> tuple[int, bytes | None]:
        """Status and body of the answer. Raises RequestRefused, and whatever the endpoint raises."""
        if key is None:
            return self._noted(endpoint, call)
        if not _SHORTEST <= len(key) <= _LONGEST or not key.isprintable():
            raise not_understood(f"Idempotency-Key: give it {_SHORTEST} to {_LONGEST} printable characters")
        known = self._begin(endpoint, call, key)
        if known is not None:
            return known
        try:
            answer = self._noted(endpoint, call)
        except Exception as error:
            self._end_refused(call, key, error)
            raise
        self._end(call, key, *answer)
        return answer

    def _begin(self, endpoint: Endpoint, call: ApiCall[Any, Any], key: str) -> tuple[int, bytes | None] | None:
        """The answer that was given to the same request before; None: it is a new one."""
        fingerprint, now = _fingerprint(endpoint, call), self._clock.now()
        found = self._workspace.database.write(
            lambda connection: idempotency_queries.begin(connection, call.caller.name, key, fingerprint, now)
        )
        if found is None:
            return None
        if found.fingerprint != fingerprint:
            raise RequestRefused(
                422,
                "KeyUsed",
                f"the Idempotency-Key {key!r} was used for another request",
                "take a new key for each request, and the same one only to send that request again",
            )
        if found.status is None:
            raise RequestRefused(
                409,
                "StillAtWork",
                f"the request with the Idempotency-Key {key!r} is still being answered, or its server was killed",
                "look at what it was about (GET), and send it with a new key where it was not done",
                Retry_After="1",
            )
        return found.status, None if found.answer is None else found.answer.encode()

    def _end(self, call: ApiCall[Any, Any], key: str, status: int, content: bytes | None) -> None:
        text = None if content is None else content.decode()
        self._workspace.database.write(
            lambda connection: idempotency_queries.end(connection, call.caller.name, key, status, text)
        )

    def _end_refused(self, call: ApiCall[Any, Any], key: str, error: Exception) -> None:
        """A refusal is an answer as well; what could not be answered may be tried again with the same key."""
        told = problem_of(error)
        if told is not None and told[0].status < 500:
            self._end(call, key, told[0].status, msgspec.json.encode(told[0]))
            return
        self._workspace.database.write(lambda connection: idempotency_queries.forget(connection, call.caller.name, key))

    def _noted(self, endpoint: Endpoint, call: ApiCall[Any, Any]) -> tuple[int, bytes | None]:
        """What the endpoint answers; in the event log, unless nothing was changed."""
        if isinstance(call.body, DryRun) and call.body.dry_run:
            return _encoded(endpoint, call)
        try:
            answer = _encoded(endpoint, call)
        except Exception as error:
            self._note(endpoint, call, type(error).__name__)
            raise
        self._note(endpoint, call, "done")
        return answer

    def _note(self, endpoint: Endpoint, call: ApiCall[Any, Any], outcome: str) -> None:
        event = ApiEvent(
            at=call.now,
            event=endpoint.name,
            owner=call.caller.name,
            address=call.caller.address,
            dag_id=call.path.get("dag_id"),
            run_id=call.path.get("dag_run_id"),
            task_id=call.path.get("task_id"),
            extra={**_chain(call), "outcome": outcome, "body": redact(msgspec.to_builtins(call.body))},
        )

        def write(connection: Connection) -> None:
            event_queries.add(connection, event)

        self._workspace.database.write(write)


def _encoded(endpoint: Endpoint, call: ApiCall[Any, Any]) -> tuple[int, bytes | None]:
    answer = endpoint.handler(call)
    return (204, None) if answer is None else (endpoint.success, msgspec.json.encode(answer))


def _chain(call: ApiCall[Any, Any]) -> dict[str, str]:
    return {name: call.path[name] for name in ("pipeline", "stage", "branch") if name in call.path}


def _fingerprint(endpoint: Endpoint, call: ApiCall[Any, Any]) -> str:
    """Two requests with the same one ask for the same."""
    asked = [endpoint.name, sorted(call.path.items()), msgspec.to_builtins(call.query), msgspec.to_builtins(call.body)]
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()
