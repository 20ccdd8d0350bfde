"""What stands at which path, and what every answer says to browsers."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib import resources
from typing import Any, NamedTuple

import msgspec
from sqlalchemy.exc import StatementError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trainflow.clock import Clock
from trainflow.errors import (
    ChainMoved,
    ChainStopped,
    CheckpointNotFound,
    DagNotFound,
    DagRunAlreadyExists,
    DagRunNotFound,
    InputError,
    NotFound,
    StateError,
    TrainflowError,
)
from trainflow.messages.http_protocol import is_named
from trainflow.metadata.queries.token_queries import Role
from trainflow.metadata.transaction_retries import is_outage, is_refusal
from trainflow.observability.redaction import redact_text
from trainflow.pages import chain, checkpoint, dag, decisions, fleet, run, waits
from trainflow.pages.idempotency import FIELD, PLACEHOLDER, with_new_keys
from trainflow.pages.rendering import render
from trainflow.pages.site import Answer, Handler, Site
from trainflow.workspace.workspace import Workspace

log = logging.getLogger(__name__)

#: threads that make pages: apart from those that answer attempts
_THREADS = 4
#: pages that are kept for those who ask next, and for how many seconds: a page says how long ago something was
_MOST_KEPT, _KEPT_SECONDS = 256, 10.0
#: a form is small
_LARGEST_FORM = 256 * 1024
#: where a browser keeps the token that it shows, and for how long
COOKIE = "trainflow_token"
_SIGNED_IN_SECONDS = 30 * 86_400

_CHAIN = "/chains/{pipeline}/{stage}/{branch}"
_RUN = "/dags/{dag_id}/runs/{run_id}"
#: pages: they answer with what a template shows
PAGES: tuple[tuple[str, Handler], ...] = (
    ("/", fleet.fleet),
    (_CHAIN, chain.chain),
    (f"{_CHAIN}/partitions/{{start}}", chain.partition),
    (f"{_CHAIN}/checkpoints", checkpoint.checkpoints),
    (f"{_CHAIN}/checkpoints/{{which}}", checkpoint.checkpoint),
    ("/dags", dag.dags),
    ("/dags/{dag_id}", dag.dag),
    ("/runs", run.runs),
    (_RUN, run.run),
    (f"{_RUN}/tasks/{{task_id}}", run.task),
    ("/waits", waits.waits),
)
#: what scripts and downloads ask for: they answer with a response
OTHERS: tuple[tuple[str, Handler], ...] = (
    (f"{_CHAIN}/calendar.json", chain.calendar),
    (f"{_CHAIN}/borders.json", chain.borders),
    (f"{_CHAIN}/checkpoints/{{which}}/files/{{path:path}}", checkpoint.file),
    (f"{_RUN}/tasks/{{task_id}}/log", run.log),
)


class _Kept(NamedTuple):
    version: tuple[int, ...]
    until: float
    answer: Answer
    body: bytes


class PagesApplication:
    """The pages of one project, as an ASGI application. `login`: where a person gives a token."""

    def __init__(self, workspace: Workspace, clock: Clock, login: str) -> None:
        self.site = Site(workspace, clock)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pages")
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()
        self._static = _Static()
        routes = [
            Route("/events", self._events),
            Route(login, self._login, methods=["GET", "POST"]),
            Route("/static/{name}", self._static_file),
            *(Route(path, self._route(handler, page=True)) for path, handler in PAGES),
            *(Route(path, self._route(handler, page=False)) for path, handler in OTHERS),
            *(Route(f"/do/{name}", self._form(handler), methods=["POST"]) for name, handler in decisions.FORMS.items()),
        ]
        handlers: Any = {HTTPException: self._refused, Exception: self._broken}
        self._app = Starlette(routes=routes, exception_handlers=handlers)
        self._app.router.redirect_slashes = False
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def close(self) -> None:
        """End all streams, and what is being asked."""
        self.site.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _route(self, handler: Handler, *, page: bool) -> Any:
        async def endpoint(request: Request) -> Response:
            make = self._page if page else self._other
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, make, handler, request)

        return endpoint

    def _page(self, handler: Handler, request: Request) -> Response:
        place = (request.url.path, request.url.query, role_of(request))
        kept = self._kept.get(place)
        now = self.site.clock.monotonic()
        # asked before the page is made: what changes meanwhile makes it another one
        numbers = self.site.feed.numbers()
        if kept is None or kept.until < now or kept.version != _of(numbers, kept.answer.topics):
            kept = self._made(handler, request, numbers)
            if kept.answer.status == 200:
                self._kept[place] = kept
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
        body = with_new_keys(kept.body)
        headers = {"Cache-Control": "no-cache", **_later(kept.answer.status)}
        return Response(body, kept.answer.status, headers, "text/html")

    def _made(self, handler: Handler, request: Request, numbers: Mapping[str, int]) -> _Kept:
        try:
            answer = handler(self.site, request)
        except Exception as error:
            answer = _problem(error)
        until = self.site.clock.monotonic() + _KEPT_SECONDS
        version = _of(numbers, answer.topics)
        return _Kept(version, until, answer, self._rendered(answer, request, version))

    def _rendered(self, answer: Answer, request: Request, version: tuple[int, ...] = ()) -> bytes:
        values = {"topics": answer.topics, "base": base_of(request), "path": _path(request), **answer.values}
        role, engine = role_of(request), self.site.feed.engine
        may_act = role not in ("", Role.VIEWER)
        values |= {
            "engine": engine,
            "role": role,
            "can_act": may_act and engine.state in ("alive", "slow"),
            "form_key": {FIELD: PLACEHOLDER},
            "project": self.site.workspace.project.root.name,
            "files": self._static.version,
            "version_of_page": "-".join(map(str, version)),
        }
        return render(answer.template, values).encode("utf-8", "replace")

    def _other(self, handler: Handler, request: Request) -> Response:
        try:
            response: Response = handler(self.site, request)
            return response
        except Exception as error:
            answer = _problem(error)
            said = {"error": type(error).__name__, "message": answer.values["message"]}
            return _json(said, answer.status, _later(answer.status))

    def _form(self, handler: Handler) -> Any:
        async def endpoint(request: Request) -> Response:
            request.state.form = await _form_of(request)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._done, handler, request)

        return endpoint

    def _done(self, handler: Handler, request: Request) -> Response:
        try:
            answer = handler(self.site, request)
        except Exception as error:
            answer = _problem(error)
        self._kept.clear()
        self.site.forget_overview()
        if isinstance(answer, str):
            return Response(status_code=303, headers={"Location": base_of(request) + answer})
        body = with_new_keys(self._rendered(answer, request))
        headers = {"Cache-Control": "no-store", **_later(answer.status)}
        return Response(body, answer.status, headers, "text/html")

    async def _login(self, request: Request) -> Response:
        """Have a browser show a token from now on: whether that is known is looked at by who guards the pages."""
        if request.method == "GET":
            given = {name: request.query_params.get(name, "") for name in ("next", "wrong")}
            page = Answer("login.html", {"title": "Sign in", **given})
            return Response(self._rendered(page, request), 200, {"Cache-Control": "no-store"}, "text/html")
        form = await _form_of(request)
        target = form.get("next", "")
        response = Response(status_code=303, headers={"Location": target if _is_here(target) else base_of(request)})
        secure = request.url.scheme == "https"
        if token := form.get("token", "").strip():
            response.set_cookie(
                COOKIE, token, httponly=True, samesite="strict", secure=secure, max_age=_SIGNED_IN_SECONDS
            )
        else:
            response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=secure)
        return response

    async def _events(self, request: Request) -> Response:
        topics = request.query_params.getlist("topic")[:64]
        version = request.query_params.get("version", "")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            self.site.feed.events(topics, version), headers=headers, media_type="text/event-stream"
        )

    async def _static_file(self, request: Request) -> Response:
        return self._static.answer(request)

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self._error_page(request, error.status_code, error.detail, f"there is nothing at {request.url.path}")

    def refuse(self, request: Request, status: int, title: str, message: str) -> Response:
        """The page that says why there is no other one."""
        return self._error_page(request, status, title, message)

    async def _broken(self, request: Request, _error: Exception) -> Response:
        return self._error_page(request, 500, "Internal error", "the page could not be made: see the log of the server")

    def _error_page(self, request: Request, status: int, title: str, message: str) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return _json({"error": title.replace(" ", ""), "message": message}, status)
        answer = Answer("problem.html", {"title": title, "message": message}, (), status)
        return Response(self._rendered(answer, request), status, _later(status), "text/html")


def _of(numbers: Mapping[str, int], topics: Sequence[str]) -> tuple[int, ...]:
    return tuple(numbers.get(topic, 0) for topic in topics)


async def _form_of(request: Request) -> dict[str, str]:
    """The fields of a form. Raises HTTPException for one that is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "the form is too large")
    return decisions.form_of(body)


