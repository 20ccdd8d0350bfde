"""Ledgers that have lost entries."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Skip
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.testing.chains import DAY, day

CHAIN = ChainKey("flights")


LAST = 30


NOW = day(1000)


#: what lies beside the ledger
BESIDE = (CHAIN.mark, CHAIN.snapshots, CHAIN.pages)


Make = Callable[..., MemoryStore]


def skip_of(state: ChainState) -> Skip:
    edge = state.edge or day(0)
    parent_id = state.head.id if state.head else None
    return Skip(**state.header(Author(), NOW), parent_id=parent_id, start=edge, end=edge + DAY, reason="x")


def appends(store: MemoryStore) -> None:
    Ledger(store, CHAIN).append(skip_of)
