"""What attempts, workers and load balancers ask of the API server; what all its answers have in common."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainflow.api.execution import ExecutionApplication
from trainflow.api.forwarded_headers import within
from trainflow.api.rest.problems import problem_of, problem_response
from trainflow.api.server_lease import ServerLease
from trainflow.api.worker_rows import WorkerApplication
from trainflow.errors import TrainflowError
from trainflow.messages.http_protocol import PREFIX, PROTOCOL, PROTOCOL_HEADER, HttpProblem

#: asked by load balancers, which know nothing
HEALTH_PATHS = frozenset({"/health", "/ready"})


def is_for_attempts(path: str, root_path: str) -> bool:
    """Whether a path is answered by what answers attempts; `root_path` may stand before it, or not."""
    below = path.removeprefix(root_path)
    return below.startswith(f"{PREFIX}/") or below in HEALTH_PATHS


def attempts_application(
    execution: ExecutionApplication, workers: WorkerApplication, lease: ServerLease, root_path: str
) -> ASGIApp:
    """What attempts, workers and load balancers ask, below the prefix of a proxy."""
    server = uuid.uuid4().hex

    async def health(_request: Request) -> Response:
        return json_response({"status": "ok", "server": server, "installation": lease.installation})

    async def ready(_request: Request) -> Response:
        found = lease.readiness
        if found.ready:
            return json_response({"status": "ready"})
        return json_response({"status": "not ready", "reason": found.reason}, 503)

    routes = [Route("/health", health), Route("/ready", ready), *execution.routes(PREFIX), workers.route(PREFIX)]
    application = guarded_application(routes, _no_operation)

    async def below_prefix(scope: Scope, receive: Receive, send: Send) -> None:
        scope = within(scope, root_path)
        # what attempts are answered is never looked at by a browser
        of_attempt = scope["path"].removeprefix(root_path).startswith(f"{PREFIX}/")
        await application(scope, receive, send if of_attempt else with_headers(send))

    return below_prefix


def guarded_application(routes: list[Any], refused: Any) -> Starlette:
    """An application whose errors are told. `refused`: answers where there is no such path, or not by this method."""
    # a database that is away is no fault of this server: its log has no traceback of each request meanwhile
    kinds: Any = {HTTPException: refused, TrainflowError: _told, DBAPIError: _told, Exception: _broken}
    made = Starlette(routes=routes, exception_handlers=kinds)
    # a redirect would name the host that the request names, and lead a worker away from here
    made.router.redirect_slashes = False
    return made


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of this server, which says so."""
    # an answer without this header is not ours, but that of a proxy: a worker goes on asking
    given = {PROTOCOL_HEADER: str(PROTOCOL), **(headers or {})}
    return Response(msgspec.json.encode(body), status, given, media_type="application/json")


async def _no_operation(_request: Request, error: Exception) -> Response:
    """An attempt asks for what there is not, or not by this method."""
    assert isinstance(error, HTTPException)
    problem = HttpProblem(error.detail.replace(" ", ""), error.detail)
    return json_response(problem, error.status_code, dict(error.headers or {}))


async def _told(request: Request, error: Exception) -> Response:
    """What cannot be answered now, and why: the database is away, say."""
    found = problem_of(error)
    return await _broken(request, error) if found is None else problem_response(*found)


async def _broken(_request: Request, _error: Exception) -> Response:
    """A fault of this server: its log has the traceback."""
    problem = HttpProblem("InternalError", "the request could not be answered: see the log of the server")
    return json_response(problem, 500)


_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # scripts and styles of this server alone, none inside of a page
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}


def with_headers(send: Send) -> Send:
    """Sends an answer with what browsers are told of every one."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
