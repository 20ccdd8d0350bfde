"""Metrics in the text format of Prometheus (0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from trainflow.observability.store_requests import BOUNDS, StoreUse, summed

Labels = Mapping[str, str]


@dataclass(frozen=True)
class MetricFamily:
    """All series of one name. `says`: one sentence about them."""

    name: str
    kind: Literal["counter", "gauge", "summary", "histogram"]
    says: str
    #: (suffix of the name, labels, value)
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float | None, suffix: str = "", **labels: str) -> None:
        """One more series; none where the value is not known."""
        if value is not None:
            self.samples.append((suffix, labels, value))


def prometheus_text(families: Iterable[MetricFamily]) -> str:
    """All of them. Of families that have the same name, and of series that have the same labels, the first counts: a
    server refuses everything when one comes twice."""
    written: set[str] = set()
    lines: list[str] = []
    for family in families:
        if family.name not in written:
            written.add(family.name)
            lines += _lines(family)
    return "\n".join(lines) + "\n"


def _lines(family: MetricFamily) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped(family.says, quoted=False)}"
    yield f"# TYPE {family.name} {family.kind}"
    written: set[str] = set()
    for suffix, labels, value in family.samples:
        series = f"{family.name}{suffix}{_text_of(labels)}"
        if series not in written:
            written.add(series)
            yield f"{series} {_number(value)}"


def _text_of(labels: Labels) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + inside + "}" if inside else ""


def _number(value: float) -> str:
    # twelve digits tell the milliseconds of a moment; a count has all of its own
    return str(value) if isinstance(value, int) else f"{value:.13g}"


def _escaped(value: str, *, quoted: bool = True) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n")
    return value.replace('"', '\\"') if quoted else value


def store_families(uses: Iterable[StoreUse]) -> list[MetricFamily]:
    """What was asked of stores."""
    seconds = MetricFamily("trainflow_store_request_seconds", "histogram", "How long calls of stores took.")
    requests = MetricFamily("trainflow_store_requests_total", "counter", "Requests to stores.")
    sizes = MetricFamily(
        "trainflow_store_bytes_total", "counter", "Bytes of contents sent to stores and received from them."
    )
    errors = MetricFamily(
        "trainflow_store_errors_total", "counter", "Calls of stores that were refused or lost, by kind."
    )
    for use in summed(uses):
        labels = {"op": use.op, "store": use.store}
        _add_histogram(seconds, use, labels)
        requests.add(use.requests, **labels)
        sizes.add(use.bytes_sent, **labels, direction="sent")
        sizes.add(use.bytes_received, **labels, direction="received")
        for kind, count in sorted(use.errors.items()):
            errors.add(count, **labels, kind=kind)
    return [seconds, requests, sizes, errors]


def _add_histogram(family: MetricFamily, use: StoreUse, labels: Labels) -> None:
    reached = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), use.calls, strict=True):
        reached += count
        family.add(reached, "_bucket", **labels, le=bound)
    family.add(use.seconds, "_sum", **labels)
    family.add(sum(use.calls), "_count", **labels)
