"""Read what a request holds as the types of its endpoint say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache
from typing import Any, get_origin, get_type_hints

import msgspec
from starlette.requests import Request

from trainflow.api.rest.endpoints import Endpoint
from trainflow.api.rest.problems import RequestRefused, not_understood
from trainflow.bounds import MOST_NESTING

#: bytes of a body at most: the conf of a run is the largest
MOST_BYTES = 1_048_576
#: how long a body may take to come
BODY_SECONDS = 20.0


def read_query(type_: type[msgspec.Struct], given: Iterable[tuple[str, str]]) -> Any:
    """The parameters behind a path. Raises RequestRefused for one that is unknown, given twice, or of another type."""
    lists = _lists(type_)
    values: dict[str, Any] = {}
    for name, value in given:
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise not_understood(f"the query names {name} twice")
        else:
            values[name] = value
    try:
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        raise not_understood(f"query: {error}") from None


@cache
def _lists(type_: type[msgspec.Struct]) -> frozenset[str]:
    """The parameters that may be given several times."""
    hints = get_type_hints(type_)
    return frozenset(
        encoded
        for name, encoded in zip(type_.__struct_fields__, type_.__struct_encode_fields__, strict=True)
        if get_origin(hints[name]) is list
    )


async def read_body(endpoint: Endpoint, decoder: msgspec.json.Decoder[Any], request: Request) -> Any:
    """The body of a request. Raises RequestRefused."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    content = await _content(request)
    if not content and _may_be_empty(endpoint.body):
        content = b"{}"
    elif media not in ("application/json", ""):
        raise RequestRefused(415, "NoJson", f"the body is said to be {media}", "send application/json")
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        said = f"nested more than {MOST_NESTING} times" if isinstance(error, RecursionError) else str(error)
        raise not_understood(f"body: {said}") from None


def _may_be_empty(type_: type[msgspec.Struct]) -> bool:
    return all(
        field.default is not msgspec.NODEFAULT or field.default_factory is not msgspec.NODEFAULT
        for field in msgspec.structs.fields(type_)
    )


async def _content(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MOST_BYTES:
        raise _too_large()
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise RequestRefused(
            408, "TooSlow", f"the body did not end within {BODY_SECONDS:g} s", "send it again", Connection="close"
        ) from None
    return bytes(content)


def _too_large() -> RequestRefused:
    return RequestRefused(
        413,
        "TooLarge",
        f"the body has more than {MOST_BYTES:,} bytes",
        "write large values to a file",
        Connection="close",
    )
