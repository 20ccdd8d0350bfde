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
            return self._applied(endpoint, call)
        if not _SHORTEST <= len(key) <= _LONGEST or not key.isprintable():
            raise not_understood(f"Idempotency-Key: give it {_SHORTEST} to {_LONGEST} printable characters")
        known = self._begin(endpoint, call, key)
        if known is not None:
            return known
        return self._applied(endpoint, call, key)

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

    def _applied(self, endpoint: Endpoint, call: ApiCall[Any, Any], key: str | None = None) -> tuple[int, bytes | None]:
        """What the endpoint answers; in the event log, unless nothing was changed. Where that cannot be written, the
        key stays that of a request which may have been done."""
        try:
            answer = _encoded(endpoint, call)
        except Exception as error:
            told = problem_of(error)
            # a refusal is an answer as well; what could not be answered may be tried again with the same key
            refusal = None if told is None or told[0].status >= 500 else (told[0].status, msgspec.json.encode(told[0]))
            self._end(endpoint, call, type(error).__name__, key, refusal)
            raise
        self._end(endpoint, call, "done", key, answer)
        return answer

    def _end(
        self,
        endpoint: Endpoint,
        call: ApiCall[Any, Any],
        outcome: str,
        key: str | None,
        answer: tuple[int, bytes | None] | None,
    ) -> None:
        """Note how a request ended and what was answered, both or nothing; `answer`: None: nothing was."""
        noted = not (isinstance(call.body, DryRun) and call.body.dry_run)
        event = _event(endpoint, call, outcome)

        def write(connection: Connection) -> None:
            if noted:
                event_queries.add(connection, event)
            if key is None:
                return
            if answer is None:
                idempotency_queries.forget(connection, call.caller.name, key)
                return
            status, content = answer
            text = None if content is None else content.decode()
            idempotency_queries.end(connection, call.caller.name, key, status, text)

        if noted or key is not None:
            self._workspace.database.write(write)


def _event(endpoint: Endpoint, call: ApiCall[Any, Any], outcome: str) -> ApiEvent:
    return ApiEvent(
        at=call.now,
        event=endpoint.name,
        owner=call.caller.name,
        address=call.caller.address,
        dag_id=call.path.get("dag_id"),
        run_id=call.path.get("dag_run_id"),
        task_id=call.path.get("task_id"),
        extra={**_chain(call), "outcome": outcome, "body": redact(msgspec.to_builtins(call.body))},
    )


def _encoded(endpoint: Endpoint, call: ApiCall[Any, Any]) -> tuple[int, bytes | None]:
    answer = endpoint.handler(call)
    return (204, None) if answer is None else (endpoint.success, msgspec.json.encode(answer))


def _chain(call: ApiCall[Any, Any]) -> dict[str, str]:
    return {name: call.path[name] for name in ("pipeline", "stage", "branch") if name in call.path}


def _fingerprint(endpoint: Endpoint, call: ApiCall[Any, Any]) -> str:
    """Two requests with the same one ask for the same."""
    asked = [endpoint.name, sorted(call.path.items()), msgspec.to_builtins(call.query), msgspec.to_builtins(call.body)]
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()
