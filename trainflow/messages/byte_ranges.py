"""What part of a file a request asks for, and how the answer says so: RFC 9110, conditions and ranges. Pure.

One range of bytes is answered by 206. Several at once, other units and what is no range are answered by the whole file,
as the RFC allows: nothing that downloads asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from trainflow.messages.http_protocol import is_named

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE | re.ASCII)


class FilePart(NamedTuple):
    """The bytes from `start` up to `end` that are sent, with which status and headers."""

    status: int
    headers: dict[str, str]
    start: int = 0
    end: int = 0


def file_part(size: int, etag: str | None, asked: Mapping[str, str], *, method: str = "GET") -> FilePart:
    """The answer to a request with the headers `asked` (names in small letters) for a file of `size` bytes.

    `etag`: a strong one, which names this content for ever; None: there is none, since the file still grows. Statuses:
    200, 206, 304 (the request has it already), 416 (there are no such bytes).
    """
    named = {} if etag is None else {"etag": etag}
    if etag is not None and is_named(etag, asked.get("if-none-match")):
        return FilePart(304, named)
    headers = {**named, "accept-ranges": "bytes"}
    wanted = asked.get("range") if method == "GET" and _still_holds(asked.get("if-range"), etag) else None
    found = None if wanted is None else _RANGE.fullmatch(wanted.strip())
    if found is None or not any(found.groups()):
        return FilePart(200, {**headers, "content-length": str(size)}, 0, size)
    first, last = (int(group) if group else None for group in found.groups())
    if first is None:
        assert last is not None
        start, end = max(0, size - last), size
    elif last is not None and last < first:
        return FilePart(200, {**headers, "content-length": str(size)}, 0, size)
    else:
        start, end = first, size if last is None else min(last + 1, size)
    if start >= end:
        return FilePart(416, {**headers, "content-range": f"bytes */{size}"})
    said = {"content-range": f"bytes {start}-{end - 1}/{size}", "content-length": str(end - start)}
    return FilePart(206, {**headers, **said}, start, end)


def _still_holds(if_range: str | None, etag: str | None) -> bool:
    """Whether a range may be sent: unless it says of which content, or that is still it. Compared strongly; a date is
    never that of this content, since no answer has one."""
    return if_range is None or (etag is not None and if_range.strip() == etag)
