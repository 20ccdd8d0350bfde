"""What stands where on the port of the API server."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from trainflow.api.execution import ExecutionApplication
from trainflow.api.known_tokens import bearer
from trainflow.api.openapi import openapi_document
from trainflow.api.presence import Presence
from trainflow.messages.http_protocol import OLDEST_PROTOCOL, PREFIX, PROTOCOL, PROTOCOL_HEADER, HttpProblem

#: the format that it asks for
_PROMETHEUS = "text/plain; version=0.0.4"


def compose(
    execution: ExecutionApplication,
    presence: Presence,
    *,
    token: str | None,
    metrics: Callable[[], str] = lambda: "",
    pages: Mapping[str, ASGIApp] | None = None,
) -> Starlette:
    """One application of all. `metrics`: the text that Prometheus is given, waited for by a thread. `pages`: for
    people, by path; like all that is not for attempts or load balancers, they are asked by those alone who show
    `token`, where there is one."""

    async def health(_request: Request) -> Response:
        return _json({"status": "ok"})

    async def ready(_request: Request) -> Response:
        found = presence.readiness
        if found.ready:
            return _json({"status": "ready"})
        return _json({"status": "not ready", "reason": found.reason}, 503)

    async def version(_request: Request) -> Response:
        protocol = {"newest": PROTOCOL, "oldest": OLDEST_PROTOCOL}
        return _json({"version": metadata.version("trainflow"), "execution_protocol": protocol})

    async def document(_request: Request) -> Response:
        return _json(openapi_document(metadata.version("trainflow")))

    async def for_prometheus(_request: Request) -> Response:
        return Response(await run_in_threadpool(metrics), media_type=_PROMETHEUS)

    routes: list[BaseRoute] = [
        Route("/health", health),
        Route("/ready", ready),
        *execution.routes(PREFIX),
        Route("/version", _Proven(request_response(version), token), methods=["GET"]),
        Route("/metrics", _Proven(request_response(for_prometheus), token), methods=["GET"]),
        Route("/openapi.json", _Proven(request_response(document), token), methods=["GET"]),
        *(Route(path, _Proven(app, token)) for path, app in (pages or {}).items()),
    ]
    application = Starlette(routes=routes, exception_handlers={HTTPException: _problem, Exception: _broken})
    # a redirect would name the host that the request names, and lead a worker away from here
    application.router.redirect_slashes = False
    return application


class _Proven:
    """An application behind the token of the settings."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._token is not None and not self._is_shown(Request(scope)):
            problem = HttpProblem(
                "Unauthorized", "show the token of this server: 'Authorization: Bearer …' (api.token)"
            )
            await _json(problem, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_shown(self, request: Request) -> bool:
        assert self._token is not None
        shown = bearer(request.headers.get("authorization")) or ""
        return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), self._token.encode())


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # an answer without this header is not ours, but that of a proxy: a worker goes on asking
    given = {PROTOCOL_HEADER: str(PROTOCOL), **(headers or {})}
    return Response(msgspec.json.encode(body), status, given, media_type="application/json")


async def _problem(_request: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    return _json(HttpProblem(error.detail.replace(" ", ""), error.detail), error.status_code, dict(error.headers or {}))


async def _broken(_request: Request, _error: Exception) -> Response:
    """A fault of this server: its log has the traceback."""
    return _json(HttpProblem("InternalError", "the request could not be answered: see the log of the server"), 500)
