"""Workers that say that they live: each a row that the API server writes for it."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from trainflow.api.attempt_tokens import bearer
from trainflow.api.execution import ExecutionApplication, HttpRefusal, body_of, decoded
from trainflow.clock import Clock
from trainflow.messages.http_protocol import (
    HEARTBEAT_BYTES,
    PROTOCOL_HEADER,
    PROTOCOL_REFUSED,
    WORKER_OPERATION,
    Operation,
    WorkerHeartbeat,
    WorkerOrders,
    protocol_problem,
)
from trainflow.metadata.database import Database
from trainflow.metadata.queries.worker_queries import note_worker

log = logging.getLogger(__name__)

OPERATION = Operation(WORKER_OPERATION, WorkerHeartbeat, "Say that a worker lives; what it is told.", HEARTBEAT_BYTES)
_DECODER = msgspec.json.Decoder(WorkerHeartbeat)


class WorkerApplication:
    """Answers workers, in the threads that answer attempts."""

    def __init__(
        self, execution: ExecutionApplication, database: Database, clock: Clock, tokens: Sequence[str | None]
    ) -> None:
        """`tokens`: those that a worker may show; where none is set it needs to show none."""
        self._execution = execution
        self._database = database
        self._clock = clock
        self._tokens = [token.encode() for token in tokens if token is not None]

    def route(self, prefix: str) -> Route:
        """Where it stands, below `prefix`."""
        return Route(f"{prefix}/{OPERATION.name}", self._answer, methods=["POST"])

    async def _answer(self, request: Request) -> Response:
        try:
            said = await self._understood(request)
            orders = await self._execution.in_thread(lambda: self._note(said))
        except HttpRefusal as refusal:
            log.info("%s: %d %s", OPERATION.name, refusal.status, refusal.problem.message)
            answer = self._execution.in_protocol(refusal.status, refusal.problem, refusal.headers)
        except ClientDisconnect:
            return Response(status_code=400)
        else:
            answer = self._execution.in_protocol(200, orders)
        return Response(answer.body, answer.status, dict(answer.headers), media_type="application/json")

    async def _understood(self, request: Request) -> WorkerHeartbeat:
        """What it says, once it has shown who it is."""
        problem = protocol_problem(request.headers.get(PROTOCOL_HEADER))
        if problem is not None:
            raise HttpRefusal(400, PROTOCOL_REFUSED, problem)
        if self._tokens and not self._is_known(bearer(request.headers.get("authorization")) or ""):
            message = "show workers.token (or api.token): 'Authorization: Bearer …'"
            raise HttpRefusal(401, "Unauthorized", message, WWW_Authenticate="Bearer")
        said: WorkerHeartbeat = decoded(OPERATION, _DECODER, await body_of(OPERATION, request))
        return said

    def _is_known(self, shown: str) -> bool:
        secret = shown.encode("utf-8", "surrogatepass")
        # each of them is compared, whichever it is
        return sum(hmac.compare_digest(secret, token) for token in self._tokens) > 0

    def _note(self, said: WorkerHeartbeat) -> WorkerOrders:
        return self._database.write(lambda connection: note_worker(connection, said, self._clock.now()))
