"""Metrics in the text format of Prometheus."""

from __future__ import annotations

from trainflow.observability.prometheus import prometheus_text
from trainflow.observability.store_requests import BOUNDS, StoreUse


def test_text_of_prometheus_is_cumulative_and_escaped() -> None:
    calls = (1, 2, *[0] * (len(BOUNDS) - 2), 1)
    text = prometheus_text([StoreUse('s3://a"\\\n', "read", 4, 1, 2, 1.5, calls, {"denied": 1})])
    label = 'op="read",store="s3://a\\"\\\\\\n"'
    lines = text.splitlines()
    assert f'trainflow_store_request_seconds_bucket{{{label},le="0.005"}} 1' in lines
    assert f'trainflow_store_request_seconds_bucket{{{label},le="30.0"}} 3' in lines
    assert f'trainflow_store_request_seconds_bucket{{{label},le="+Inf"}} 4' in lines
    assert f"trainflow_store_request_seconds_count{{{label}}} 4" in lines
    assert f"trainflow_store_request_seconds_sum{{{label}}} 1.5" in lines
    assert f"trainflow_store_requests_total{{{label}}} 4" in lines
    assert f'trainflow_store_bytes_total{{{label},direction="received"}} 2' in lines
    assert f'trainflow_store_errors_total{{{label},kind="denied"}} 1' in lines
    assert len(lines) == len(set(lines))


def test_text_of_nothing_names_every_metric() -> None:
    assert prometheus_text([]).count("# TYPE") == 4
