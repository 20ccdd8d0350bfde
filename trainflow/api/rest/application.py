"""The REST API: requests of people and programs, in threads of their own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from trainflow.api.authentication import Caller
from trainflow.api.authorization import require_role
from trainflow.api.rest.all_endpoints import AIRFLOW_PREFIX, PREFIX, endpoints_of, modules_of
from trainflow.api.rest.endpoints import JSON, AnswerFile, ApiCall, Endpoint, Polled
from trainflow.api.rest.problems import MEDIA, Problem, RequestRefused, problem_of, problem_response
from trainflow.api.rest.request_parsing import read_body, read_query
from trainflow.api.rest.writes import Writes
from trainflow.clock import Clock
from trainflow.messages.byte_ranges import file_part
from trainflow.messages.http_protocol import is_named
from trainflow.workspace.workspace import Workspace

log = logging.getLogger(__name__)

#: requests that may wait for a thread; more are told to come again
MOST_WAITING = 500
#: answers that may be under way for a long time
MOST_STREAMS = 1_000

T = TypeVar("T")


class RestApplication:
    """Answers every endpoint, with what it needs for it once it is asked for."""

    def __init__(
        self,
        workspace: Workspace,
        clock: Clock,
        *,
        threads: int,
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="rest")
        self._writes = Writes(workspace, clock)
        self._waiting = 0
        self._streams = 0
        self._ended = False

    def routes(self) -> list[Route]:
        """A route for each of the two prefixes."""
        return [Route(f"{prefix}{{below:path}}", _Resources(self, prefix)) for prefix in (PREFIX, AIRFLOW_PREFIX)]

    async def router(self, prefix: str, modules: Sequence[str]) -> Router:
        """A route for each path below `prefix` that modules declare, which are imported for it: that takes a while, in
        which others are answered."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._router, prefix, modules)

    def _router(self, prefix: str, modules: Sequence[str]) -> Router:
        by_path: dict[str, dict[str, Endpoint]] = {}
        for each in endpoints_of(modules):
            if prefix == PREFIX or each.is_airflows:
                by_path.setdefault(each.path, {})[each.method] = each
        routes = [Route(prefix + path, self._route(methods), methods=[*methods]) for path, methods in by_path.items()]
        return Router(routes, redirect_slashes=False)

    def close(self) -> None:
        """Answer nothing more."""
        self._ended = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _route(self, methods: dict[str, Endpoint]) -> Callable[[Request], Any]:
        decoders = {each.method: msgspec.json.Decoder(each.body) for each in methods.values() if each.body is not None}

        async def answer(request: Request) -> Response:
            endpoint = methods["GET" if request.method == "HEAD" else request.method]
            try:
                return await self._answer(endpoint, decoders.get(endpoint.method), request)
            except ClientDisconnect:
                return Response(status_code=400)
            except Exception as error:
                return _problem_response(endpoint, error)

        return answer

    async def _answer(
        self, endpoint: Endpoint, decoder: msgspec.json.Decoder[Any] | None, request: Request
    ) -> Response:
        caller: Caller = request.scope["trainflow.caller"]
        require_role(caller, endpoint.role)
        call: ApiCall[Any, Any] = ApiCall(
            self._workspace,
            self._clock.now(),
            caller,
            dict(request.path_params),
            read_query(endpoint.query, request.query_params.multi_items()),
            None if decoder is None else await read_body(endpoint, decoder, request),
            _chosen(endpoint, request.headers.get("accept", "")),
            request.headers.get("traceparent", ""),
        )
        if endpoint.writes:
            key = request.headers.get("idempotency-key")
            status, content = await self.in_thread(lambda: self._writes.apply(endpoint, call, key))
            return _json_response(status, content)
        found = await self.in_thread(lambda: _read(endpoint, call))
        if isinstance(found, bytes):
            return _with_etag(request, found)
        return self._sent(found, request) if isinstance(found, AnswerFile) else await self._streamed(found)

    def _sent(self, found: AnswerFile, request: Request) -> Response:
        part = file_part(found.size, found.etag, request.headers, method=request.method)
        if part.status == 304:
            return Response(status_code=304, headers=part.headers)
        if part.status == 416:
            raise RequestRefused(
                416,
                "NoSuchRange",
                f"{found.name} has {found.size:,} bytes",
                "ask for bytes before its end, or without Range",
                **part.headers,
            )
        headers = {**part.headers, "content-disposition": f'attachment; filename="{found.name}"'}
        parts = self._parts(found.read(part.start, part.end))
        return StreamingResponse(self._counted(parts), part.status, headers, found.media)

    async def _streamed(self, found: Polled) -> Response:
        if self._streams >= MOST_STREAMS:
            raise _busy(f"{self._streams} answers are under way")
        first = await self.in_thread(found.look)
        return StreamingResponse(self._counted(self._looks(found, first)), 200, {}, found.media)

    async def _counted(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            async for part in parts:
                yield part
        finally:
            self._streams -= 1

    async def _looks(self, polled: Polled, first: tuple[bytes, bool]) -> AsyncIterator[bytes]:
        part, is_last = first
        yield part
        while not is_last and not self._ended:
            await asyncio.sleep(polled.interval)
            part, is_last = await self.in_thread(polled.look)
            if part:
                yield part

    async def _parts(self, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (part := await self.in_thread(lambda: next(parts, None))) is not None:
            yield part

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What `work` returns, in one of the threads of this application."""
        if self._waiting >= MOST_WAITING:
            raise _busy(f"{self._waiting} requests wait already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


class _Resources:
    """What is asked below a prefix: a router for each resource, made when it is first asked for."""

    def __init__(self, rest: RestApplication, prefix: str) -> None:
        self._rest = rest
        self._prefix = prefix
        self._routers: dict[tuple[str, ...], Router] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        modules = modules_of(scope["path_params"].pop("below"))
        if modules not in self._routers:
            self._routers[modules] = await self._rest.router(self._prefix, modules)
        await self._routers[modules](scope, receive, send)


def _busy(detail: str) -> RequestRefused:
    return RequestRefused(503, "Busy", detail, "try again in a second", Retry_After="1")


def _chosen(endpoint: Endpoint, accepted: str) -> str:
    """The form of the answer: the first that is asked for, or the usual one."""
    wanted = [each.partition(";")[0].strip().lower() for each in accepted.split(",")]
    return next((each for each in wanted if each in endpoint.media), endpoint.media[0])


def _read(endpoint: Endpoint, call: ApiCall[Any, Any]) -> bytes | Polled | AnswerFile:
    """The answer; a value is encoded here, in the thread."""
    found = endpoint.handler(call)
    return found if isinstance(found, Polled | AnswerFile) else msgspec.json.encode(found)


def _with_etag(request: Request, content: bytes) -> Response:
    # processors have instructions for this one
    etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if is_named(etag, request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, JSON)


def _json_response(status: int, content: bytes | None) -> Response:
    headers = {"cache-control": "no-store"}
    if content is None:
        return Response(status_code=204, headers=headers)
    return Response(content, status, headers, JSON if status < 400 else MEDIA)


def _problem_response(endpoint: Endpoint, error: Exception) -> Response:
    found = problem_of(error)
    if found is None:
        log.error("%s could not be answered", endpoint.name, exc_info=error)
        problem = Problem(
            title="InternalError",
            status=500,
            detail="the request could not be answered",
            what_to_do="the log of the server says why: please report it",
        )
        return problem_response(problem, {})
    problem, headers = found
    log.log(logging.WARNING if problem.status >= 500 else logging.INFO, "%s: %d %s", endpoint.name, *_said(problem))
    return problem_response(problem, headers)


def _said(problem: Problem) -> tuple[int, str]:
    return problem.status, problem.detail
