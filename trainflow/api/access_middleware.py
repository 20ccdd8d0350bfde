"""What every request of people and programs passes: the proxy's prefix, the host it names, who asks, and from which
site a browser was sent.

Attempts do not pass here: another process answers them, and they prove themselves by tokens of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainflow.api.application import with_headers
from trainflow.api.attempt_tokens import bearer
from trainflow.api.authentication import Access, Caller
from trainflow.api.authorization import require_role
from trainflow.api.forwarded_headers import RequestOrigin, TrustedProxies, within
from trainflow.api.rest.problems import RequestRefused, problem_of, problem_response
from trainflow.metadata.queries.token_queries import Role
from trainflow.pages.idempotency import REPEATED
from trainflow.settings.api_address import is_loopback
from trainflow.settings.model import ApiSettings

log = logging.getLogger(__name__)

#: where a browser keeps its token
COOKIE = "trainflow_token"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: characters that stand for themselves in the path of an address
_IN_PATHS = "/:@!$&'()*+,;=~"


#: answers with status, title and message
RefusePage = Callable[[Scope, Receive, Send, tuple[int, str, str]], Awaitable[None]]


class AccessMiddleware:
    """Lets requests through to the application behind it, or says why not. `open_paths`: asked without a token.
    `login`: the page where a person gives one; a browser that has none is sent there. `refuse_page`: answers a browser
    with the page that says why who asks cannot be known now."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        api: ApiSettings,
        open_paths: Collection[str] = (),
        login: str | None = None,
        refuse_page: RefusePage | None = None,
    ) -> None:
        self._app = app
        self._login = login
        self._refuse_page = refuse_page
        self._access = access
        self._open_paths = frozenset(open_paths)
        self._root_path = api.root_path
        self._proxies = TrustedProxies(api.trusted_proxies)
        self._own_host = urlsplit(api.address).netloc.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = within(scope, self._root_path)
        path = scope["path"].removeprefix(self._root_path)
        send = with_headers(send)
        try:
            scope = await self._passed(scope, path)
        except Exception as error:
            told = problem_of(error)
            if told is None:
                raise
            if told[0].status == 401 and self._login is not None and _is_page(scope):
                await _sent_to(f"{self._root_path}{self._login}", scope)(scope, receive, send)
                return
            problem, headers = told
            if problem.status == 503 and self._refuse_page is not None and _is_page(scope):
                await self._refuse_page(scope, receive, send, (503, "This cannot be read now", problem.detail))
                return
            await problem_response(problem, headers)(scope, receive, send)
            return
        caller = scope.get("trainflow.caller")
        if caller is None or not _is_form(scope, path):
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            # before the answer: what a person was told of is in the event log
            if message["type"] == "http.response.start" and message["status"] == _DONE and not scope.get(REPEATED):
                await self._access.note_form(caller, path)
            await send(message)

        await self._app(scope, receive, noting)

    async def _passed(self, scope: Scope, path: str) -> Scope:
        """The request with who asks it. Raises RequestRefused."""
        headers, origin = Headers(scope=scope), self._proxies.origin_of(scope)
        if not self._access.is_closed:
            self._check_host(origin)
        if scope["method"] not in _SAFE:
            _check_site(headers, origin)
        scope = {**scope, "scheme": origin.scheme, "trainflow.origin": origin}
        if path in self._open_paths or any(path.startswith(each) for each in self._open_paths if each.endswith("/")):
            return scope
        caller = await self._caller(headers, origin)
        if _is_form(scope, path):
            # a form of a page acts as an operator does; endpoints of the REST API have roles of their own
            require_role(caller, Role.OPERATOR)
        return {**scope, "trainflow.caller": caller}

    def _check_host(self, origin: RequestOrigin) -> None:
        """Where no token is asked for, a page of another site could have a browser ask under a name of its own that
        leads here."""
        name = (urlsplit(f"//{origin.host}").hostname or "") if _is_host(origin.host) else ""
        if is_loopback(name) or origin.host.lower() == self._own_host:
            return
        raise RequestRefused(
            421,
            "WrongHost",
            f"this server is not called '{origin.host[:100]}'",
            f"ask at {self._own_host}; for other names set api.token, and api.url to how it is reached",
        )

    async def _caller(self, headers: Headers, origin: RequestOrigin) -> Caller:
        secret = bearer(headers.get("authorization")) or _cookie(headers)
        wait = self._access.seconds_to_wait(secret, origin.address)
        if wait > 0:
            log.warning("too many wrong tokens from %s", origin.address)
            raise RequestRefused(
                429,
                "TooManyWrongTokens",
                f"{origin.address} has shown too many tokens that are not known",
                f"wait {wait:.0f} s, then show the right one",
                Retry_After=str(int(wait) + 1),
            )
        caller = await self._access.caller(secret, origin.address)
        if caller is None:
            raise RequestRefused(
                401,
                "Unauthorized",
                "no token was shown" if secret is None else "this token is not known: it was revoked, or expired",
                "show one: 'Authorization: Bearer …' (api.token, or one that 'trainflow tokens create NAME' made)",
                WWW_Authenticate="Bearer",
            )
        return caller


#: a form that has acted leads to another page; one that says what it would do is a page itself
_DONE = 303


def _is_form(scope: Scope, path: str) -> bool:
    """Whether a page is to change something; endpoints of the REST API note what they do themselves."""
    return scope["method"] not in _SAFE and not path.startswith("/api/")


def _is_page(scope: Scope) -> bool:
    """Whether a browser asks, for a page that a person looks at."""
    headers = Headers(scope=scope)
    return scope["method"] == "GET" and "text/html" in headers.get("accept", "")


def _sent_to(login: str, scope: Scope) -> Response:
    """The way to the page where a token is given, and back; whether one that was given is wrong."""
    query = scope["query_string"].decode("latin-1")
    wanted = quote(scope["path"], safe=_IN_PATHS) + (f"?{query}" if query else "")
    asked = {"next": wanted} | ({"wrong": "yes"} if _cookie(Headers(scope=scope)) else {})
    return Response(status_code=303, headers={"Location": f"{login}?{urlencode(asked)}", "Cache-Control": "no-store"})


def _is_host(host: str) -> bool:
    return all(letter.isalnum() or letter in ".-:[]_" for letter in host)


def _check_site(headers: Headers, origin: RequestOrigin) -> None:
    """A browser says which site had it send a request: only pages of this server may have it change something. What is
    no browser says nothing of it. Raises RequestRefused."""
    site, sender = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        fits = site in ("same-origin", "none")
    else:
        fits = sender is None or urlsplit(sender).netloc.lower() == origin.host.lower()
    if not fits:
        raise RequestRefused(
            403,
            "OtherSite",
            f"a page of another site ({(sender or site or '')[:100]}) had the browser send this",
            "do it on a page of this server, or with a program",
        )


def _cookie(headers: Headers) -> str | None:
    try:
        cookies: SimpleCookie = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return None
    found = cookies.get(COOKIE)
    return None if found is None else found.value or None
