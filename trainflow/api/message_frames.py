"""Where HTTP/1.1 messages on a connection begin and end. Pure: it reads no more of a message than that takes."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

#: the longest head that is read: the limit of the parser that reads it afterwards (h11)
LONGEST_HEAD = 64 * 1024
_LONGEST_LINE = 1024
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(rb"(?:\r\n)?([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^ \r\n]+) HTTP/1\.[01]\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])\b")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r?(?=\n)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r?(?=\n)", re.IGNORECASE)
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,15}\Z")


class NotUnderstood(Exception):
    """Bytes that are no HTTP/1.1 message, or whose end cannot be told."""


class Body(Protocol):
    """A body that is passed on."""

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end."""

    def take(self, data: bytes) -> int:
        """How many of the next bytes belong to it. Raises NotUnderstood."""


class LengthBody:
    """A body of a known length, in bytes."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def is_done(self) -> bool:
        """Whether all of it has come."""
        return self._left == 0

    def take(self, data: bytes) -> int:
        """Take as many as are left."""
        taken = min(self._left, len(data))
        self._left -= taken
        return taken


class ChunkedBody:
    """A body in chunks, each after a line with its length."""

    def __init__(self) -> None:
        self.is_done = False
        self._line = b""
        #: of a chunk, with the end of its line
        self._left = 0
        self._in_trailers = False

    def take(self, data: bytes) -> int:
        """Take all up to the empty line after the last chunk."""
        at = 0
        while at < len(data) and not self.is_done:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at)
            self._line += data[at:] if end < 0 else data[at:end]
            if len(self._line) > _LONGEST_LINE:
                raise NotUnderstood("the line before a chunk is too long")
            if end < 0:
                return len(data)
            at = end + 1
            line, self._line = self._line.rstrip(b"\r"), b""
            self._read(line)
        return at

    def _read(self, line: bytes) -> None:
        if self._in_trailers:
            self.is_done = not line
            return
        size = line.partition(b";")[0].strip()
        if not _HEXADECIMAL.match(size):
            raise NotUnderstood("a chunk begins without its length")
        length = int(size, 16)
        self._in_trailers = length == 0
        self._left = length + len(b"\r\n") if length else 0


class EndlessBody:
    """A body that ends with its connection."""

    is_done = False

    def take(self, data: bytes) -> int:
        """Take all of them."""
        return len(data)


class RequestHead(NamedTuple):
    """A request up to its body. `path`: decoded, without the query."""

    method: bytes
    path: bytes
    body: Body


def end_of_head(data: bytes) -> int | None:
    """How long the head at the beginning of `data` is, with the empty line; None where it does not end there."""
    found = _END_OF_HEAD.search(data)
    return None if found is None else found.end()


def request_head(head: bytes) -> RequestHead:
    """What stands in the head of a request. Raises NotUnderstood."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise NotUnderstood("no request line of HTTP/1.1")
    method, target = line.groups()
    return RequestHead(method, unquote_to_bytes(target.partition(b"?")[0]), _body(head) or LengthBody(0))


def _body(head: bytes) -> Body | None:
    """Body by its headers; None where they say nothing of it. What reads it afterwards may not find another end: two
    lengths, or a length beside chunks, are refused."""
    folded = head.lower()
    lengths, chunked = set(_LENGTH.findall(head)), len(_CHUNKED.findall(head))
    said = folded.count(b"\ncontent-length"), folded.count(b"\ntransfer-encoding")
    if len(lengths) > 1 or chunked > 1 or (lengths and chunked) or said != (len(_LENGTH.findall(head)), chunked):
        raise NotUnderstood("the length of the body cannot be told")
    if chunked:
        return ChunkedBody()
    return LengthBody(int(lengths.pop())) if lengths else None


class AnswerFrames:
    """Follows the answers on a connection, one request after the other."""

    def __init__(self) -> None:
        self._method: bytes | None = None
        self._head = b""
        self._body: Body | None = None

    @property
    def is_complete(self) -> bool:
        """Whether no answer is due, or under way."""
        return self._method is None

    def expect(self, method: bytes) -> None:
        """A request was sent on."""
        self._method = method

    def take(self, data: bytes) -> None:
        """Note what came. Raises NotUnderstood for what is more than the answer."""
        while data:
            if self._method is None:
                raise NotUnderstood("an answer to no request")
            if self._body is None:
                self._head += data
                end = end_of_head(self._head)
                if end is None:
                    if len(self._head) > LONGEST_HEAD:
                        raise NotUnderstood("the head of the answer is too long")
                    return
                data, head, self._head = self._head[end:], self._head[:end], b""
                self._body = _body_of_answer(head, self._method)
            if self._body is not None:
                data = data[self._body.take(data) :]
                if self._body.is_done:
                    self._method = self._body = None


def _body_of_answer(head: bytes, method: bytes) -> Body | None:
    """None: another head follows."""
    line = _STATUS_LINE.match(head)
    if line is None:
        raise NotUnderstood("no status line of HTTP/1.1")
    status = int(line[1])
    if status < 200:
        return None
    if method == b"HEAD" or status in (204, 304):
        return LengthBody(0)
    return _body(head) or EndlessBody()
