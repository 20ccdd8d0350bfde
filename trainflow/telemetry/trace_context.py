"""Ids of traces and spans, and W3C's `traceparent`, by which one trace goes from process to process. Pure.

An id follows from the name of what it is of: a task that runs knows the span under which its own spans belong, which is
told only once the run has ended.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from trainflow.identifiers import canonical_json

#: the variable in which a task finds its `traceparent`
VARIABLE = "TRACEPARENT"
_SAMPLED = 1
#: version 00 is read; of later ones, what 00 has of it
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceParent(NamedTuple):
    """The span that something was asked for in."""

    trace_id: str
    span_id: str
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.sampled else 0:02x}"


class TracedRun(NamedTuple):
    """A run by its name, and the span that it was asked for in (None: it begins a trace)."""

    dag_id: str
    run_id: str
    clear_number: int
    parent: TraceParent | None = None

    @property
    def trace_id(self) -> str:
        """Sixteen bytes in hexadecimal: of who asked for the run, else of its name."""
        return self.parent.trace_id if self.parent is not None else hashlib.sha256(self._name()).hexdigest()[:32]

    @property
    def is_sampled(self) -> bool:
        """Whether it is told: a trace whose beginning is not kept is not kept here, as the SDKs have it."""
        return self.parent is None or self.parent.sampled

    def span_id(self, *names: str | int) -> str:
        """Eight bytes in hexadecimal: of the run itself, or of something in it by its names."""
        return hashlib.sha256(self._name() + canonical_json(list(names))).hexdigest()[:16]

    def traceparent(self, attempt_id: str) -> str:
        """What an attempt is told, so that what it does hangs under its span."""
        return str(TraceParent(self.trace_id, self.span_id(attempt_id), self.is_sampled))

    def _name(self) -> bytes:
        return canonical_json([self.dag_id, self.run_id, self.clear_number])


def parent_of(traceparent: str | None) -> TraceParent | None:
    """What a header says; None: there is none, or it is not W3C's, which is to be ignored."""
    found = _FORM.fullmatch((traceparent or "").strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))
