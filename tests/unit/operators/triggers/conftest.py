"""Fixtures that several modules of this folder take."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.operators.triggers.firing import MOMENT
from trainflow.clock import ManualClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """A clock that asyncio.sleep moves."""
    clock = ManualClock(MOMENT)
    real = asyncio.sleep

    async def sleep(seconds: float, *_: Any) -> None:
        clock.advance(timedelta(seconds=seconds))
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return clock
