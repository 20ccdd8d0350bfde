"""Requests in the plainest form that HTTP/1.1 has, which is that of every worker of ours: they are read and answered
without the parser and the framework that understand all forms, and take several times as long.

Pure. Whatever is not of this form, down to a header that is there twice, is left to those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

#: a larger body is left to what reads it as it comes
LARGEST_BODY = 64 * 1024
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"POST ([!-~]+) HTTP/1\.1\r\n")
_HEADER = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([!-~](?:[ -~\t]*[!-~])?)[ \t]*\r\n")
#: headers that change what a request is, or how it is answered
_NOT_PLAIN = frozenset({"connection", "expect", "te", "trailer", "transfer-encoding", "upgrade", "content-encoding"})
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class PlainRequest(NamedTuple):
    """A request of which the head has come. `headers`: by their names in small letters; `length`: of its body."""

    operation: str
    headers: Mapping[str, str]
    length: int


class PlainAnswer(NamedTuple):
    """What is answered: JSON, and headers beside those that every answer has."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def plain_request(head: bytes, operations: Mapping[bytes, str]) -> PlainRequest | None:
    """The request that this head, with its empty line, begins; None for what is not plain. `operations`: the name of
    each, by the path on which it is posted."""
    line = _REQUEST_LINE.match(head)
    operation = operations.get(line.group(1)) if line is not None else None
    if line is None or operation is None:
        return None
    headers: dict[str, str] = {}
    at = line.end()
    while (found := _HEADER.match(head, at)) is not None:
        name = found.group(1).decode("ascii").lower()
        if name in headers or name in _NOT_PLAIN:
            return None
        headers[name] = found.group(2).decode("ascii")
        at = found.end()
    length = headers.get("content-length", "")
    if head[at:] != b"\r\n" or "host" not in headers or not (length.isdecimal() and len(length) <= 6):
        return None
    return PlainRequest(operation, headers, int(length)) if int(length) <= LARGEST_BODY else None


def answer_bytes(answer: PlainAnswer) -> bytes:
    """An answer as it is sent."""
    lines = [b"HTTP/1.1 %d %s" % (answer.status, _REASONS.get(answer.status, b""))]
    lines += [f"{name.lower()}: {value}".encode("latin-1") for name, value in answer.headers.items()]
    lines += [b"content-length: %d" % len(answer.body), b"content-type: application/json", b"", answer.body]
    return b"\r\n".join(lines)
