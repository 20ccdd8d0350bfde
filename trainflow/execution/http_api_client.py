"""Speak to the execution API of an API server, through its outages: the second implementation of `ExecutionApi`.

Unreachable is not dead: a request is sent again until the server answers it. An answer is what carries the header of
the protocol; what a proxy says while the server is away is none. A request that is sent again changes nothing the
second time, so nothing is lost and nothing happens twice when a connection breaks at whatever byte.
"""

from __future__ import annotations

import http.client
import logging
import random
import secrets
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec

from trainflow.clock import Clock
from trainflow.errors import EngineError, InputError
from trainflow.messages.execution_api import (
    Failed,
    LogTaken,
    MeetRanks,
    Outcome,
    ProcessEnded,
    RanksMeet,
    Refused,
    Reply,
    Request,
    Start,
    SupervisorRequest,
)
from trainflow.messages.http_protocol import (
    BEFORE_CLAIM,
    BY_REQUEST,
    INSTALLATION_HEADER,
    PREFIX,
    PROTOCOL,
    PROTOCOL_HEADER,
    TOKEN_HEADER,
    TOKEN_PREFIX,
    HttpProblem,
    Operation,
    too_large,
)
from trainflow.messages.workload import ExecuteTask
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

log = logging.getLogger(__name__)

#: how long one answer is waited for
ANSWER_SECONDS = 60.0
#: how long the end of an attempt is told to its own control plane while another one answers
LAST_WORDS_SECONDS = 60.0
#: `error` of what another control plane answers
OTHER_INSTALLATION = "OtherInstallation"
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 10.0
#: an outage that lasts as long is told
_TOLD_PAUSE_SECONDS = 1.0
#: a server that asks for a longer pause does not get it
_LONGEST_RETRY_AFTER_SECONDS = 60.0
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
#: another process has the attempt, or it is not waited for any more
_SUPERSEDED = frozenset({409, 410})
#: who asks does not prove that it speaks for the attempt: once that has begun, it does not exist (any more)
_NOT_PROVEN = frozenset({401, 403})

Answer = Reply | LogTaken | RanksMeet
_ANSWERS: msgspec.json.Decoder[Answer | HttpProblem] = msgspec.json.Decoder(Answer | HttpProblem)


