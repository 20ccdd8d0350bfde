"""What stands where on the port of the API server: what attempts ask, and what people and programs do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from trainflow.api.execution import ExecutionApplication
from trainflow.api.forwarded import within
from trainflow.api.gate import with_headers
from trainflow.api.openapi import openapi_document
from trainflow.api.presence import Presence
from trainflow.api.rest.all_endpoints import AIRFLOW_PREFIX, AIRFLOWS
from trainflow.api.rest.all_endpoints import PREFIX as REST_PREFIX
from trainflow.api.rest.application import RestApplication, problem_response
from trainflow.api.rest.problems import Problem, problem_of
from trainflow.api.workers import WorkerApplication
from trainflow.errors import TrainflowError
from trainflow.messages.http_protocol import OLDEST_PROTOCOL, PREFIX, PROTOCOL, PROTOCOL_HEADER, HttpProblem

#: asked by load balancers, which know nothing
HEALTH_PATHS = frozenset({"/health", "/ready"})
#: the format that it asks for
_PROMETHEUS = "text/plain; version=0.0.4"


def is_for_attempts(path: str, root_path: str) -> bool:
    """Whether a path is answered by what answers attempts; `root_path` may stand before it, or not."""
    below = path.removeprefix(root_path)
    return below.startswith(f"{PREFIX}/") or below in HEALTH_PATHS


def attempts_application(
    execution: ExecutionApplication, workers: WorkerApplication, presence: Presence, root_path: str
) -> ASGIApp:
    """What attempts, workers and load balancers ask, below the prefix of a proxy."""
    server = uuid.uuid4().hex

    async def health(_request: Request) -> Response:
        return _json({"status": "ok", "server": server, "installation": presence.installation})

    async def ready(_request: Request) -> Response:
        found = presence.readiness
        if found.ready:
            return _json({"status": "ready"})
        return _json({"status": "not ready", "reason": found.reason}, 503)

    routes = [Route("/health", health), Route("/ready", ready), *execution.routes(PREFIX), workers.route(PREFIX)]
    application = _application(routes, _no_operation)

    async def below_prefix(scope: Scope, receive: Receive, send: Send) -> None:
        scope = within(scope, root_path)
        # what attempts are answered is never looked at by a browser
        of_attempt = scope["path"].removeprefix(root_path).startswith(f"{PREFIX}/")
        await application(scope, receive, send if of_attempt else with_headers(send))

    return below_prefix


def web_application(
    rest: RestApplication,
    *,
    installation: Callable[[], str] = lambda: "",
    metrics: Callable[[], str] = lambda: "",
    pages: Mapping[str, ASGIApp] | None = None,
) -> Starlette:
    """What people and programs ask. `installation`: the control plane, `metrics`: the text that Prometheus is given,
    both waited for by a thread. `pages`: for people, by path. Who may ask is decided before, by `gate`."""

    async def version(_request: Request) -> Response:
        protocol = {"newest": PROTOCOL, "oldest": OLDEST_PROTOCOL}
        said = {"version": metadata.version("trainflow"), "execution_protocol": protocol}
        return _json({**said, "installation": await run_in_threadpool(installation)})

    async def document(_request: Request) -> Response:
        content = await run_in_threadpool(openapi_document, metadata.version("trainflow"))
        return Response(content, media_type="application/json")

    async def for_prometheus(_request: Request) -> Response:
        return Response(await run_in_threadpool(metrics), media_type=_PROMETHEUS)

    routes: list[BaseRoute] = [
        Route("/version", version),
        Route("/metrics", for_prometheus),
        Route("/openapi.json", document),
        *rest.routes(REST_PREFIX),
        *rest.routes(AIRFLOW_PREFIX, AIRFLOWS),
        *(Route(path, app) for path, app in (pages or {}).items()),
    ]
    return _application(routes, _nothing_there)


def _application(routes: list[Any], refused: Any) -> Starlette:
    # a database that is away is no fault of this server: its log has no traceback of each request meanwhile
    kinds: Any = {HTTPException: refused, TrainflowError: _told, DBAPIError: _told, Exception: _broken}
    made = Starlette(routes=routes, exception_handlers=kinds)
    # a redirect would name the host that the request names, and lead a worker away from here
    made.router.redirect_slashes = False
    return made


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # an answer without this header is not ours, but that of a proxy: a worker goes on asking
    given = {PROTOCOL_HEADER: str(PROTOCOL), **(headers or {})}
    return Response(msgspec.json.encode(body), status, given, media_type="application/json")


async def _no_operation(_request: Request, error: Exception) -> Response:
    """An attempt asks for what there is not, or not by this method."""
    assert isinstance(error, HTTPException)
    problem = HttpProblem(error.detail.replace(" ", ""), error.detail)
    return _json(problem, error.status_code, dict(error.headers or {}))


async def _nothing_there(_request: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    name, headers = error.detail.replace(" ", ""), dict(error.headers or {})
    what_to_do = "/openapi.json lists every path and its methods"
    problem = Problem(title=name, status=error.status_code, detail=error.detail, what_to_do=what_to_do)
    return problem_response(problem, headers)


async def _told(request: Request, error: Exception) -> Response:
    """What cannot be answered now, and why: the database is away, say."""
    found = problem_of(error)
    return await _broken(request, error) if found is None else problem_response(*found)


async def _broken(_request: Request, _error: Exception) -> Response:
    """A fault of this server: its log has the traceback."""
    return _json(HttpProblem("InternalError", "the request could not be answered: see the log of the server"), 500)
