"""The first rank: waits until all others are there, before the attempt is claimed.

Who connects is who it says: both ends prove that they know the claim secret of the attempt, and neither sends it.

What follows is not encrypted, as what ranks say to each other by NCCL or gloo is not: hosts of one attempt are in one
network that can be trusted.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from trainflow.clock import Clock
from trainflow.errors import EngineError, ProtocolError
from trainflow.execution.http_api_client import ApiUnreachable, HttpApiClient
from trainflow.messages import frames
from trainflow.messages.execution_api import Failed, MeetRanks, RanksMeet, Refused
from trainflow.messages.workload import AttemptKey

#: how long the other end may take to say who it is, in seconds
HANDSHAKE_SECONDS = 10.0
_NONCE_BYTES = 32
#: larger than anything that is said here
_MOST_BYTES = 4096
_PROBE_SECONDS = 5


class HandshakeFailed(EngineError):
    """The other end is none of the attempt's ranks, or is gone."""


class _Hello(msgspec.Struct, frozen=True):
    """A rank says which it is, and proves it for the nonce it was given."""

    rank: int
    nonce: bytes
    proof: bytes


class RankKey(NamedTuple):
    """What all ranks of an attempt can make, and nothing else can."""

    secret: bytes

    @classmethod
    def of(cls, key: AttemptKey, claim_secret: str) -> RankKey:
        """Make that of an attempt."""
        about = f"ranks of {key.attempt_id}.{key.deferral_number}".encode()
        return cls(hmac.digest(claim_secret.encode(), about, "sha256"))

    def proof(self, who: str, *nonces: bytes) -> bytes:
        """What `who` shows for two nonces."""
        return hmac.digest(self.secret, b"\n".join([who.encode(), *nonces]), "sha256")


def welcome(connection: socket.socket, key: RankKey, nodes: int) -> int:
    """Find out which rank has connected to the first one. Raises HandshakeFailed."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    try:
        connection.settimeout(HANDSHAKE_SECONDS)
        frames.send(connection, nonce)
        hello = msgspec.json.decode(_received(connection), type=_Hello)
        expected = key.proof(f"rank {hello.rank} of {nodes}", nonce, hello.nonce)
        if not hmac.compare_digest(expected, hello.proof) or not 1 <= hello.rank < nodes:
            raise HandshakeFailed("it does not prove that it belongs to the attempt")
        frames.send(connection, key.proof("first", nonce, hello.nonce))
        connection.settimeout(None)
    except (OSError, ProtocolError, msgspec.MsgspecError) as error:
        raise HandshakeFailed(f"{type(error).__name__}: {error}") from None
    return hello.rank


def introduce(connection: socket.socket, key: RankKey, rank: int, nodes: int) -> None:
    """Prove to the first rank which one this is, and have it prove that it is the first. Raises HandshakeFailed."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    try:
        connection.settimeout(HANDSHAKE_SECONDS)
        theirs = _received(connection)
        proof = key.proof(f"rank {rank} of {nodes}", theirs, nonce)
        frames.send(connection, msgspec.json.encode(_Hello(rank, nonce, proof)))
        if not hmac.compare_digest(key.proof("first", theirs, nonce), _received(connection)):
            raise HandshakeFailed("what answers there is not the first rank of the attempt")
        connection.settimeout(None)
    except (OSError, ProtocolError) as error:
        raise HandshakeFailed(f"{type(error).__name__}: {error}") from None


def _received(connection: socket.socket) -> bytes:
    frame = frames.receive(connection, most_bytes=_MOST_BYTES)
    if frame is None:
        raise ProtocolError("it has hung up")
    return frame


