"""Fire a trigger in an event loop of its own, without waiting for real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from trainflow.authoring.trigger import BaseTrigger

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Services:
    """What the event loop offers, answered from a table; threads are calls."""

    def __init__(self, states: dict[str, list[str | None]] | None = None) -> None:
        self.states = states or {}
        self.asked: list[str] = []

    async def ask_dag_run(self, dag_id: str, run_id: str) -> str | None:
        self.asked.append(run_id)
        answers = self.states[run_id]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def fire(trigger: BaseTrigger, services: Services | None = None) -> Any:
    """The payload of its first event."""

    async def first() -> Any:
        trigger.services = services or Services()
        return (await anext(trigger.run())).payload

    return run(first())


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)
