"""The pages, imported when the first of them is asked for: a server that no person looks at stays as small as it is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from trainflow.clock import Clock
from trainflow.workspace.workspace import Workspace

if TYPE_CHECKING:
    from trainflow.pages.application import PagesApplication

_FOLDERS = ("chains", "dags", "do", "runs", "static")
#: where a person at a browser shows a token, which the browser shows from then on
LOGIN = "/login"
#: asked without a token
OPEN_PATHS = (LOGIN, "/static/")
#: where pages stand
PATHS = ("/", LOGIN, *(f"/{name}{rest}" for name in _FOLDERS for rest in ("", "/{rest:path}")), "/waits", "/events")


class LazyPages:
    """An ASGI application that becomes the pages."""

    def __init__(self, workspace: Workspace, clock: Clock) -> None:
        self._workspace = workspace
        self._clock = clock
        self._lock = threading.Lock()
        self._pages: PagesApplication | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made = self._pages
        if made is None:
            made = await run_in_threadpool(self.made)
        await made(scope, receive, send)

    async def refuse(self, scope: Scope, receive: Receive, send: Send, problem: tuple[int, str, str]) -> None:
        """Answer a browser that asks for a page with why it gets none: status, title, message."""
        from starlette.requests import Request

        made = await run_in_threadpool(self.made)
        response = made.refuse(Request(scope, receive), *problem)
        await response(scope, receive, send)

    def made(self) -> PagesApplication:
        """The pages, imported when they are first asked for."""
        with self._lock:
            if self._pages is None:
                from trainflow.pages.application import PagesApplication

                self._pages = PagesApplication(self._workspace, self._clock, LOGIN)
            return self._pages

    def close(self) -> None:
        """End all streams; the pages are not asked for any more."""
        if self._pages is not None:
            self._pages.close()
