"""The end of a server, and of connections that come or last as it comes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from trainflow.api import http_server
from trainflow.api.http_server import HttpServer
from trainflow.api.uvicorn_parts import H11Protocol
from trainflow.testing.contract_engine import listening
from trainflow.testing.processes import DEADLINE_SECONDS

#: how long the server waits for what it has begun; what is ended at once needs none of it
LONG_SECONDS = 3600


async def _ended_after(turns: int, said: bytes, begun: asyncio.Event | None = None) -> bytes:
    """What a client reads that connects, says something, and so many turns of the loop later the server is to end."""

    async def never_answers(_scope: Any, _receive: Any, _send: Any) -> None:
        assert begun is not None
        begun.set()
        await asyncio.Event().wait()

    with listening() as listener:
        ready = asyncio.Event()
        server = HttpServer(never_answers, H11Protocol)
        server._ready = ready.set
        serving = asyncio.ensure_future(server.serve([listener]))
        await ready.wait()
        with socket.create_connection(listener.getsockname(), timeout=DEADLINE_SECONDS) as client:
            client.sendall(said)
            if begun is not None:
                await begun.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            server.request_stop()
            await asyncio.wait_for(serving, DEADLINE_SECONDS)
            return await asyncio.to_thread(client.recv, 1)


@pytest.mark.parametrize("turns", range(5))
def test_connection_that_comes_with_the_end_is_ended_at_once(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_LAST_SECONDS", LONG_SECONDS)
    assert asyncio.run(_ended_after(turns, b"")) == b""


def test_connection_whose_answer_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_LAST_SECONDS", 0)

    async def scenario() -> bytes:
        return await _ended_after(0, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", asyncio.Event())

    assert asyncio.run(scenario()) in (b"", b"H")
