"""What requests to stores cost: counted always, in money where a price is set or known.

Prices are those of the setting `[prices]`, which then hold for every store in the network, else the list prices of the
services themselves; a server with an endpoint of its own has none. What is on this machine costs nothing.

A chain costs the bytes that it keeps, of which a sweep would free some, and what its runs ask of its store.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

import msgspec

from trainflow.checkpoints.chain import OfChain
from trainflow.checkpoints.ledger.entries import folder_of_source
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.checkpoints.upkeep.shared_files import checkpoints_with_sources
from trainflow.errors import CheckpointError
from trainflow.metadata.queries import attempt_queries, run_queries
from trainflow.observability.store_requests import CREATE, REQUESTS, StoreUse, Totals, summed, totals
from trainflow.samples.spec import Samples
from trainflow.settings.model import PriceSettings
from trainflow.states import DagRunState
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain


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


#: so many of the newest runs are looked at for what one asks
_RUNS = 10
_DAY_SECONDS, _MONTH_DAYS = 86_400, 30.44
_FREE = Price(0.0, 0.0, 0.0, "USD", "on this machine")


class RunCost(msgspec.Struct, frozen=True):
    """What one run asks of stores: the mean of `runs` that committed lately."""

    runs: int
    requests: float
    writes: float
    reads: float
    bytes_sent: float
    bytes_received: float
    price: float | None


class ChainCost(OfChain, frozen=True, kw_only=True):
    """What a chain keeps and asks. Prices are None where they are not known; `garbage_*` where the ledger cannot be
    read whole. `runs_a_day`: one for each partition; `price_a_month` is of its runs and of what it keeps."""

    kept_checkpoints: int
    kept_bytes: int
    garbage_files: int | None
    garbage_bytes: int | None
    currency: str | None
    price_source: str | None
    kept_price_a_month: float | None
    #: None: no run that committed is known, or none asked anything of a store in the network
    run: RunCost | None
    runs_a_day: float | None
    price_a_day: float | None
    price_a_month: float | None


def chain_costs(file: OpenedPipeline, stage: str | None, branch: str | None, now: datetime) -> list[ChainCost]:
    """The chains that are meant. Raises InputError, LedgerCorrupt, StoreFailure."""
    return [_chain_cost(chain, now) for chain in file.chosen(stage, branch)]


def _chain_cost(chain: PipelineChain, now: datetime) -> ChainCost:
    ledger, prices = chain.ledger(), chain.workspace.settings.prices
    kept = stored_bytes(ledger)
    price = _price_of(ledger, prices)
    run = run_cost(_uses_of_runs(chain), prices)
    runs_a_day = _runs_a_day(chain.samples)
    stored = None if price is None else kept / 1e9 * price.storage_gb_month
    a_day = None if run is None or run.price is None or runs_a_day is None else run.price * runs_a_day
    if not ledger.store.remote:
        a_day = 0.0
    files, bytes_ = _garbage(ledger, chain, now)
    return ChainCost(
        **ledger.chain.names,
        kept_checkpoints=len(ledger.kept()),
        kept_bytes=kept,
        garbage_files=files,
        garbage_bytes=bytes_,
        currency=price.currency if price else None,
        price_source=price.source if price else None,
        kept_price_a_month=stored,
        run=run,
        runs_a_day=runs_a_day,
        price_a_day=a_day,
        price_a_month=None if a_day is None or stored is None else a_day * _MONTH_DAYS + stored,
    )


def stored_bytes(ledger: Ledger) -> int:
    """Bytes of the files that kept checkpoints have; those that several of them have count once."""
    kept = ledger.kept()
    folders = {ledger.chain.attempt(each.id) for each in kept}
    own = sum(each.size for each in kept if not each.owners)
    elsewhere: dict[str, int] = {}
    for checkpoint in checkpoints_with_sources(ledger, kept):
        for file in checkpoint.artifacts.files:
            if not file.source:
                own += file.size
            elif folder_of_source(file.source) not in folders:
                elsewhere[file.source] = file.size
    return own + sum(elsewhere.values())


def _garbage(ledger: Ledger, chain: PipelineChain, now: datetime) -> tuple[int | None, int | None]:
    with suppress(CheckpointError):
        living, ended = chain.workspace.living_attempts(), chain.workspace.ended_attempts()
        found = sweep_garbage(ledger, now, living=living, ended=ended, dry_run=True)
        return sum(each.files for each in found), sum(each.size for each in found)
    return None, None


def _price_of(ledger: Ledger, prices: PriceSettings) -> Price | None:
    if not ledger.store.remote:
        return _FREE
    bucket = ledger.store.url.partition("://")[2].partition("/")[0].partition("@")[0]
    # its requests were named when they were made: by its endpoint, where it has one of its own
    names = {each.store for each in REQUESTS.use() if each.store.rpartition("/")[2] == bucket}
    return price_of(min(names, default=ledger.store.url), prices)


def _runs_a_day(samples: Samples | None) -> float | None:
    if samples is None:
        return None
    return _DAY_SECONDS / (samples.length_seconds or samples.length_months * _MONTH_DAYS * _DAY_SECONDS)


def _uses_of_runs(chain: PipelineChain) -> list[list[StoreUse]]:
    """What each of the newest runs asked that has committed something."""
    database = chain.workspace.existing_database
    if database is None:
        return []
    with database.reading() as connection:
        rows = run_queries.listing(connection, [chain.dag_id], 2 * _RUNS, DagRunState.SUCCESS)
        found = attempt_queries.store_use_by_run(connection, [row.id for row in rows])
    committed = [uses for uses in found.values() if any(each.op == CREATE for each in uses)]
    return committed[:_RUNS]


def run_cost(runs: list[list[StoreUse]], prices: PriceSettings) -> RunCost | None:
    """The mean of what runs asked."""
    if not runs:
        return None
    costs = [cost_of(uses, prices) for uses in runs]

    def mean(values: Iterable[float]) -> float:
        return round(sum(values) / len(costs), 9)

    known = [each.price for each in costs if each.price is not None]
    return RunCost(
        runs=len(costs),
        requests=mean(each.requests for each in costs),
        writes=mean(each.writes for each in costs),
        reads=mean(each.reads for each in costs),
        bytes_sent=mean(each.bytes_sent for each in costs),
        bytes_received=mean(each.bytes_received for each in costs),
        price=mean(known) if len(known) == len(costs) else None,
    )
