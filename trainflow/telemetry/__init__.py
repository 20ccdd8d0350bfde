"""Runs as traces of OpenTelemetry: run → attempt → wait, commit.

Reading order: `trace_context` (ids, and how one trace goes from process to process), `otlp` (what is told of a run,
what that is in OTLP's words, and where it goes).

Invariants
- A trace is told once its run has ended, from what is in the database: again, it has the same ids. An attempt is told
  the id of its span beforehand (TRACEPARENT), so that spans of its own hang under it.
- Nothing here is imported while `[telemetry]` is off, nor by an attempt.

A change breaks this when an id depends on the process that tells it, or when a library of OpenTelemetry is imported
before there is something to send.
"""
