"""Requests to stores, counted by the process that makes them: how many, of what kind, how many bytes, how long.

Attempts live shortly: what one has asked goes to the engine with its outcome, and is kept with the attempt in the
database. There it is summed up for a run, a chain, or all of them (`prometheus`).
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import msgspec

from trainflow.humanize import bytes_text, counted

#: what may be asked: services price the first four as writes, the next two as reads, and delete for nothing
LIST, CREATE, WRITE, UPLOAD = "list", "create", "write", "upload"
READ, HEAD = "read", "head"
DELETE = "delete"
WRITES = frozenset({LIST, CREATE, WRITE, UPLOAD})
READS = frozenset({READ, HEAD})
#: upper bounds of the histogram of how long a call takes, in seconds; what takes longer comes after the last
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class StoreUse(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was asked of one store by one kind of request. A call may be several requests (a long listing, a large
    file)."""

    #: scheme and bucket, or the endpoint and bucket where it has one of its own; without credentials
    store: str
    op: str
    requests: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    #: of all calls together
    seconds: float = 0.0
    #: calls by how long they took: one number for each of `BOUNDS`, and one for what took longer
    calls: tuple[int, ...] = ()
    #: calls that were refused or lost, by kind; what is not there or there already is an answer
    errors: dict[str, int] = {}


class _Counted:
    """What may still grow."""

    def __init__(self) -> None:
        self.requests = self.sent = self.received = 0
        self.seconds = 0.0
        self.calls = [0] * (len(BOUNDS) + 1)
        self.errors: dict[str, int] = {}


class Call:
    """One call that is under way; who makes it says what it came to."""

    def __init__(self, sent: int) -> None:
        self.requests = 1
        self.sent = sent
        self.received = 0


class StoreRequests:
    """The counts of one process. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Begin anew, as a process does that was forked: not while others count."""
        self._lock = threading.Lock()
        self._counted: dict[tuple[str, str], _Counted] = {}

    @contextmanager
    def call(
        self, store: str, op: str, kind_of: Callable[[BaseException], str | None], sent: int = 0
    ) -> Iterator[Call]:
        """Count what is done meanwhile. `kind_of` names an error; None: it is an answer."""
        made, began, error = Call(sent), self._clock(), None
        try:
            yield made
        except BaseException as raised:
            error = kind_of(raised)
            raise
        finally:
            self._add(store, op, made, self._clock() - began, error)

    def _add(self, store: str, op: str, made: Call, seconds: float, error: str | None) -> None:
        with self._lock:
            counted = self._counted.setdefault((store, op), _Counted())
            counted.requests += made.requests
            counted.sent += made.sent
            counted.received += made.received
            counted.seconds += seconds
            counted.calls[bisect_left(BOUNDS, seconds)] += 1
            if error is not None:
                counted.errors[error] = counted.errors.get(error, 0) + 1

    def use(self) -> list[StoreUse]:
        """What was counted so far."""
        with self._lock:
            return _uses(self._counted)

    def take(self) -> list[StoreUse]:
        """What was counted since the last time; what other threads count meanwhile is in the next one."""
        with self._lock:
            counted, self._counted = self._counted, {}
        return _uses(counted)


def _uses(counted: Mapping[tuple[str, str], _Counted]) -> list[StoreUse]:
    return [
        StoreUse(
            store, op, each.requests, each.sent, each.received,
            round(each.seconds, 6), tuple(each.calls), dict(each.errors),
        )
        for (store, op), each in sorted(counted.items())
    ]  # fmt: skip


#: of this process
REQUESTS = StoreRequests()
os.register_at_fork(after_in_child=REQUESTS.clear)


def summed(uses: Iterable[StoreUse]) -> list[StoreUse]:
    """One for each store and kind of request."""
    found: dict[tuple[str, str], StoreUse] = {}
    for each in uses:
        known = found.get((each.store, each.op))
        found[each.store, each.op] = each if known is None else _added(known, each)
    return [found[key] for key in sorted(found)]


def _added(one: StoreUse, other: StoreUse) -> StoreUse:
    longest = max(len(one.calls), len(other.calls))
    pairs = zip(*(each.calls + (0,) * (longest - len(each.calls)) for each in (one, other)), strict=True)
    kinds = sorted({*one.errors, *other.errors})
    return StoreUse(
        one.store,
        one.op,
        one.requests + other.requests,
        one.bytes_sent + other.bytes_sent,
        one.bytes_received + other.bytes_received,
        round(one.seconds + other.seconds, 6),
        tuple(first + second for first, second in pairs),
        {kind: one.errors.get(kind, 0) + other.errors.get(kind, 0) for kind in kinds},
    )


class Totals(msgspec.Struct, frozen=True):
    """What requests come to, whatever store they went to. `writes`: PUT, COPY, POST and LIST, which services price
    together; `reads`: GET and HEAD; `deletes` are free."""

    requests: int
    writes: int
    reads: int
    deletes: int
    bytes_sent: int
    bytes_received: int
    seconds: float
    errors: int


def totals(uses: Iterable[StoreUse]) -> Totals:
    """Add up."""
    uses = list(uses)

    def of(ops: frozenset[str]) -> int:
        return sum(each.requests for each in uses if each.op in ops)

    return Totals(
        requests=sum(each.requests for each in uses),
        writes=of(WRITES),
        reads=of(READS),
        deletes=of(frozenset({DELETE})),
        bytes_sent=sum(each.bytes_sent for each in uses),
        bytes_received=sum(each.bytes_received for each in uses),
        seconds=round(sum(each.seconds for each in uses), 6),
        errors=sum(sum(each.errors.values()) for each in uses),
    )


def sentence_about(uses: Iterable[StoreUse]) -> str:
    """How much that is, for people."""
    return sentence_of(totals(uses))


def sentence_of(found: Totals) -> str:
    """The same of what was added up before."""
    bytes_ = bytes_text(found.bytes_sent + found.bytes_received)
    refused = f", {counted(found.errors, 'refusal')}" if found.errors else ""
    return f"{counted(found.requests, 'request')}, {bytes_}, {found.seconds:.2f} s{refused}"
