"""Connections of the port: requests of attempts are answered by the process that accepts them, all others by the web
server. It is given the connection itself (`connection_transfer`), and gives it back with the first request of an
attempt on it; what cannot be given is passed on, each byte as it comes.

Which request goes where is decided anew for each request of a connection: a proxy sends those of attempts and of people
over the same ones. A request is looked at when the one before it has been answered.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from trainflow.api.connection_limits import BoundedConnection
from trainflow.api.connection_transfer import MOST_BYTES, ConnectionTransfer
from trainflow.api.message_frames import (
    LONGEST_HEAD,
    AnswerFrames,
    Body,
    NotUnderstood,
    RequestHead,
    end_of_head,
    request_head,
)
from trainflow.api.plain_requests import PlainAnswer, PlainRequest, answer_bytes, plain_request

log = logging.getLogger(__name__)

#: what the other process does not take now is offered again so long after
_AGAIN_SECONDS = 0.02
_BUSY_BODY = msgspec.json.encode(
    {"title": "Busy", "status": 503, "detail": "too many requests wait already", "what_to_do": "try again in a second"}
)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: %d\r\n"
    b"content-type: application/problem+json\r\n\r\n%s" % (len(_BUSY_BODY), _BUSY_BODY)
)


Answer = Callable[[str, Mapping[str, str], Callable[[], Awaitable[bytes]]], Awaitable[PlainAnswer]]


class PassedConnection(NamedTuple):
    """What the web server is told of a connection before its first byte: addresses and scheme as the client has
    them."""

    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str | None


class Routing(NamedTuple):
    """`is_here`: whether a path is answered by this process; `transfer`: to the one that answers the others.
    `elsewhere`: the socket of the web server, None: it is this one. `is_proxy`: whether an address is that of a proxy.
    `operations`: what may be asked in plain form, by its path; `answer` answers it."""

    is_here: Callable[[str], bool]
    transfer: ConnectionTransfer
    elsewhere: Path | None = None
    is_proxy: Callable[[str], bool] = lambda _address: False
    operations: Mapping[bytes, str] = {}
    answer: Answer | None = None


class RoutedConnection(BoundedConnection):
    """A connection whose requests are answered here, or by the other process. `taken`: what that one had read of it."""

    def __init__(self, routing: Routing, taken: bytes = b"", **options: Any) -> None:
        super().__init__(**options)
        self._routing = routing
        self._taken = taken
        #: it is not given away: an attempt uses it, too
        self._stays = bool(taken) and routing.elsewhere is not None
        #: bytes that were not looked at yet
        self._held = b""
        self._body: Body | None = None
        #: where the bytes of the request under way go
        self._is_here = True
        #: nothing is looked at any more: what came is answered here, whatever it is
        self._is_raw = False
        #: the answer to a request in plain form is due
        self._answers_plain = False
        self._line: _Line | None = None
        self._ends_with_answer = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._taken:
            taken, self._taken = self._taken, b""
            self.data_received(taken)

    def data_received(self, data: bytes) -> None:
        if self._is_raw:
            super().data_received(data)
            return
        self._held += data
        self._go_on()

    def _go_on(self) -> None:
        """Pass on what is held, up to a request that has to wait for the answer before it."""
        while self._held and not self.transport.is_closing():
            if self._body is None and not self._begins():
                return
            self._pass_on_body()

    def _begins(self) -> bool:
        """Begin with the request at the front of what is held. Whether that could be."""
        if not self._is_answered():
            self.flow.pause_reading()
            return False
        self._unset_keepalive_if_required()
        end = end_of_head(self._held)
        if end is None and len(self._held) <= LONGEST_HEAD:
            self._limit()
            return False
        if end is not None and self._takes_plain(end):
            return False
        try:
            if end is None:
                raise NotUnderstood("the head is too long")
            found = request_head(self._held[:end])
        except NotUnderstood:
            # the parser of this process says what is wrong with it
            self._is_raw = True
            held, self._held = self._held, b""
            super().data_received(held)
            return False
        self._is_here = self._routing.is_here(found.path.decode("utf-8", "replace"))
        if not self._is_here and self._gives_away():
            return False
        head, self._held = self._held[:end], self._held[end:]
        self._unlimit()
        self._body = found.body
        if self._is_here:
            self._stays = self._routing.elsewhere is not None
            super().data_received(head)
        else:
            self._to_web_server(found, head)
        self._look_for_end()
        return True

    def _pass_on_body(self) -> None:
        if self._body is None or not self._held:
            return
        try:
            taken = self._body.take(self._held)
        except NotUnderstood:
            self.transport.close()
            return
        part, self._held = self._held[:taken], self._held[taken:]
        self._look_for_end()
        if self._is_here:
            super().data_received(part)
        elif self._line is not None:
            self._line.send(part)

    def _look_for_end(self) -> None:
        if self._body is not None and self._body.is_done:
            self._body = None

    def _is_answered(self) -> bool:
        here = not self._answers_plain and (self.cycle is None or self.cycle.response_complete)
        return here and (self._line is None or self._line.answers.is_complete)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._go_on()

    # -- the other process ---------------------------------------------------------------------------------------------

    def _gives_away(self) -> bool:
        """Give the connection to the other process, with the request at the front of what is held. False: that is to be
        passed on."""
        if self._routing.elsewhere is not None and not self._may_be_given():
            return False
        # what is written still goes out from here
        unsent = self.transport.get_write_buffer_size()
        connection = self.transport.get_extra_info("socket")
        if not unsent and self._routing.transfer.give(connection.fileno(), self._held):
            self._held = b""
            self._unlimit()
            self.transport.abort()  # this copy of it: the other one is open
            return True
        if self._routing.elsewhere is not None:
            return False
        if len(self._held) > MOST_BYTES:
            # it never can be given; on another connection it comes to the other process at once
            self._held = b""
            self.transport.write(_BUSY)
            self.transport.close()
            return True
        self._limit()
        self.flow.pause_reading()
        self.loop.call_later(_AGAIN_SECONDS, self._go_on)
        return True

    def _may_be_given(self) -> bool:
        is_plain = self.scheme == "http" and self._line is None and not self._stays
        return is_plain and self.client is not None and not self._routing.is_proxy(self.client[0])

    # -- requests in plain form ----------------------------------------------------------------------------------------

    def _takes_plain(self, end: int) -> bool:
        """Take a request in plain form, whose head is so long, and have it answered. False: it is none, or its body is
        still to come."""
        request = plain_request(self._held[:end], self._routing.operations)
        if request is None or len(self._held) < end + request.length:
            return False
        end_of_body = end + request.length
        body, self._held = self._held[end:end_of_body], self._held[end_of_body:]
        self._unlimit()
        self._answers_plain = self._stays = True
        task = self.loop.create_task(self._answer_plain(request, body))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    async def _answer_plain(self, request: PlainRequest, body: bytes) -> None:
        async def read() -> bytes:
            return body

        try:
            assert self._routing.answer is not None
            answer = await self._routing.answer(request.operation, request.headers, read)
        except Exception:
            # the worker asks again
            log.exception("%s: the request could not be answered", request.operation)
            self.transport.close()
            return
        finally:
            self._answers_plain = False
        if not self.transport.is_closing():
            self.transport.write(answer_bytes(answer))
        if self._ends_with_answer or "Connection" in answer.headers:
            self.transport.close()
        else:
            self.on_response_complete()

    # -- the web server ------------------------------------------------------------------------------------------------

    def _to_web_server(self, found: RequestHead, head: bytes) -> None:
        if self._line is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                connection.connect(str(self._routing.elsewhere))
            except OSError as error:
                # as many wait as may, or this server ends
                connection.close()
                log.warning("the web server takes no connection: %s", error)
                self.transport.write(_BUSY)
                self.transport.close()
                return
            self._line = _Line(self, connection)
            told = PassedConnection(self.client, self.server, self.scheme)
            self._line.send(msgspec.json.encode(told) + b"\n")
        self._line.answers.expect(found.method)
        self._line.send(head)

    def answered(self, data: bytes) -> None:
        """Send on what came from the web server."""
        assert self._line is not None
        self.transport.write(data)
        try:
            self._line.answers.take(data)
        except NotUnderstood as error:
            log.error("the web server's answer cannot be followed: %s", error)
            self.transport.close()
            return
        if self._line.answers.is_complete:
            self.flow.resume_reading()
            if self._ends_with_answer:
                self.transport.close()
            else:
                self._go_on()

    def hung_up(self) -> None:
        """The web server has closed the connection, after its answer or because it has ended."""
        self._line = None
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._line is not None:
            self._line.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._line is not None:
            self._line.resume_reading()

    def shutdown(self) -> None:
        if self._answers_plain or (self._line is not None and not self._line.answers.is_complete):
            self._ends_with_answer = True
        else:
            super().shutdown()


class _Line(asyncio.Protocol):
    """A connection to the web server, for one of a client."""

    def __init__(self, client: RoutedConnection, connection: socket.socket) -> None:
        self.answers = AnswerFrames()
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._is_closed = False
        self._task = client.loop.create_task(self._connected(connection))

    async def _connected(self, connection: socket.socket) -> None:
        await self._client.loop.create_unix_connection(lambda: self, sock=connection)

    def connection_made(self, transport: Any) -> None:
        if self._is_closed:
            transport.abort()
            return
        self._transport = transport
        transport.writelines(self._unsent)
        self._unsent = []

    def send(self, data: bytes) -> None:
        """Pass on bytes of a request."""
        if self._transport is None:
            self._unsent.append(data)
        else:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._client.answered(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._client.hung_up()

    def close(self) -> None:
        """Hang up: nothing is told of it any more."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        """Take nothing more for now: the client reads slowly."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._client.flow.pause_reading()

    def resume_writing(self) -> None:
        self._client.flow.resume_reading()


class WebConnection(BoundedConnection):
    """A connection that was passed on, as the web server has it."""

    _told: bytes | None = b""

    def data_received(self, data: bytes) -> None:
        if self._told is not None:
            line, found, data = (self._told + data).partition(b"\n")
            if not found:
                self._told = line
                return
            self._told = None
            passed = msgspec.json.decode(line, type=PassedConnection)
            self.client, self.server, self.scheme = passed.client, passed.server, passed.scheme  # type: ignore[assignment]
            if not data:
                return
        super().data_received(data)