def keep_alive(connection: socket.socket, seconds: float) -> None:
    """Have the connection end when its other host is not heard for so long."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": _PROBE_SECONDS,
        "TCP_KEEPINTVL": _PROBE_SECONDS,
        "TCP_KEEPCNT": max(int(seconds / _PROBE_SECONDS), 1),
        "TCP_USER_TIMEOUT": int(seconds * 1000),
    }
    for name, value in options.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


log = logging.getLogger(__name__)

#: seconds between two questions whether the attempt is still waited for
_ASK_SECONDS = 10.0
_TURN_SECONDS = 0.5
#: connections that may be about to say who they are
_MOST_UNKNOWN = 64


def own_address(api_url: str) -> str:
    """The address that this host has towards the API server. Raises OSError."""
    parts = urlsplit(api_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    family, kind, _, _, place = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(place)  # nothing is sent
        return str(probe.getsockname()[0])


class RanksNotWanted(Exception):
    """The attempt is not waited for any more, or another first rank has taken over."""


class RankRendezvous:
    """Listens for the other ranks of an attempt."""

    def __init__(
        self, key: AttemptKey, nodes: int, claim_secret: str, *, host: str, lost_after_seconds: float, clock: Clock
    ) -> None:
        """`host`: the address of this host, as the others reach it. Raises OSError where it is none."""
        self._key, self._nodes = key, nodes
        self._rank_key = RankKey.of(key, claim_secret)
        self._lost_after = lost_after_seconds
        self._clock = clock
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=min(nodes, 1024)
        )
        port = self._listener.getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._come: SimpleQueue[tuple[int, socket.socket]] = SimpleQueue()
        self._unknown = threading.Semaphore(_MOST_UNKNOWN)
        self._ranks: dict[int, socket.socket] = {}

    def gather(self, client: HttpApiClient, check_stop: Callable[[], None]) -> list[socket.socket]:
        """Wait for the others; connections to them, in order. `check_stop` is called twice a second, and raises to end
        it. Raises RanksNotWanted, and EngineError when the API server was away for too long."""
        self._heard(client.ask(MeetRanks(self._key, self.address)))
        asked = self._clock.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while len(self._ranks) < self._nodes - 1:
                check_stop()
                self._turn(selector)
                if self._clock.monotonic() - asked >= _ASK_SECONDS:
                    asked = self._clock.monotonic()
                    with contextlib.suppress(ApiUnreachable):
                        self._heard(client.ask_once(MeetRanks(self._key)))
        log.info("all %d ranks of attempt %s are there", self._nodes, self._key.attempt_id)
        return [self._ranks[rank] for rank in sorted(self._ranks)]

    def _heard(self, answer: object) -> None:
        if isinstance(answer, Refused):
            raise RanksNotWanted(answer.reason)
        if isinstance(answer, Failed):
            raise EngineError(f"the other ranks are not waited for: {answer.message}")
        if isinstance(answer, RanksMeet) and answer.address != self.address:
            raise RanksNotWanted("another process is its first rank")

    def _turn(self, selector: selectors.BaseSelector) -> None:
        for found, _ in selector.select(_TURN_SECONDS):
            if found.fileobj is self._listener:
                self._accept()
            else:
                # a rank says nothing before it is told to begin: it is gone
                self._forget(selector, found.data)
        with contextlib.suppress(Empty):
            while True:
                rank, connection = self._come.get_nowait()
                if rank in self._ranks:
                    self._forget(selector, rank)
                self._ranks[rank] = connection
                selector.register(connection, selectors.EVENT_READ, rank)
                log.info("rank %d of %d is there", rank, self._nodes)

    def _forget(self, selector: selectors.BaseSelector, rank: int) -> None:
        connection = self._ranks.pop(rank)
        selector.unregister(connection)
        connection.close()
        log.info("rank %d of %d is gone again", rank, self._nodes)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            if not self._unknown.acquire(blocking=False):
                connection.close()
                return
            threading.Thread(target=self._welcome, args=(connection,), name="handshake", daemon=True).start()

    def _welcome(self, connection: socket.socket) -> None:
        try:
            keep_alive(connection, self._lost_after)
            self._come.put((welcome(connection, self._rank_key, self._nodes), connection))
        except (HandshakeFailed, OSError) as error:
            log.warning("a connection is refused: %s", error)
            connection.close()
        finally:
            self._unknown.release()

    def close(self) -> None:
        """Listen no more, and let go of the connections: the process of the attempt has its own."""
        self._listener.close()
        with contextlib.suppress(Empty):
            while True:
                self._come.get_nowait()[1].close()
        for connection in self._ranks.values():
            connection.close()
