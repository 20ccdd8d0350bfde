"""What a worker does with what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from trainflow.execution.http_api_client import ApiAddress
from trainflow.execution.worker_heartbeats import WorkerHeartbeats
from trainflow.messages.http_protocol import WorkerOrders


def test_orders_that_cannot_be_followed_are_followed_with_the_next_heartbeat(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[WorkerOrders] = []

    def follow(orders: WorkerOrders) -> None:
        heard.append(orders)
        if len(heard) == 1:
            raise OSError("redis://user:secret@broker.example:6379/0 does not answer")

    never: Any = None
    presence = WorkerHeartbeats(ApiAddress("http://api"), None, describe=never, on_orders=follow, heartbeat_seconds=1)
    for _ in range(3):
        presence._follow(WorkerOrders(7, ["gpu"], "a new disk"))
    assert len(heard) == 2
    assert "is again: OSError" in caplog.text
    assert "secret" not in caplog.text
