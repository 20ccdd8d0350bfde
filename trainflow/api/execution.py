"""The execution API: requests of attempts on other hosts, each of them typed, proven and bounded.

Nothing is read of a request before it has shown a token that is known; only `start` and `meet-ranks`, which show a
claim secret, are read first. What a request asks is answered by the same `ExecutionService` that answers attempts of
the engine's host.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from trainflow.api.attempt_logs import AttemptLogs
from trainflow.api.attempt_tokens import AttemptTokens, bearer
from trainflow.api.heartbeats import HeartbeatBatches
from trainflow.api.plain_requests import PlainAnswer
from trainflow.errors import DatabaseDamaged, DatabaseUnavailable
from trainflow.messages.execution_api import (
    AppendLog,
    Done,
    Failed,
    Heartbeat,
    MeetRanks,
    ProcessEnded,
    Refused,
    Start,
    Started,
)
from trainflow.messages.http_protocol import (
    BEFORE_CLAIM,
    INSTALLATION_HEADER,
    OPERATIONS,
    PROTOCOL,
    PROTOCOL_HEADER,
    PROTOCOL_REFUSED,
    SHORTEST_TOKEN,
    TOKEN_HEADER,
    HttpProblem,
    Operation,
    protocol_problem,
    too_large,
)
from trainflow.metadata.attempt_credentials import AttemptTaken, CredentialRefused
from trainflow.metadata.database import Database
from trainflow.metadata.execution_service import ExecutionService
from trainflow.metadata.transaction_retries import is_refusal
from trainflow.settings.home import Home
from trainflow.settings.model import LoggingSettings

log = logging.getLogger(__name__)

#: requests that may wait for a thread; more are told to come again
MOST_WAITING = 2_000
_RETRY_SECONDS = "1"
#: how long the body of a request may take to come: so many seconds, and more for one that comes at this rate
BODY_SECONDS = 20.0
_SLOWEST = 16 * 1024
_STALE = Refused("the attempt is not waited for any more: its task instance was queued again, cleared, or has ended")

_PROTOCOL, _TOKEN = PROTOCOL_HEADER.lower(), TOKEN_HEADER.lower()
_BY_NAME = {each.name: (each, msgspec.json.Decoder(each.request)) for each in OPERATIONS}

T = TypeVar("T")


class HttpRefusal(Exception):
    """A request that is not answered by a reply."""

    def __init__(self, status: int, error: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.problem = HttpProblem(error, message)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class ExecutionApplication:
    """Answers attempts, in threads of its own."""

    def __init__(
        self,
        service: ExecutionService,
        database: Database,
        home: Home,
        *,
        threads: int,
        log_limits: LoggingSettings,
        installation: Callable[[], str] = lambda: "",
    ) -> None:
        """`installation`: the control plane that answers."""
        self._installation = installation
        self._service = service
        self._logs = AttemptLogs(database, home, log_limits)
        self._tokens = AttemptTokens(database)
        self._heartbeats = HeartbeatBatches(lambda keys: self.in_thread(lambda: service.note_heartbeats(keys)))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="execution")
        self._waiting = 0
        self._encoder = msgspec.json.Encoder()

    def routes(self, prefix: str) -> list[Route]:
        """One for each operation, below `prefix`."""
        return [Route(f"{prefix}/{each.name}", self._endpoint(each), methods=["POST"]) for each in OPERATIONS]

    def close(self) -> None:
        """Answer nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _endpoint(self, operation: Operation) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                status, headers, body = await self.answer(
                    operation.name, request.headers, lambda: body_of(operation, request)
                )
            except ClientDisconnect:
                return Response(status_code=400)
            return Response(body, status, dict(headers), media_type="application/json")

        return answer

    async def answer(
        self, operation: str, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes]]
    ) -> PlainAnswer:
        """What is answered to a request. `headers`: by names in small letters; `read` reads its body, once it is known
        who asks."""
        found, decoder = _BY_NAME[operation]
        try:
            reply = await self._answer(found, decoder, headers, read)
        except HttpRefusal as refusal:
            level = logging.WARNING if refusal.status >= 500 else logging.INFO
            log.log(level, "%s: %d %s", operation, refusal.status, refusal.problem.message)
            return self.in_protocol(refusal.status, refusal.problem, refusal.headers)
        return self.in_protocol(_status(reply), reply)

    def in_protocol(self, status: int, body: Any, headers: dict[str, str] | None = None) -> PlainAnswer:
        """An answer in the protocol."""
        given = {PROTOCOL_HEADER: str(PROTOCOL), INSTALLATION_HEADER: self._installation(), **(headers or {})}
        return PlainAnswer(status, given, self._encoder.encode(body))

    async def _answer(
        self,
        operation: Operation,
        decoder: msgspec.json.Decoder[Any],
        headers: Mapping[str, str],
        read: Callable[[], Awaitable[bytes]],
    ) -> Any:
        problem = protocol_problem(headers.get(_PROTOCOL))
        if problem is not None:
            raise HttpRefusal(400, PROTOCOL_REFUSED, problem)
        secret = bearer(headers.get("authorization"))
        if secret is None:
            raise _unauthorized("the header 'Authorization: Bearer …' is missing")
        if operation.request in BEFORE_CLAIM:
            return await self._claimed(secret, headers, decoded(operation, decoder, await read()))
        held = self._tokens.remembered(secret)
        if held is None:
            held = await self.in_thread(lambda: self._tokens.look_up(secret))
            if held is None:
                raise _unauthorized("this token is not that of any attempt")
            self._tokens.remember(secret, held)
        message = decoded(operation, decoder, await read())
        if message.key != held:
            raise HttpRefusal(403, "Forbidden", "this token is that of another attempt")
        return await self._reply(message)

    async def _claimed(self, secret: str, headers: Mapping[str, str], message: Start | MeetRanks) -> Any:
        """The answer to what shows a claim secret."""
        try:
            if isinstance(message, MeetRanks):
                return await self.in_thread(lambda: self._service.meet_ranks(message, secret))
            return await self._start(secret, headers.get(_TOKEN, ""), message)
        except CredentialRefused as error:
            raise _unauthorized(str(error)) from None

    async def _start(self, secret: str, token: str, message: Start) -> Any:
        if len(token) < SHORTEST_TOKEN:
            raise HttpRefusal(
                400, "TokenMissing", f"the header {TOKEN_HEADER} must hold at least {SHORTEST_TOKEN} characters"
            )
        try:
            reply = await self.in_thread(lambda: self._service.claim_from_afar(message, secret, token))
        except AttemptTaken as error:
            raise HttpRefusal(409, "AttemptTaken", str(error)) from None
        if isinstance(reply, Started):
            # what it says next is not asked of the database
            self._tokens.remember(token, message.key)
        return reply

    async def _reply(self, message: Any) -> Any:
        if isinstance(message, Heartbeat):
            return Done() if await self._guarded(self._heartbeats.note(message.key)) else _STALE
        if isinstance(message, AppendLog):
            return await self.in_thread(lambda: self._append(message))
        if isinstance(message, ProcessEnded):
            await self.in_thread(lambda: self._service.exited(message.key, message.exit))
            return Done()
        return await self.in_thread(lambda: self._service.handle(message))

    def _append(self, message: AppendLog) -> Any:
        try:
            return self._logs.append(message)
        except CredentialRefused as error:
            raise _unauthorized(str(error)) from None
        except OSError as error:
            raise HttpRefusal(
                503, "LogUnwritable", f"the log cannot be written: {error.strerror}", Retry_After="10"
            ) from error

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do something in a thread of those that answer attempts. Raises HttpRefusal where that cannot be done now."""
        if self._waiting >= MOST_WAITING:
            raise HttpRefusal(503, "Busy", f"{self._waiting} requests wait already", Retry_After=_RETRY_SECONDS)
        self._waiting += 1
        try:
            return await self._guarded(asyncio.get_running_loop().run_in_executor(self._threads, work))
        finally:
            self._waiting -= 1

    async def _guarded(self, answer: Awaitable[T]) -> T:
        """Await an answer; what kept it from being given becomes a status."""
        try:
            return await answer
        except (HttpRefusal, CredentialRefused, AttemptTaken):
            raise
        except (DatabaseUnavailable, DatabaseDamaged) as error:
            raise HttpRefusal(
                503, "DatabaseUnavailable", "the metadata database cannot be used", Retry_After=_RETRY_SECONDS
            ) from error
        except Exception as error:
            if is_refusal(error):
                message = "the metadata database does not take what is in this request"
                raise HttpRefusal(422, type(error).__name__, message) from error
            log.exception("a request could not be answered")
            raise HttpRefusal(503, "EngineError", "the request could not be answered: see the log") from error


def decoded(operation: Operation, decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """The message in the body of a request. Raises HttpRefusal for what is none."""
    if len(body) > operation.most_bytes:
        raise _too_large(operation)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise HttpRefusal(400, "NotUnderstood", f"{operation.name}: {error}") from None


async def body_of(operation: Operation, request: Request) -> bytes:
    """The body of a request. Raises HttpRefusal for one that is too large or does not come."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > operation.most_bytes:
        raise _too_large(operation)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS) as limit:
            async for chunk in request.stream():
                if body and (due := limit.when()) is not None:
                    limit.reschedule(due + len(chunk) / _SLOWEST)
                body += chunk
                if len(body) > operation.most_bytes:
                    raise _too_large(operation)
    except TimeoutError:
        raise HttpRefusal(
            408, "TooSlow", f"{operation.name}: {len(body)} bytes came in {BODY_SECONDS:g} s", Connection="close"
        ) from None
    return bytes(body)


def _too_large(operation: Operation) -> HttpRefusal:
    return HttpRefusal(413, "TooLarge", too_large(operation), Connection="close")


def _unauthorized(message: str) -> HttpRefusal:
    return HttpRefusal(401, "Unauthorized", message, WWW_Authenticate="Bearer")


def _status(reply: Any) -> int:
    match reply:
        case Refused():
            return 410
        case Failed(error="EngineError"):
            return 503
        case Failed():
            return 422
    return 200
