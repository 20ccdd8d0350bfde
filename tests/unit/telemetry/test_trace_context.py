"""How one trace goes from process to process: W3C's header, read by OpenTelemetry's own SDK."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trainflow.telemetry.trace_context import TracedRun, TraceParent, parent_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (GIVEN, TraceParent(TRACE, SPAN, True)),
        (f" {GIVEN} ", TraceParent(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", TraceParent(TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", TraceParent(TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-what-is-to-be", TraceParent(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01\n00-{TRACE}-{SPAN}-01", None),
        ("\u0660\u0660-" + GIVEN[3:], None),
        ("", None),
        (None, None),
    ],
)
def test_parent_of_header_is_what_w3c_says(header: str | None, found: TraceParent | None) -> None:
    assert parent_of(header) == found


def test_run_that_was_asked_for_in_a_span_is_of_its_trace() -> None:
    run, asked = TracedRun("d", "r", 0), TracedRun("d", "r", 0, parent_of(GIVEN))
    assert (asked.trace_id, asked.span_id()) == (TRACE, run.span_id())
    assert run.trace_id != TRACE
    assert asked.traceparent("a") == f"00-{TRACE}-{run.span_id('a')}-01"


def test_cleared_run_has_spans_of_its_own_in_the_same_trace() -> None:
    first, again = (TracedRun("d", "r", number, parent_of(GIVEN)) for number in (0, 1))
    assert first.trace_id == again.trace_id
    assert first.span_id() != again.span_id()


def test_run_of_trace_that_is_not_kept_is_not_kept() -> None:
    run = TracedRun("d", "r", 0, parent_of(f"00-{TRACE}-{SPAN}-00"))
    assert not run.is_sampled
    assert run.traceparent("a").endswith("-00")


def test_spans_of_a_task_hang_under_its_attempt() -> None:
    """What a trainer does with its environment, by OpenTelemetry's own SDK."""
    run, exporter = TracedRun("d", "r", 0), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    given = TraceContextTextMapPropagator().extract({"traceparent": run.traceparent("a1")})
    with provider.get_tracer("trainer").start_as_current_span("epoch", given):
        pass
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == run.trace_id
    assert f"{span.parent.span_id:016x}" == run.span_id("a1")
