"""Heartbeats of attempts, written many at a time: a thousand attempts cost a few statements a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from trainflow.messages.workload import AttemptKey

#: how long a heartbeat waits for others
GATHER_SECONDS = 0.25

Write = Callable[[Collection[AttemptKey]], Awaitable[set[AttemptKey]]]


class HeartbeatBatches:
    """Gathers heartbeats, writes them together, and tells each whether its attempt is still waited for."""

    def __init__(self, write: Write) -> None:
        """`write` returns those that are waited for."""
        self._write = write
        self._gathered: set[AttemptKey] = set()
        self._batch: asyncio.Task[set[AttemptKey]] | None = None

    async def note(self, key: AttemptKey) -> bool:
        """Note one; returns whether the attempt is still waited for. Raises what `write` raises."""
        if self._batch is None:
            self._batch = asyncio.create_task(self._write_soon())
        self._gathered.add(key)
        # one whose worker hangs up takes no other one along
        return key in await asyncio.shield(self._batch)

    async def _write_soon(self) -> set[AttemptKey]:
        await asyncio.sleep(GATHER_SECONDS)
        keys, self._gathered, self._batch = self._gathered, set(), None
        return await self._write(keys)
