"""Who is at the other end: both prove that they know the claim secret of the attempt, and neither sends it.

What follows is not encrypted, as what ranks say to each other by NCCL or gloo is not: hosts of one attempt are in one
network that can be trusted.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from typing import NamedTuple

import msgspec

from trainflow.errors import EngineError, ProtocolError
from trainflow.messages import frames
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
