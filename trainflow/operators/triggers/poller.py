"""One look serves all who wait for the same thing.

Forty models that follow one table would list it forty times a second. Here those who wait under the same key share one
task that looks, at the pace of the most impatient of them, and tells all of them at once. Whatever is asked must be a
question about how things *are* (not about what has changed): the answer then holds for one who joined a moment ago too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

#: the answer, or None: not yet
Look = Callable[[], Awaitable[Any]]


class SharedPoller:
    """The looks of one event loop, by key. Use it only from the thread of that loop."""

    def __init__(self) -> None:
        self._rounds: dict[Hashable, _Rounds] = {}

    async def wait(self, key: Hashable, look: Look, interval_seconds: float) -> Any:
        """Wait until `look` answers something that is not None; raises what it raises.

        Looks at once when nothing waits under `key` yet. Only the first one's `look` is called.
        """
        rounds = self._rounds.get(key)
        if rounds is None:
            rounds = self._rounds[key] = _Rounds(look, forget=lambda: self._forget(key, rounds))
        return await rounds.join(interval_seconds)

    def _forget(self, key: Hashable, rounds: Any) -> None:
        if self._rounds.get(key) is rounds:
            del self._rounds[key]

    def __len__(self) -> int:
        """How many different things are looked at."""
        return len(self._rounds)


class _Rounds:
    """Looks again and again for those who have joined."""

    def __init__(self, look: Look, forget: Callable[[], None]) -> None:
        self._look = look
        self._forget = forget
        self._waiting: dict[asyncio.Future[Any], float] = {}
        self._task: asyncio.Task[None] | None = None

    async def join(self, interval_seconds: float) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = interval_seconds
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            return await answer
        finally:
            del self._waiting[answer]
            if not self._waiting:
                self._forget()
                self._task.cancel()

    async def _run(self) -> None:
        try:
            while (answer := await self._look()) is None:
                await asyncio.sleep(min(self._waiting.values()))
        except (Exception, SystemExit) as error:  # it belongs to those who wait: each raises it as its own
            self._forget()
            for future in self._unanswered():
                future.set_exception(error)
        else:
            # what comes now begins a new round
            self._forget()
            for future in self._unanswered():
                future.set_result(answer)

    def _unanswered(self) -> list[asyncio.Future[Any]]:
        return [future for future in self._waiting if not future.done()]


_POLLERS: dict[int, tuple[asyncio.AbstractEventLoop, SharedPoller]] = {}


def shared_poller() -> SharedPoller:
    """The poller of the running event loop."""
    loop = asyncio.get_running_loop()
    for number, (other, _) in list(_POLLERS.items()):
        if other.is_closed():
            del _POLLERS[number]
    return _POLLERS.setdefault(id(loop), (loop, SharedPoller()))[1]
