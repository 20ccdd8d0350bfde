"""What requests to stores cost: counted always, in money where a price is set or known.

Prices are those of the setting `[prices]`, which then hold for every store in the network, else the list prices of the
services themselves; a server with an endpoint of its own has none. What is on this machine costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from trainflow.observability.store_requests import REQUESTS, StoreUse, Totals, summed, totals
from trainflow.settings.model import PriceSettings


class Price(msgspec.Struct, frozen=True):
    """What a store asks for: for 1,000 requests of each class, and for a GB that lies there for a month."""

    write_requests: float
    read_requests: float
    storage_gb_month: float
    currency: str
    #: where that is from, for people
    source: str


#: of the services themselves, by the scheme of their URLs, as published in 2025; without transfer, which is free inside
#: of a region
LIST_PRICES = {
    "s3": Price(0.005, 0.0004, 0.023, "USD", "list price of 2025, S3 Standard in us-east-1"),
    "sftp": Price(0.0, 0.0, 0.0, "USD", "no requests are charged for over SFTP"),
    "gs": Price(0.005, 0.0004, 0.020, "USD", "list price of 2025, Cloud Storage Standard in us-central1"),
}


def price_of(store: str, settings: PriceSettings) -> Price | None:
    """The price of a store, named as its requests are (`StoreUse.store`); None: it is not known."""
    listed = LIST_PRICES.get(store.partition("://")[0])
    given = settings.write_requests, settings.read_requests, settings.storage_gb_month
    if all(each is None for each in given):
        return listed
    write, read, storage = (each or 0.0 for each in given)
    return Price(write, read, storage, settings.currency, "the setting [prices]")


class Cost(Totals, frozen=True, kw_only=True):
    """What requests came to. `price`: None where that of a store is not known (`unpriced` names those)."""

    price: float | None
    currency: str | None
    price_source: str | None
    unpriced: list[str]
    #: by store and kind of request
    requests_by_kind: list[StoreUse]


def cost_of(uses: Iterable[StoreUse], settings: PriceSettings) -> Cost:
    """Add requests up, with their price. Deletions are free everywhere."""
    uses = summed(uses)
    stores = sorted({each.store for each in uses})
    prices = {store: price_of(store, settings) for store in stores}
    known = [price for price in prices.values() if price is not None]
    unpriced = [store for store, price in prices.items() if price is None]
    return Cost(
        **msgspec.structs.asdict(totals(uses)),
        price=None if unpriced else sum(_price(store, uses, prices[store]) for store in stores),
        currency=known[0].currency if known else None,
        price_source="; ".join(dict.fromkeys(price.source for price in known)) or None,
        unpriced=unpriced,
        requests_by_kind=uses,
    )


def cost_so_far(settings: PriceSettings) -> Cost:
    """What this process has asked of stores."""
    return cost_of(REQUESTS.use(), settings)


def _price(store: str, uses: Iterable[StoreUse], price: Price | None) -> float:
    assert price is not None
    found = totals(each for each in uses if each.store == store)
    return (found.writes * price.write_requests + found.reads * price.read_requests) / 1000
