"""Files that a page hands out: whole or a part, once for each content."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from trainflow.messages.byte_ranges import file_part


def download(
    request: Request,
    name: str,
    size: int,
    etag: str | None,
    read: Callable[[int, int], Iterator[bytes]],
    *,
    media: str = "application/octet-stream",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A file of `size` bytes, or what of it the request asks for; see `file_part`. `read`: its content from one byte
    up to another."""
    part = file_part(size, etag, request.headers, method=request.method)
    if part.status not in (200, 206):
        return Response(status_code=part.status, headers=part.headers)
    plain = name.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_")
    given = {**part.headers, **(headers or {}), "content-disposition": f'attachment; filename="{plain}"'}
    return StreamingResponse(read(part.start, part.end), part.status, given, media)
