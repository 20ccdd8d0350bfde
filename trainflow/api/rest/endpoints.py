"""What an endpoint is: a function with its path, its role, and the types of what goes in and out; answers in parts.

The types are all there is: what a request may hold is checked by them, the OpenAPI document is made of them, and so is
the table that tests walk through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

import msgspec

from trainflow.api.authentication import Caller
from trainflow.checkpoints.ledger.entries import Author
from trainflow.metadata.queries.token_queries import Role
from trainflow.workspace.workspace import Workspace

JSON = "application/json"
NDJSON = "application/x-ndjson"
BYTES = "application/octet-stream"

#: a path parameter, and whether it takes slashes
_PARAMETER = re.compile(r"{(\w+)(:path)?}")

Q = TypeVar("Q")
B = TypeVar("B")


class Polled(NamedTuple):
    """Parts of an answer that come with time. `look` returns the next part, and whether it is the last one; it is
    called again after `interval` seconds. What `look` raises before the first part is a problem like any other."""

    media: str
    look: Callable[[], tuple[bytes, bool]]
    interval: float


class AnswerFile(NamedTuple):
    """A file as an answer: `size` in bytes, `read` its content from one byte up to another, in pieces; `name`: of the
    file that a browser makes of it."""

    media: str
    size: int
    read: Callable[[int, int], Iterator[bytes]]
    name: str
    etag: str


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameter behind the path."""


class DryRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A body of what destroys or decides: unless `dry_run` is false, it is only said what would be done."""

    dry_run: bool = True


@dataclass(frozen=True)
class ApiCall(Generic[Q, B]):
    """One request, checked. `path`: the parameters of the path."""

    workspace: Workspace
    now: datetime
    caller: Caller
    path: Mapping[str, str]
    query: Q
    body: B
    #: what the request would rather have as an answer
    accept: str = JSON
    #: the span that the request is a part of, as W3C's header says it; empty: not said
    traceparent: str = ""

    @property
    def author(self) -> Author:
        """Who acts, as a ledger records it."""
        return Author(hostname=self.caller.address, person=self.caller.name)


@dataclass(frozen=True)
class Endpoint:
    """One method of one path. `answer`: None: 204 without a body; `media`: of its answers."""

    method: str
    path: str
    role: Role
    tag: str
    handler: Callable[[ApiCall[Any, Any]], Any]
    query: type[msgspec.Struct]
    body: Any
    answer: Any
    media: tuple[str, ...] = (JSON,)
    #: of an answer with a body
    success: int = 200
    #: Airflow has it, with this path and these shapes
    is_airflows: bool = False
    #: it says what another one would do, by the same method
    changes_nothing: bool = False
    #: a problem that this one may answer with, beside those of all
    statuses: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called in the document and in the event log."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """The first line of what is said of it."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]

    @property
    def description(self) -> str:
        """All that is said of it."""
        return "\n".join(line.strip() for line in (self.handler.__doc__ or "").strip().splitlines())

    @property
    def parameters(self) -> list[str]:
        """The names in its path."""
        return [name for name, _ in _PARAMETER.findall(self.path)]

    @property
    def documented_path(self) -> str:
        """The path as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.path)

    @property
    def writes(self) -> bool:
        """Whether it may change something."""
        return self.method not in ("GET", "HEAD") and not self.changes_nothing


Handler = TypeVar("Handler", bound=Callable[[ApiCall[Any, Any]], Any])


class EndpointGroup:
    """The endpoints of one noun, in the order in which they are written down."""

    def __init__(self, tag: str, *, is_airflows: bool = False) -> None:
        self.tag = tag
        self.is_airflows = is_airflows
        self.endpoints: list[Endpoint] = []

    def get(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what is read."""
        return self._endpoint("GET", path, {"role": Role.VIEWER, **options})

    def post(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what is done."""
        return self._endpoint("POST", path, {"role": Role.OPERATOR, **options})

    def patch(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what is changed."""
        return self._endpoint("PATCH", path, {"role": Role.OPERATOR, **options})

    def delete(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """Declare what takes something away."""
        return self._endpoint("DELETE", path, {"role": Role.ADMIN, **options})

    def _endpoint(self, method: str, path: str, options: dict[str, Any]) -> Callable[[Handler], Handler]:
        def declare(handler: Handler) -> Handler:
            query, body, answer = _types_of(handler)
            self.endpoints.append(
                Endpoint(
                    method,
                    path,
                    tag=self.tag,
                    handler=handler,
                    query=query,
                    body=body,
                    answer=answer,
                    is_airflows=self.is_airflows,
                    **options,
                )
            )
            return handler

        return declare


def _types_of(handler: Callable[..., Any]) -> tuple[type[msgspec.Struct], Any, Any]:
    """The types of the query, the body and the answer, as the function is annotated."""
    hints = get_type_hints(handler)
    query, body = hints["call"].__args__
    return query, None if body is type(None) else body, None if hints["return"] is type(None) else hints["return"]
