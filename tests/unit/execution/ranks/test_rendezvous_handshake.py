"""Ranks prove to each other that they belong to one attempt; nothing else gets in, and the secret is not sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import msgspec
import pytest

from trainflow.execution.ranks import rendezvous
from trainflow.execution.ranks.rendezvous import HandshakeFailed, RankKey, introduce, welcome
from trainflow.messages import frames
from trainflow.messages.workload import AttemptKey

SECRET = "tfclaim_" + "s" * 43
KEY = RankKey.of(AttemptKey("a"), SECRET)


def met(theirs: Callable[[socket.socket], object], key: RankKey = KEY, nodes: int = 4) -> int:
    """Which rank the first one welcomes that behaves like `theirs`."""
    first, other = socket.socketpair()
    with first, other:
        thread = threading.Thread(target=lambda: theirs(other))
        thread.start()
        try:
            return welcome(first, key, nodes)
        finally:
            first.close()
            thread.join()


def refused(connection: socket.socket, key: RankKey, rank: int, nodes: int = 4) -> None:
    with pytest.raises(HandshakeFailed):
        introduce(connection, key, rank, nodes)


def test_rank_of_attempt_is_welcome() -> None:
    assert met(lambda connection: introduce(connection, KEY, 3, 4)) == 3


@pytest.mark.parametrize(
    ("key", "rank", "nodes"),
    [
        (RankKey.of(AttemptKey("b"), SECRET), 1, 4),
        (RankKey.of(AttemptKey("a", 1), SECRET), 1, 4),
        (RankKey.of(AttemptKey("a"), SECRET[:-1]), 1, 4),
        (KEY, 0, 4),
        (KEY, 4, 4),
        (KEY, -1, 4),
        (KEY, 1, 5),
    ],
)
def test_rank_of_another_attempt_or_number_is_refused(key: RankKey, rank: int, nodes: int) -> None:
    with pytest.raises(HandshakeFailed):
        met(lambda connection: refused(connection, key, rank, nodes))


@pytest.mark.parametrize("said", [b"", b"{}", b"GET / HTTP/1.1\r\n\r\n", b'{"rank":1,"nonce":"","proof":""}'])
def test_what_is_no_rank_is_refused(said: bytes) -> None:
    with pytest.raises(HandshakeFailed):
        met(lambda connection: frames.send(connection, said))


def test_stranger_that_says_nothing_or_too_much_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "HANDSHAKE_SECONDS", 0.05)
    with pytest.raises(HandshakeFailed):
        met(lambda connection: None)
    with pytest.raises(HandshakeFailed):
        met(lambda connection: connection.sendall(b"\xff" * 100))


def test_what_was_heard_of_one_rank_lets_no_other_in() -> None:
    said: list[bytes] = []

    class Heard:
        """A connection that is listened to."""

        def __init__(self, connection: socket.socket) -> None:
            self._connection = connection

        def sendall(self, data: bytes) -> None:
            said.append(data)
            self._connection.sendall(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

    met(lambda connection: introduce(Heard(connection), KEY, 1, 4))  # type: ignore[arg-type]
    assert SECRET.encode() not in b"".join(said)
    assert KEY.secret not in b"".join(said)
    with pytest.raises(HandshakeFailed):
        met(lambda connection: [connection.sendall(data) for data in said])


def test_first_rank_that_is_none_is_not_served() -> None:
    first, other = socket.socketpair()
    with first, other:
        frames.send(first, b"n" * 32)
        frames.send(first, b"no proof")
        refused(other, KEY, 1)
        hello = msgspec.json.decode(frames.receive(first) or b"")
        assert set(hello) == {"rank", "nonce", "proof"}
