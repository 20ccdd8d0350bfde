"""Connections of the API server: what each may take before it is closed.

A connection costs a descriptor, and there is an end of them. One that never completes what it asks would keep it for
ever, and enough of them would keep every attempt from saying that it lives.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from contextlib import suppress
from typing import Any

from trainflow.api.uvicorn_parts import H11Protocol

#: seconds within which a request has to be complete up to its body, from the connection or from its first byte
HEAD_SECONDS = 20.0
#: how long a thread goes on while others wait
SWITCH_SECONDS = 0.001


class BoundedConnection(H11Protocol):
    """Closes itself when a request does not come to the end of its headers, or when a body that is not wanted any more
    does not end. How long a body may take that is wanted is for the application to say."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._limit()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._unlimit()
        else:
            self._limit()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unlimit()
        super().connection_lost(exc)

    def _limit(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unlimit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def share_processor() -> None:
    """Have threads of this process take turns each millisecond instead of each five: an attempt's heartbeat gives up
    its turn with every call of the database, and what people ask would take it that often."""
    sys.setswitchinterval(SWITCH_SECONDS)


def allow_many_connections() -> None:
    """Have this process open as many descriptors as it may: each attempt keeps a connection or two, and a common limit
    is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
