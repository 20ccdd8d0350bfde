"""Who may ask: tokens, looked up once in a while, and how often a wrong one is heard."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from trainflow.clock import Clock
from trainflow.metadata.queries import event_queries, token_queries
from trainflow.metadata.queries.event_queries import ApiEvent
from trainflow.metadata.queries.token_queries import LOCAL, OF_SETTINGS, Role
from trainflow.settings.api_address import asks_for_tokens
from trainflow.settings.model import ApiSettings
from trainflow.workspace.workspace import Workspace

#: how long a token that was found counts without another look: after that a revoked one is worth nothing
_BELIEVED_SECONDS = 5.0
#: wrong tokens from an address within so many seconds; more are not looked up
MOST_WRONG, WRONG_SECONDS = 10, 60.0
_MOST_REMEMBERED = 10_000


class Caller(NamedTuple):
    """Author of a request. `name`: of its token; `address`: where it comes from, as far as that can be believed."""

    name: str
    role: Role
    address: str


class _Seen(NamedTuple):
    name: str
    role: Role
    at: float


class Access:
    """Callers by what they show. Used by one thread; what is looked up is looked up by others."""

    def __init__(
        self,
        workspace: Workspace,
        clock: Clock,
        api: ApiSettings,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._token = api.token
        self._in_thread = in_thread
        #: whether a token is needed at all
        self.is_closed = asks_for_tokens(api)
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    async def caller(self, secret: str | None, address: str) -> Caller | None:
        """Who shows a secret (None: nothing was shown); None for one that is not known."""
        if not self.is_closed:
            return Caller(LOCAL, Role.ADMIN, address)
        if secret is None:
            return None
        if self._token is not None and hmac.compare_digest(_bytes(secret), _bytes(self._token)):
            return Caller(OF_SETTINGS, Role.ADMIN, address)
        found = self._believed(secret) or await self._looked_up(secret)
        if found is None:
            self._note_wrong(address)
            return None
        return Caller(found.name, found.role, address)

    def seconds_to_wait(self, secret: str | None, address: str) -> float:
        """How long an address has to wait before another token of it is looked up; 0: not at all. One that is known to
        be good, or none, is not kept waiting by wrong ones."""
        wrong = self._wrong.get(address)
        if not self.is_closed or secret is None or wrong is None or self._is_known(secret):
            return 0.0
        now = self._clock.monotonic()
        while wrong and wrong[0] <= now - WRONG_SECONDS:
            wrong.popleft()
        return wrong[0] + WRONG_SECONDS - now if len(wrong) >= MOST_WRONG else 0.0

    def _is_known(self, secret: str) -> bool:
        of_settings = self._token is not None and hmac.compare_digest(_bytes(secret), _bytes(self._token))
        return of_settings or self._believed(secret) is not None

    def _believed(self, secret: str) -> _Seen | None:
        found = self._seen.get(_digest(secret))
        return found if found is not None and self._clock.monotonic() - found.at < _BELIEVED_SECONDS else None

    async def _looked_up(self, secret: str) -> _Seen | None:
        found: _Seen | None = await self._in_thread(lambda: self._look_up(secret))
        if found is None:
            self._seen.pop(_digest(secret), None)
            return None
        self._seen[_digest(secret)] = found
        while len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return found

    def _look_up(self, secret: str) -> _Seen | None:
        now = self._clock.now()
        row = self._workspace.database.read(lambda connection: token_queries.holder(connection, secret, now))
        return None if row is None else _Seen(row.name, Role(row.role), self._clock.monotonic())

    async def note_form(self, caller: Caller, path: str) -> None:
        """Have the event log say that a form of a page acted."""
        event = ApiEvent(
            at=self._clock.now(),
            event=path.strip("/").replace("/", "_"),
            owner=caller.name,
            address=caller.address,
            extra={"page": path, "outcome": "done"},
        )
        write = self._workspace.database.write
        await self._in_thread(lambda: write(lambda connection: event_queries.add(connection, event)))

    def _note_wrong(self, address: str) -> None:
        self._wrong.setdefault(address, deque(maxlen=MOST_WRONG)).append(self._clock.monotonic())
        self._wrong.move_to_end(address)
        while len(self._wrong) > _MOST_REMEMBERED:
            self._wrong.popitem(last=False)


def _bytes(secret: str) -> bytes:
    return secret.encode("utf-8", "surrogatepass")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(_bytes(secret)).digest()
