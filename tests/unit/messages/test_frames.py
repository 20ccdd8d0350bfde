"""Frames survive any cut of the stream, and nonsense is refused before memory is spent on it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.errors import ProtocolError
from trainflow.messages import frames
from trainflow.messages.frames import MAX_FRAME_BYTES, FrameReader, pack


@given(payloads=st.lists(st.binary(max_size=40), max_size=8), cuts=st.lists(st.integers(1, 9), max_size=200))
def test_frames_any_cut_gives_same_messages(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(pack, payloads))
    reader, found, position = FrameReader(), [], 0
    for cut in cuts:
        found += reader.feed(stream[position : position + cut])
        position += cut
    found += reader.feed(stream[position:])
    assert found == payloads


def test_length_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(ProtocolError, match="not ours or is torn"):
        list(FrameReader().feed(struct.pack("!I", MAX_FRAME_BYTES + 1)))


def test_frames_before_nonsense_are_delivered() -> None:
    messages = FrameReader().feed(pack(b"good") + b"GET / HTTP/1.1")
    assert next(messages) == b"good"
    with pytest.raises(ProtocolError):
        next(messages)


def test_too_large_message_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 10)
    assert pack(b"x" * 10)
    with pytest.raises(ProtocolError, match="11 bytes"):
        pack(b"x" * 11)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_send_and_receive(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    large = bytes(range(256)) * 20_000
    thread = threading.Thread(target=frames.send, args=(left, large))
    thread.start()
    assert frames.receive(right) == large
    thread.join()
    frames.send(left, b"")
    assert frames.receive(right) == b""


def test_receive_tells_end_from_tear(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    frames.send(left, b"last")
    left.shutdown(socket.SHUT_WR)
    assert frames.receive(right) == b"last"
    assert frames.receive(right) is None


@pytest.mark.parametrize("sent", [b"\0\0", pack(b"hello")[:-1]])
def test_receive_refuses_torn_frame(pair: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    left, right = pair
    left.sendall(sent)
    left.shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError, match="inside a frame"):
        frames.receive(right)


def test_receive_refuses_length_that_cannot_be(pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    left.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(ProtocolError, match="claims"):
        frames.receive(right)
