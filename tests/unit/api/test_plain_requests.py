"""Which requests are in plain form, and how they are answered."""

from __future__ import annotations

import http.client
import io

import pytest

from trainflow.api.plain_requests import LARGEST_BODY, PlainAnswer, answer_bytes, plain_request

OPERATIONS = {b"/execution/v1/heartbeat": "heartbeat"}
LINE = b"POST /execution/v1/heartbeat HTTP/1.1\r\n"
HEADERS = b"Host: h\r\nContent-Length: 2\r\nAuthorization: Bearer a b\r\n"


def test_plain_request_has_operation_headers_and_length() -> None:
    found = plain_request(LINE + HEADERS + b"X-Trainflow-Protocol:\t1 \r\n\r\n", OPERATIONS)
    assert found is not None
    assert (found.operation, found.length) == ("heartbeat", 2)
    assert found.headers == {
        "host": "h",
        "content-length": "2",
        "authorization": "Bearer a b",
        "x-trainflow-protocol": "1",
    }


@pytest.mark.parametrize(
    "head",
    [
        LINE.replace(b"POST", b"GET") + HEADERS + b"\r\n",
        LINE.replace(b"1.1", b"1.0") + HEADERS + b"\r\n",
        LINE.replace(b"heartbeat", b"heartbeat?x=1") + HEADERS + b"\r\n",
        LINE.replace(b"heartbeat", b"%68eartbeat") + HEADERS + b"\r\n",
        LINE.replace(b"heartbeat", b"nothing") + HEADERS + b"\r\n",
        b"\r\n" + LINE + HEADERS + b"\r\n",
        LINE + HEADERS + HEADERS + b"\r\n",
        LINE + HEADERS + b"authorization: Bearer c\r\n\r\n",
        LINE + HEADERS + b"Transfer-Encoding: chunked\r\n\r\n",
        LINE + HEADERS + b"Expect: 100-continue\r\n\r\n",
        LINE + HEADERS + b"Connection: close\r\n\r\n",
        LINE + HEADERS + b"Upgrade: websocket\r\n\r\n",
        LINE + HEADERS + b" folded\r\n\r\n",
        LINE + HEADERS + b"Bad Name: x\r\n\r\n",
        LINE + HEADERS + b"X-Text: \xff\r\n\r\n",
        LINE + HEADERS + b"X-Text: a\x00b\r\n\r\n",
        LINE + HEADERS + b"X-Empty:\r\n\r\n",
        LINE + HEADERS.replace(b"\r\n", b"\n") + b"\n",
        LINE + b"Host: h\r\n\r\n",
        LINE + b"Content-Length: 2\r\n\r\n",
        LINE + b"Host: h\r\nContent-Length: +2\r\n\r\n",
        LINE + b"Host: h\r\nContent-Length: %d\r\n\r\n" % (LARGEST_BODY + 1),
        LINE + b"Host: h\r\nContent-Length: 99999999999999\r\n\r\n",
        LINE + HEADERS,
    ],
)
def test_request_in_any_other_form_is_left_to_the_parser(head: bytes) -> None:
    assert plain_request(head, OPERATIONS) is None


def test_answer_is_read_as_it_was_given() -> None:
    class Connection:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(answer_bytes(PlainAnswer(503, {"Retry-After": "1"}, b'{"a":1}')))

    response = http.client.HTTPResponse(Connection())  # type: ignore[arg-type]
    response.begin()
    assert (response.status, response.reason) == (503, "Service Unavailable")
    assert (response.headers["retry-after"], response.headers["content-type"]) == ("1", "application/json")
    assert (response.read(), response.will_close) == (b'{"a":1}', False)
