"""What people and programs ask of the API server: where what stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from trainflow.api.application import guarded_application, json_response
from trainflow.api.rest.application import RestApplication
from trainflow.api.rest.problems import Problem, problem_response
from trainflow.messages.http_protocol import OLDEST_PROTOCOL, PROTOCOL

#: the format that Prometheus asks for
_PROMETHEUS = "text/plain; version=0.0.4"


def web_application(
    rest: RestApplication,
    *,
    installation: Callable[[], str] = lambda: "",
    metrics: Callable[[], str] = lambda: "",
    pages: Mapping[str, ASGIApp] | None = None,
) -> Starlette:
    """What people and programs ask. `installation`: the control plane, `metrics`: the text that Prometheus is given,
    both waited for by a thread. `pages`: for people, by path. Who may ask is decided before, by `access_middleware`."""

    async def version(_request: Request) -> Response:
        protocol = {"newest": PROTOCOL, "oldest": OLDEST_PROTOCOL}
        said = {"version": metadata.version("trainflow"), "execution_protocol": protocol}
        return json_response({**said, "installation": await run_in_threadpool(installation)})

    async def document(_request: Request) -> Response:
        from trainflow.api.openapi import openapi_document

        content = await run_in_threadpool(openapi_document, metadata.version("trainflow"))
        return Response(content, media_type="application/json")

    async def for_prometheus(_request: Request) -> Response:
        return Response(await run_in_threadpool(metrics), media_type=_PROMETHEUS)

    routes: list[BaseRoute] = [
        Route("/version", version),
        Route("/metrics", for_prometheus),
        Route("/openapi.json", document),
        *rest.routes(),
        *(Route(path, app) for path, app in (pages or {}).items()),
    ]
    return guarded_application(routes, _nothing_there)


async def _nothing_there(_request: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(error, HTTPException)
    name, headers = error.detail.replace(" ", ""), dict(error.headers or {})
    what_to_do = "/openapi.json lists every path and its methods"
    problem = Problem(title=name, status=error.status_code, detail=error.detail, what_to_do=what_to_do)
    return problem_response(problem, headers)
