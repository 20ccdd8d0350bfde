"""Traces, as OpenTelemetry's own protobuf reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from trainflow.telemetry.otlp import RunTrace, TracedAttempt, protobuf_of, request_of

AT = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


WAITED = TracedAttempt(
    task_id="samples", role="samples", map_index=-1, try_number=1, attempt_id="a1", outcome="success",
    queued_at=at(0), started_at=at(1), ended_at=at(100), hostname="h", waits=[(at(2), at(99))],
)  # fmt: skip
LOST = TracedAttempt(
    task_id="train", role="train", map_index=-1, try_number=1, attempt_id="a2", outcome="lost",
    queued_at=at(100), started_at=at(100), ended_at=at(110), problem="killed; password=geheim",
)  # fmt: skip
COMMIT = TracedAttempt(
    task_id="commit", role="commit", map_index=-1, try_number=1, attempt_id="a3", outcome="success",
    queued_at=at(110), started_at=at(110), ended_at=at(111),
)  # fmt: skip
RUN = RunTrace(
    dag_id="flights", run_id="r1", clear_number=0, state="success", started_at=at(0), ended_at=at(111),
    attributes={"trainflow.chain": "flights/main/main", "trainflow.split.rows": 10, "share": 0.5},
    commit={"trainflow.checkpoint": 27}, attempts=[WAITED, LOST, COMMIT],
)  # fmt: skip


def read(run: RunTrace) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.ParseFromString(protobuf_of(request_of(run, {"service.name": "trainflow"})))
    return request


def test_trace_is_run_attempt_wait_and_commit() -> None:
    (resource,) = read(RUN).resource_spans
    assert [(each.key, each.value.string_value) for each in resource.resource.attributes] == [
        ("service.name", "trainflow")
    ]
    spans = list(resource.scope_spans[0].spans)
    names = {span.span_id: span.name for span in spans}
    assert [(span.name, names.get(span.parent_span_id, "")) for span in spans] == [
        ("trainflow.run", ""),
        ("trainflow.attempt", "trainflow.run"),
        ("trainflow.wait", "trainflow.attempt"),
        ("trainflow.wait", "trainflow.attempt"),
        ("trainflow.attempt", "trainflow.run"),
        ("trainflow.commit", "trainflow.run"),
    ]
    assert len(names) == len(spans)
    assert {span.trace_id.hex() for span in spans} == {RUN.named.trace_id}
    assert all(len(span.trace_id) == 16 and len(span.span_id) == 8 for span in spans)


def test_spans_have_times_to_the_microsecond_and_lie_inside_their_parents() -> None:
    spans = list(read(RUN).resource_spans[0].scope_spans[0].spans)
    first = spans[0]
    assert first.start_time_unix_nano == int(AT.timestamp()) * 10**9 + 123_456_000
    by_id = {span.span_id: span for span in spans}
    for span in spans[1:]:
        parent = by_id[span.parent_span_id]
        assert parent.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= parent.end_time_unix_nano
    waits = [(span.end_time_unix_nano - span.start_time_unix_nano) // 10**9 for span in spans if "wait" in span.name]
    assert waits == [1, 97]


def test_spans_say_what_went_wrong_and_no_secret() -> None:
    spans = list(read(RUN).resource_spans[0].scope_spans[0].spans)
    lost = next(span for span in spans if span.status.code == 2)
    assert "killed" in lost.status.message
    assert "geheim" not in str(spans)
    commit = next(span for span in spans if span.name == "trainflow.commit")
    assert {each.key: each.value.int_value for each in commit.attributes}["trainflow.checkpoint"] == 27


@pytest.mark.parametrize("change", [{"run_id": "r2"}, {"clear_number": 1}, {"dag_id": "other"}])
def test_trace_is_of_its_run_alone(change: dict[str, str | int]) -> None:
    assert msgspec.structs.replace(RUN, note="said later").named.trace_id == RUN.named.trace_id
    assert msgspec.structs.replace(RUN, **change).named.trace_id != RUN.named.trace_id
