"""A map over several threads, for requests to a remote store: bounded in flight and in answers held."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

#: answers held that were not taken yet, as a multiple of the requests in flight: one slow answer does not hold up the
#: others, and the answers about a long ledger are never all in memory
AHEAD = 2
_LOOKS_UP_SECONDS = 0.2

Item = TypeVar("Item")
Result = TypeVar("Result")


def concurrent_map(most: int, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item, in the order of `items`, at most `most` calls at a time. Raises what `function`
    raises, and begins no further call then."""
    most = min(most, len(items))
    if most < 2:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(most, thread_name_prefix="requests")
    asked: deque[Future[Result]] = deque()
    wait = True
    try:
        for item in items:
            if len(asked) == most * AHEAD:
                yield _result(asked.popleft())
            asked.append(pool.submit(function, item))
        while asked:
            yield _result(asked.popleft())
    except BaseException as error:
        # what is under way when a signal is handled may take as long as it likes
        wait = isinstance(error, Exception | GeneratorExit)
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


def _result(asked: Future[Result]) -> Result:
    """The result, waited for by who looks up now and then: a signal may be delivered to another thread than the main
    one, which handles it only then."""
    from concurrent.futures import wait

    while not asked.done():
        wait([asked], timeout=_LOOKS_UP_SECONDS)
    return asked.result()