class ApiUnreachable(EngineError):
    """No answer came. `pause`: seconds after which the server wants to be asked again, where it said so."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


class HttpApiClient:
    """The line of one attempt to an API server. Fit for several threads."""

    def __init__(
        self,
        url: str,
        claim_secret: str,
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        outage_seconds: float | None = None,
        ca_file: str | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        installation: str = "",
        address: ApiAddress | None = None,
    ) -> None:
        """`outage_seconds`: how long the server may be away before a request fails; None: for ever. `ca_file`: the
        authorities to believe, in PEM; None: those of the system. `installation`: the control plane that handed out the
        attempt. `address`: of `url`, whose connections are shared with other attempts; None: they are this one's.
        Raises InputError for a URL that is none."""
        self._installation = installation
        #: since when another control plane answers; None: it does not
        self._misled_since: float | None = None
        self._url = url
        self._claim_secret = claim_secret
        self._token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        self._clock = clock
        self._sleep = sleep
        self._outage_seconds = outage_seconds
        self._answer_seconds = answer_seconds
        self._given_up = False
        self._in_use: set[http.client.HTTPConnection] = set()
        self._shares = address is not None
        self._address = address if address is not None else ApiAddress(url, ca_file)

    def handle(self, request: Request) -> Reply:
        """See `trainflow.messages.execution_api.ExecutionApi`. Asks again while the server is away; raises EngineError
        when that was longer than `outage_seconds`."""
        reply: Any = self.ask(request)
        return reply  # type: ignore[no-any-return]

    def ask(self, request: Request | SupervisorRequest) -> Answer:
        """`handle`, for what a supervisor says for itself, too."""
        began, pause, told = self._clock.monotonic(), _FIRST_PAUSE_SECONDS, False
        while True:
            try:
                return self.ask_once(request)
            except ApiUnreachable as away:
                if self._given_up:
                    raise EngineError(f"the API server at {self._url} is not waited for any more: {away}") from None
                passed = self._clock.monotonic() - began
                if self._outage_seconds is not None and passed >= self._outage_seconds:
                    raise EngineError(f"the API server at {self._url} was away for {passed:.0f} s: {away}") from None
                if not told and pause >= _TOLD_PAUSE_SECONDS:
                    log.warning("the API server at %s does not answer, and is asked again: %s", self._url, away)
                    told = True
                # not all at once, when the server comes back
                self._sleep(away.pause if away.pause is not None else pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def ask_once(self, request: Request | SupervisorRequest) -> Answer:
        """Ask, and do not ask again. Raises ApiUnreachable where there is no answer."""
        operation, content = BY_REQUEST[type(request)], msgspec.json.encode(request)
        if len(content) > operation.most_bytes:
            # a server that refuses it hangs up before it was sent: that would look like an outage
            return Failed("TooLarge", too_large(operation))
        status, headers, body = self._exchange(operation, content, self._headers(request))
        if PROTOCOL_HEADER not in headers or status in _TRY_AGAIN:
            raise ApiUnreachable(f"{operation.name}: HTTP {status}", _retry_after(headers))
        if (misled := self._misled(headers)) is not None:
            return self._of_another(request, operation, misled)
        try:
            answer = _ANSWERS.decode(body)
        except msgspec.DecodeError as error:
            raise ApiUnreachable(f"{operation.name}: HTTP {status}, and an answer that is cut off: {error}") from None
        if not isinstance(answer, HttpProblem):
            return answer
        has_begun = type(request) not in BEFORE_CLAIM
        if status in _SUPERSEDED or (has_begun and status in _NOT_PROVEN):
            return Refused(answer.message)
        return Failed(answer.error, answer.message)

    @property
    def is_misled(self) -> bool:
        """Whether the last answer was one of another control plane."""
        return self._misled_since is not None

    def _misled(self, headers: http.client.HTTPMessage) -> float | None:
        """Seconds for which another control plane has answered; None: this one is the attempt's."""
        if headers.get(INSTALLATION_HEADER, self._installation) in ("", self._installation) or not self._installation:
            self._misled_since = None
            return None
        now = self._clock.monotonic()
        self._misled_since = now if self._misled_since is None else self._misled_since
        return now - self._misled_since

    def _of_another(self, request: Request | SupervisorRequest, operation: Operation, seconds: float) -> Answer:
        """What an answer of another control plane means, which never knew the attempt: its own was lost, database and
        all, or the address leads elsewhere."""
        said = (
            f"the API server at {self._url} is that of another installation: its database is not the one from which "
            "the attempt was handed out; look at api.url, and at what stands between (DNS, a proxy)"
        )
        if isinstance(request, Outcome | ProcessEnded) and seconds < LAST_WORDS_SECONDS:
            raise ApiUnreachable(f"{operation.name}: {said}")
        if isinstance(request, Start | MeetRanks | Outcome | ProcessEnded):
            return Failed(OTHER_INSTALLATION, said)
        return Refused(said)

    def _headers(self, request: Request | SupervisorRequest) -> dict[str, str]:
        headers = {"Content-Type": "application/json", PROTOCOL_HEADER: str(PROTOCOL)}
        if type(request) not in BEFORE_CLAIM:
            return {**headers, "Authorization": f"Bearer {self._token}"}
        if isinstance(request, Start):
            headers[TOKEN_HEADER] = self._token
        return {**headers, "Authorization": f"Bearer {self._claim_secret}"}

    def _exchange(
        self, operation: Operation, body: bytes, headers: dict[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        kept = self._address.take()
        connection, is_new = kept or self._connection(), kept is None
        while True:
            self._in_use.add(connection)
            try:
                connection.request("POST", self._address.path_of(operation.name), body, headers)
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                is_new = is_new or self._given_up
                if is_new:
                    raise ApiUnreachable(_in_words(error)) from None
                # it was kept open, and the server has closed it meanwhile
                connection, is_new = self._connection(), True
                continue
            finally:
                self._in_use.discard(connection)
            if response.will_close:
                connection.close()
            else:
                self._address.keep(connection)
            return response.status, response.headers, content

    def _connection(self) -> http.client.HTTPConnection:
        return self._address.connection(self._answer_seconds)

    def give_up(self) -> None:
        """Wait for no answer any more: requests under way, and later ones without an answer at once, end by
        EngineError."""
        self._given_up = True
        for connection in list(self._in_use):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up, unless others speak over the same connections; a later request connects again."""
        if not self._shares:
            self._address.hang_up()


def _in_words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "renew it (api.tls_cert), or have workers believe its authority (api.tls_ca)"
        return f"its certificate is not believed, {error.verify_message}: {advice}"
    return f"{type(error).__name__}: {error}"


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    said = headers.get("Retry-After", "")
    return min(float(said), _LONGEST_RETRY_AFTER_SECONDS) if said.isdecimal() else None


def authorities_of(project: Project, settings: Settings) -> str | None:
    """The file with the authorities that workers believe; None: those of the system."""
    authorities = settings.api.tls_ca
    return str(project.root / authorities) if authorities is not None else None


def client_of(
    workload: ExecuteTask,
    project: Project,
    settings: Settings,
    *,
    clock: Clock,
    sleep: Callable[[float], None],
    address: ApiAddress | None = None,
) -> HttpApiClient:
    """The line of the attempt of a workload. `address`: of its API server, shared by several. Raises InputError for an
    address that is none."""
    return HttpApiClient(
        workload.api_url,
        workload.claim_secret,
        clock=clock,
        sleep=sleep,
        outage_seconds=settings.executor.outage_seconds,
        ca_file=authorities_of(project, settings),
        installation=workload.installation,
        address=address,
    )


#: connections that are kept while none asks: what was needed at once when many attempts asked is not kept for ever
_MOST_KEPT = 8


class ApiAddress:
    """The address of the execution API of a server. Fit for several threads."""

    def __init__(self, url: str, ca_file: str | None = None) -> None:
        """`ca_file`: the authorities to believe, in PEM; None: those of the system. Raises InputError for a URL that is
        none."""
        self.url = url
        parts = urlsplit(url)
        try:
            self._port = parts.port
        except ValueError as error:
            raise InputError(f"the address of the API server, '{url}', cannot be used: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"the address of the API server, '{url}', does not begin with http:// or https://")
        self._host = parts.hostname
        self._path = parts.path.rstrip("/") + PREFIX
        try:
            self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"api.tls_ca: {ca_file} cannot be used: {error}") from None
        self._kept: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def path_of(self, operation: str) -> str:
        """Where an operation is posted."""
        return f"{self._path}/{operation}"

    def connection(self, answer_seconds: float) -> http.client.HTTPConnection:
        """A new connection. `answer_seconds`: how long one answer is waited for."""
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=answer_seconds)
        return http.client.HTTPSConnection(self._host, self._port, timeout=answer_seconds, context=self._tls)

    def take(self) -> http.client.HTTPConnection | None:
        """A connection that was kept, which the server may have closed meanwhile; None: there is none."""
        with self._lock:
            return self._kept.pop() if self._kept else None

    def keep(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose last answer was read, for the next request."""
        with self._lock:
            if len(self._kept) < _MOST_KEPT:
                self._kept.append(connection)
                return
        connection.close()

    def hang_up(self) -> None:
        """Close what is kept; a later request connects again."""
        with self._lock:
            kept, self._kept = self._kept, []
        for connection in kept:
            connection.close()
