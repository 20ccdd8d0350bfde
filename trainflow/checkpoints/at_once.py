"""Ask a store many things: several at a time where each costs a round trip, and no more than a store puts up with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from trainflow.checkpoints.store import Store

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(store: Store, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item, in their order. Raises what it raises, and asks for nothing more then."""
    most = min(store.requests_at_once, len(items))
    if most < 2:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(most, thread_name_prefix="checkpoints")
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
