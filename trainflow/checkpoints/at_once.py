"""Ask a store many things: several at a time where each costs a round trip, and no more than a store puts up with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from trainflow.checkpoints.store import Store

if TYPE_CHECKING:
    from concurrent.futures import Future

#: so many times what is under way may wait to be taken: a slow answer holds the others up no sooner, and what a year of
#: a ledger answers is never in memory all at once
AHEAD = 2

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
    asked: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(asked) == most * AHEAD:
                yield asked.popleft().result()
            asked.append(pool.submit(function, item))
        while asked:
            yield asked.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
