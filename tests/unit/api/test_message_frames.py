"""Where messages end, wherever the bytes of a connection are cut."""

from __future__ import annotations

import pytest

from trainflow.api.message_frames import (
    AnswerFrames,
    ChunkedBody,
    LengthBody,
    NotUnderstood,
    end_of_head,
    request_head,
)

CHUNKS = b"4\r\nabcd\r\na;x=1\r\n0123456789\r\n0\r\ntrailer: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", None),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", None),
        (b"GET / HTTP/1.1\r\n\r\nrest", 18),
        (b"GET / HTTP/1.1\nhost: x\n\nrest", 24),
    ],
)
def test_end_of_head_is_behind_the_empty_line(data: bytes, end: int | None) -> None:
    assert end_of_head(data) == end


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b"/"),
        (b"/a/b?c=/execution/", b"/a/b"),
        (b"/%65xecution/v1/start", b"/execution/v1/start"),
        (b"http://x/a", b"http://x/a"),
    ],
)
def test_request_head_names_its_path_as_the_parser_behind_it_does(target: bytes, path: bytes) -> None:
    assert request_head(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % target).path == path


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        (b"", 0),
        (b"Content-Length: 12\r\n", 12),
        (b"content-length:\t12 \r\nhost: x\r\n", 12),
        (b"Content-Length: 12\r\ncontent-length: 12\r\n", 12),
        (b"x-content-length: 12\r\n", 0),
        (b"x: content-length: 12\r\n", 0),
    ],
)
def test_request_head_says_how_long_the_body_is(headers: bytes, length: int) -> None:
    found = request_head(b"POST / HTTP/1.1\r\n%s\r\n" % headers)
    assert isinstance(found.body, LengthBody)
    assert found.body.take(b"x" * 100) == length
    assert found.body.is_done


def test_request_head_knows_chunks() -> None:
    found = request_head(b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n")
    assert isinstance(found.body, ChunkedBody)


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length : 1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: identity\r\n\r\n",
    ],
)
def test_request_whose_end_another_parser_may_see_elsewhere_is_not_understood(head: bytes) -> None:
    with pytest.raises(NotUnderstood):
        request_head(head)


@pytest.mark.parametrize("size", range(1, len(CHUNKS) + 1))
def test_chunked_body_ends_where_it_ends_however_it_is_cut(size: int) -> None:
    body, data, taken = ChunkedBody(), CHUNKS + b"GET /", 0
    for at in range(0, len(data), size):
        taken += body.take(data[at : at + size])
    assert (body.is_done, taken) == (True, len(CHUNKS))


@pytest.mark.parametrize("data", [b"\r\n", b"x\r\n", b"-1\r\n", b"0x1\r\n", b"1" * 2000])
def test_chunk_without_its_length_is_not_understood(data: bytes) -> None:
    with pytest.raises(NotUnderstood):
        ChunkedBody().take(data)


ANSWERS = [
    (b"GET", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"),
    (b"POST", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n"),
    (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"),
    (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"),
    (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
    (b"GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKS),
]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_answers_are_followed_one_after_the_other(size: int) -> None:
    frames = AnswerFrames()
    for method, data in ANSWERS:
        frames.expect(method)
        for at in range(0, len(data), size):
            assert not frames.is_complete, data
            frames.take(data[at : at + size])
        assert frames.is_complete, data


def test_answer_without_length_ends_with_its_connection() -> None:
    frames = AnswerFrames()
    frames.expect(b"GET")
    frames.take(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)
    assert not frames.is_complete


@pytest.mark.parametrize("data", [b"SSH-2.0\r\n\r\n", b"x" * 70_000])
def test_what_is_no_answer_is_not_understood(data: bytes) -> None:
    frames = AnswerFrames()
    frames.expect(b"GET")
    with pytest.raises(NotUnderstood):
        frames.take(data)


def test_answer_to_no_request_is_not_understood() -> None:
    with pytest.raises(NotUnderstood):
        AnswerFrames().take(b"HTTP/1.1 200 OK\r\n\r\n")
