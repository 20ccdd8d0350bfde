"""Those who wait for the same thing share one look."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.unit.operators.triggers.firing import MOMENT, run
from trainflow.clock import ManualClock
from trainflow.operators.triggers.partition import _listings
from trainflow.operators.triggers.poller import SharedPoller, shared_poller


def test_those_who_wait_for_same_share_one_look(clock: ManualClock) -> None:
    looks = []

    async def look() -> str | None:
        looks.append(clock.now())
        return "there" if len(looks) == 4 else None

    async def main() -> list[str]:
        poller = SharedPoller()
        waits = [asyncio.create_task(poller.wait("table", look, seconds)) for seconds in (10, 2, 30)]
        found = await asyncio.gather(*waits)
        assert len(poller) == 0
        return found

    assert run(main()) == ["there"] * 3
    # at the pace of the most impatient
    assert looks == [MOMENT + timedelta(seconds=2 * number) for number in range(4)]


def test_different_things_are_looked_at_separately(clock: ManualClock) -> None:
    async def main() -> list[str]:
        poller = SharedPoller()

        async def answer(text: str) -> str:
            return text

        waits = [poller.wait(name, lambda name=name: answer(name), 1) for name in "ab"]  # type: ignore[misc]
        return await asyncio.gather(*waits)

    assert run(main()) == ["a", "b"]


def test_poller_waiter_that_leaves_disturbs_no_other(clock: ManualClock) -> None:
    answers: list[str | None] = []

    async def look() -> str | None:
        return answers[0] if answers else None

    async def main() -> str:
        poller = SharedPoller()
        first, second = (asyncio.create_task(poller.wait("k", look, 1)) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert len(poller) == 1
        answers.append("there")
        return await second

    assert run(main()) == "there"


def test_poller_without_waiters_stops_looking(clock: ManualClock) -> None:
    async def main() -> int:
        poller = SharedPoller()
        looks = 0

        async def look() -> None:
            nonlocal looks
            looks += 1

        wait = asyncio.create_task(poller.wait("k", look, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        assert len(poller) == 0
        before = looks
        for _ in range(5):
            await asyncio.sleep(1)
        assert looks == before
        return looks

    assert run(main()) > 0


def test_look_that_raises_reaches_all_and_next_one_begins_anew(clock: ManualClock) -> None:
    async def main() -> None:
        poller = SharedPoller()

        async def broken() -> None:
            raise ValueError("no such table")

        found = await asyncio.gather(*(poller.wait("k", broken, 1) for _ in range(2)), return_exceptions=True)
        assert [str(error) for error in found] == ["no such table"] * 2

        async def fine() -> str:
            return "there"

        assert await poller.wait("k", fine, 1) == "there"

    run(main())


def test_poller_is_one_per_event_loop() -> None:
    async def poller() -> SharedPoller:
        assert shared_poller() is shared_poller()
        return shared_poller()

    assert run(poller()) is not run(poller())


@pytest.fixture(autouse=True)
def _fresh_listings() -> None:
    _listings.cache_clear()
