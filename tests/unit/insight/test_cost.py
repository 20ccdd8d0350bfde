"""What requests cost: counted always, priced where a price is set or known."""

from __future__ import annotations

import pytest

from trainflow.cli.render.costs import money
from trainflow.insight.cost import LIST_PRICES, cost_of, price_of, run_cost
from trainflow.observability.store_requests import StoreUse
from trainflow.settings.model import PriceSettings

NOTHING_SET = PriceSettings()
SET = PriceSettings(write_requests=10.0, read_requests=1.0, currency="EUR")


def uses(store: str) -> list[StoreUse]:
    return [
        StoreUse(store, "create", 2, 100),
        StoreUse(store, "delete", 50),
        StoreUse(store, "list", 1),
        StoreUse(store, "read", 4, 0, 700),
    ]


@pytest.mark.parametrize(
    ("store", "settings", "expected"),
    [
        ("s3://bucket", NOTHING_SET, (3 * 0.005 + 4 * 0.0004) / 1000),
        ("gs://bucket", NOTHING_SET, (3 * 0.005 + 4 * 0.0004) / 1000),
        ("http://127.0.0.1:9000/bucket", NOTHING_SET, None),
        ("az://container", NOTHING_SET, None),
        ("s3://bucket", SET, 0.034),
        ("http://127.0.0.1:9000/bucket", SET, 0.034),
    ],
)
def test_price_is_of_writes_and_reads_and_none_where_it_is_not_known(
    store: str, settings: PriceSettings, expected: float | None
) -> None:
    found = cost_of(uses(store), settings)
    assert found.price == (None if expected is None else pytest.approx(expected))
    assert found.unpriced == ([store] if expected is None else [])
    assert (found.requests, found.writes, found.reads, found.deletes) == (57, 3, 4, 50)


def test_price_of_several_stores_is_none_where_one_is_not_known() -> None:
    found = cost_of([*uses("s3://a"), *uses("http://b/c")], NOTHING_SET)
    assert (found.price, found.unpriced, found.currency) == (None, ["http://b/c"], "USD")
    both = cost_of([*uses("s3://a"), *uses("gs://b")], NOTHING_SET)
    assert both.price == pytest.approx(2 * (3 * 0.005 + 4 * 0.0004) / 1000)


def test_no_requests_cost_nothing() -> None:
    found = cost_of([], NOTHING_SET)
    assert (found.requests, found.price, found.currency) == (0, 0, None)


def test_one_price_that_is_set_holds_alone() -> None:
    only = price_of("s3://a", PriceSettings(storage_gb_month=0.01))
    assert only is not None
    assert (only.write_requests, only.read_requests, only.storage_gb_month) == (0.0, 0.0, 0.01)
    assert price_of("s3://a", NOTHING_SET) == LIST_PRICES["s3"]


def test_run_costs_the_mean_of_runs() -> None:
    found = run_cost([uses("s3://a"), [StoreUse("s3://a", "create", 3, 50)]], SET)
    assert found is not None
    assert (found.runs, found.requests, found.writes, found.reads) == (2, 30.0, 3.0, 2.0)
    assert (found.bytes_sent, found.bytes_received) == (75.0, 350.0)
    assert found.price == pytest.approx((0.034 + 0.03) / 2)
    assert run_cost([], SET) is None


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0, "0.00 USD"), (12.345, "12.35 USD"), (0.5, "0.50 USD"), (0.0123, "0.012 USD"), (0.000057, "0.000057 USD")],
)
def test_money_shows_two_digits_that_say_something(amount: float, expected: str) -> None:
    assert money(amount, "USD") == expected