def _is_here(target: str) -> bool:
    """Whether an address leads to this server. Browsers leave out tabs and ends of lines: `/`, a tab and `/` lead to
    another one."""
    plain = target.isascii() and target.isprintable()
    return plain and target.startswith("/") and not target.startswith(("//", "/\\"))


def role_of(request: Request) -> str:
    """The role of the caller; empty where no token is asked for."""
    caller = request.scope.get("trainflow.caller")
    return "" if caller is None else str(caller.role)


def base_of(request: Request) -> str:
    """The way from a path to the root of the pages, for relative links: whatever prefix stands before it."""
    return "../" * (_path(request).count("/") - 1) or "./"


def _path(request: Request) -> str:
    """The path below the prefix of a proxy."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


#: the first that an error is one of counts
_PROBLEMS: tuple[tuple[tuple[type[TrainflowError], ...], int, str], ...] = (
    ((NotFound, DagNotFound, DagRunNotFound, CheckpointNotFound), 404, "Not found"),
    ((StateError, ChainMoved, ChainStopped, DagRunAlreadyExists), 409, "This does not go with how things are now"),
    ((InputError,), 400, "This cannot be"),
    ((TrainflowError,), 503, "This cannot be read now"),
)


def _problem(error: Exception) -> Answer:
    """What is wrong, as a page. Raises the error where it is a fault of this server."""
    message = redact_text(str(error))
    if isinstance(error, TrainflowError):
        status, title = next((status, title) for kinds, status, title in _PROBLEMS if isinstance(error, kinds))
    elif is_outage(error):
        # a connection that was lost under way: what is asked once more is asked over another one
        status, title = 503, "This cannot be read now"
        message = f"the metadata database cannot be used: {redact_text(str(getattr(error, 'orig', error)))}"
    elif is_refusal(error) and isinstance(error, StatementError):
        status, title, message = 404, "Not found", "the metadata database has nothing that is called so"
    else:
        raise error
    return Answer("problem.html", {"title": title, "message": message}, (), status)


def _later(status: int) -> dict[str, str]:
    """When what cannot be answered now may be asked again."""
    return {"Retry-After": "1"} if status == 503 else {}


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


class _Static:
    """The files that ship with the package. They are few and small, and are read once."""

    def __init__(self) -> None:
        folder = resources.files("trainflow.pages").joinpath("static")
        self._files = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
        self._tags = {name: f'"{sha256(data).hexdigest()[:16]}"' for name, data in self._files.items()}
        #: of all of them: a page names it, so that a browser need not ask whether a file has changed
        self.version = sha256("".join(sorted(self._tags.values())).encode()).hexdigest()[:12]

    def answer(self, request: Request) -> Response:
        """A file, or that it is the one which the browser has."""
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(404)
        lasting = request.query_params.get("v") == self.version
        headers = {"ETag": self._tags[name], "Cache-Control": "max-age=31536000, immutable" if lasting else "no-cache"}
        if is_named(self._tags[name], request.headers.get("if-none-match")):
            return Response(status_code=304, headers=headers)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(self._files[name], 200, headers, "text/javascript" if name.endswith(".js") else kind)
