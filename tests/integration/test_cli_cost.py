"""`audit --cost` and `samples check --cost`: what they have asked is what the server was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.integration.cli_history import YAML, History
from tests.support.local_object_stores import LocalS3, RequestLog, logged_s3
from trainflow.observability.store_requests import REQUESTS
from trainflow.storage.urls import open_store
from trainflow.testing.chains import ChainWriter


@pytest.fixture(scope="module")
def logged() -> Iterator[tuple[LocalS3, RequestLog]]:
    with logged_s3() as server:
        yield server


@pytest.fixture
def history(inside: Callable[..., History]) -> History:
    REQUESTS.clear()
    return inside(History, {"pipelines/flights.yaml": YAML})


@pytest.fixture
def asked(history: History, logged: tuple[LocalS3, RequestLog], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the server was asked since there is a chain of three checkpoints in a bucket."""
    s3, log = logged
    url = f"s3://{s3.make_bucket()}/checkpoints"
    options = {"endpoint_url": s3.endpoint, "key": "a", "secret": "b"}
    monkeypatch.setenv("TRAINFLOW__CHECKPOINTS__STORE", url)
    monkeypatch.setenv("TRAINFLOW__CHECKPOINTS__STORAGE_OPTIONS", json.dumps(options))
    writer = ChainWriter(open_store(url, storage_options=options), history.root / "scratch")
    for _ in range(3):
        writer.commit(files={"model": b"12345"})
    log.asked.clear()
    REQUESTS.clear()
    return log.asked


def test_audit_tells_what_it_asked_and_what_the_chain_keeps(
    history: History, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    history.json("audit", "flights")
    alone = len(asked)
    asked.clear()
    REQUESTS.clear()
    monkeypatch.setenv("TRAINFLOW__PRICES__WRITE_REQUESTS", "1000")
    monkeypatch.setenv("TRAINFLOW__PRICES__STORAGE_GB_MONTH", "1e9")
    report = history.json("audit", "flights", "--cost")
    cost, [chain] = report["cost"], report["chain_costs"]
    assert (cost["requests"], cost["errors"], cost["unpriced"]) == (alone, 0, [])
    assert cost["writes"] + cost["reads"] == alone
    assert cost["price"] == cost["writes"]
    assert (chain["kept_checkpoints"], chain["kept_bytes"]) == (3, 15)
    assert chain["kept_price_a_month"] == pytest.approx(15)
    assert (chain["garbage_bytes"], chain["run"], chain["runs_a_day"], chain["price_a_month"]) == (0, None, 1.0, None)


def test_cost_without_a_price_names_the_setting(history: History, asked: list[str]) -> None:
    code, out = history.run("audit", "flights", "--cost")
    assert code == 0
    assert "set [prices]" in out
    assert "3 checkpoints, 15 B" in out
    report = history.json("audit", "flights", "--cost")
    assert report["cost"]["price"] is None
    assert len(report["cost"]["unpriced"]) == 1


def test_check_of_samples_tells_what_it_asked(history: History, asked: list[str]) -> None:
    report = history.json("samples", "check", "flights", "2013-01-02", "--cost", code=1)
    assert report["cost"]["requests"] == len(asked) > 0
    assert report["cost"]["bytes_received"] > 0


def test_chain_on_this_machine_costs_nothing(history: History) -> None:
    history.main.commit()
    report = history.json("audit", "flights", "--cost")
    assert (report["cost"]["requests"], report["cost"]["price"]) == (0, 0.0)
    assert report["chain_costs"][0]["price_a_month"] == 0.0
    assert "no store in the network was asked" in history.run("audit", "flights", "--cost")[1]


def test_cost_of_a_lineage_is_refused_and_not_passed_over(history: History) -> None:
    code, out = history.run("audit", "flights", "--lineage", "head", "--cost")
    assert code == 2
    assert "leave out --lineage, or --cost" in out
