"""Maps of which several calls are under way at a time: over threads, for requests to a remote store, bounded in flight
and in answers held; over copies of this process, for work that keeps a processor busy and of which the answers alone
are wanted."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

import msgspec

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


# -- over copies of this process --------------------------------------------------------------------------------------


def usable_processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Copy(NamedTuple):
    """A copy of this process, and the descriptor of the pipe that its answers come out of."""

    pid: int
    pipe: int


def forked_map(
    processes: int,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    answers: type[list[Result]],
) -> list[Result]:
    """`function` of each item, in the order of `items`: every process, this one too, takes each `processes`-th of them.
    Raises what `function` raises.

    `answers`: the type of a list of what `function` returns, which msgspec writes and reads. What a copy has not
    answered (it failed, it was killed, none could be made) is asked here. `function` has no effect but its answer. A
    process with several threads is not copied: a lock that another thread holds would be held in the copy for ever.
    """
    shares = min(processes, len(items)) if threading.active_count() == 1 else 1
    if shares < 2:
        return [function(item) for item in items]
    copies: dict[int, _Copy] = {}
    try:
        for number in range(1, shares):
            copy = _forked(function, items[number::shares])
            if copy is not None:
                copies[number] = copy
        found = {
            number: [function(item) for item in items[number::shares]]
            for number in range(shares)
            if number not in copies
        }
        found |= {number: _read(copy, answers) for number, copy in copies.items()}
    finally:
        for copy in copies.values():
            _end(copy)
    return [
        share[place] if place < len(share := found[number % shares]) else function(item)
        for number, item in enumerate(items)
        for place in [number // shares]
    ]


def _forked(function: Callable[[Item], Result], items: Sequence[Item]) -> _Copy | None:
    """A copy that answers for the items; None: no process or no descriptor is free."""
    ends: tuple[int, ...] = ()
    try:
        ends = os.pipe()
        pid = os.fork()
    except OSError:
        for end in ends:
            os.close(end)
        return None
    reading, writing = ends
    if pid == 0:
        _answer(function, items, writing)
    os.close(writing)
    return _Copy(pid, reading)


def _answer(function: Callable[[Item], Result], items: Sequence[Item], writing: int) -> NoReturn:
    """What a copy does. It ends at once, whatever happens: what it would clean up is not its own."""
    try:
        with open(writing, "wb") as pipe:
            pipe.write(msgspec.msgpack.encode([function(item) for item in items]))
    finally:
        os._exit(0)


def _read(copy: _Copy, answers: type[list[Result]]) -> list[Result]:
    """The answers of a copy; none of one that ended before it had all."""
    with open(copy.pipe, "rb", closefd=False) as pipe:
        data = pipe.read()
    try:
        return msgspec.msgpack.decode(data, type=answers)
    except msgspec.DecodeError:
        return []


def _end(copy: _Copy) -> None:
    os.close(copy.pipe)
    try:
        os.kill(copy.pid, signal.SIGKILL)
        os.waitpid(copy.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # something else in this process waits for every child
