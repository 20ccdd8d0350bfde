"""Ask a remote store many things: several at a time, each costs a round trip, and no more than it puts up with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

#: so many times what is under way may wait to be taken: a slow answer holds the others up no sooner, and what a year of
#: a ledger answers is never in memory all at once
AHEAD = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


def concurrent_map(most: int, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item, in their order, `most` at a time. Raises what it raises, and asks for nothing then."""
    most = min(most, len(items))
    if most < 2:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(most, thread_name_prefix="requests")
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
