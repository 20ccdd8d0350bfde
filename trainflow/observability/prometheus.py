"""What was asked of stores, as metrics in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from trainflow.observability.store_requests import BOUNDS, StoreUse, summed


def prometheus_text(uses: Iterable[StoreUse]) -> str:
    """The counts in the text format of Prometheus."""
    uses = summed(uses)
    lines = ["# HELP trainflow_store_request_seconds How long calls of stores took.",
             "# TYPE trainflow_store_request_seconds histogram"]  # fmt: skip
    for each in uses:
        lines += _histogram(each)
    lines += _counter(
        "trainflow_store_requests_total", "Requests to stores.", [({}, use, use.requests) for use in uses]
    )
    lines += _counter(
        "trainflow_store_bytes_total",
        "Bytes of contents sent to stores and received from them.",
        [
            ({"direction": direction}, use, count)
            for use in uses
            for direction, count in (("sent", use.bytes_sent), ("received", use.bytes_received))
        ],
    )
    errors = [({"kind": kind}, use, count) for use in uses for kind, count in sorted(use.errors.items())]
    lines += _counter("trainflow_store_errors_total", "Calls of stores that were refused or lost.", errors)
    return "\n".join(lines) + "\n"


def _histogram(use: StoreUse) -> Iterator[str]:
    name, reached = "trainflow_store_request_seconds", 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), use.calls, strict=True):
        reached += count
        yield f"{name}_bucket{_labels(use, {'le': bound})} {reached}"
    yield f"{name}_sum{_labels(use, {})} {use.seconds:g}"
    yield f"{name}_count{_labels(use, {})} {sum(use.calls)}"


def _counter(name: str, says: str, values: Iterable[tuple[dict[str, str], StoreUse, Any]]) -> Iterator[str]:
    yield f"# HELP {name} {says}"
    yield f"# TYPE {name} counter"
    for labels, use, value in values:
        yield f"{name}{_labels(use, labels)} {value}"


def _labels(use: StoreUse, more: dict[str, str]) -> str:
    labels = {"op": use.op, "store": use.store, **more}
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
