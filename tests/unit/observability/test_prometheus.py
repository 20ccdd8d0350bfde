"""Metrics in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from trainflow.observability.prometheus import MetricFamily, prometheus_text, store_families
from trainflow.observability.store_requests import BOUNDS, StoreUse

ODD = 's3://a"\\\n'


def samples_of(text: str) -> dict[str, float]:
    """Each series as Prometheus's own client reads it."""
    return {
        f"{sample.name}{dict(sample.labels)}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_store_families_are_cumulative_and_escaped() -> None:
    calls = (1, 2, *[0] * (len(BOUNDS) - 2), 1)
    use = StoreUse(ODD, "read", 4, 1, 2, 1.5, calls, {"denied": 1})
    found = samples_of(prometheus_text(store_families([use])))
    labels = {"op": "read", "store": ODD}
    seconds = "trainflow_store_request_seconds"
    assert found[f"{seconds}_bucket{ {**labels, 'le': '0.005'} }"] == 1
    assert found[f"{seconds}_bucket{ {**labels, 'le': '30.0'} }"] == 3
    assert found[f"{seconds}_bucket{ {**labels, 'le': '+Inf'} }"] == 4 == found[f"{seconds}_count{labels}"]
    assert found[f"{seconds}_sum{labels}"] == 1.5
    assert found[f"trainflow_store_requests_total{labels}"] == 4
    assert found[f"trainflow_store_bytes_total{ {**labels, 'direction': 'received'} }"] == 2
    assert found[f"trainflow_store_errors_total{ {**labels, 'kind': 'denied'} }"] == 1


def test_prometheus_text_of_families_without_series_names_each() -> None:
    assert prometheus_text(store_families([])).count("# TYPE") == 4


def test_prometheus_text_writes_a_series_and_a_family_once() -> None:
    family = MetricFamily("a", "gauge", "Says.")
    family.add(1, x="1")
    family.add(2, x="1")
    family.add(None, x="2")
    assert prometheus_text([family, family]).splitlines() == ["# HELP a Says.", "# TYPE a gauge", 'a{x="1"} 1']


def test_prometheus_text_keeps_milliseconds_of_a_moment_and_all_of_a_count() -> None:
    family = MetricFamily("a", "gauge", "Says.")
    family.add(1767225600.123, x="moment")
    family.add(2**60, x="count")
    assert prometheus_text([family]).splitlines()[2:] == ['a{x="moment"} 1767225600.123', f'a{{x="count"}} {2**60}']
