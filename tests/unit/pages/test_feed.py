"""One look for all pages."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from trainflow.clock import ManualClock
from trainflow.insight.live import Look
from trainflow.pages.feed import Feed


class World:
    """What a look finds."""

    def __init__(self) -> None:
        self.topics: dict[str, Any] = {"fleet": 1, "run:d/1": "queued"}
        self.engine = "alive"
        self.broken = False

    def look(self) -> Look:
        if self.broken:
            raise OSError("the disk is away")
        return Look(dict(self.topics), self.engine, "")


def _feed(clock: ManualClock) -> tuple[Feed, World]:
    world = World()
    return Feed(world.look, clock), world


def test_hundred_pages_look_once(clock: ManualClock) -> None:
    feed, _ = _feed(clock)
    for _ in range(100):
        feed.numbers()
    assert feed.looks == 1
    clock.advance(timedelta(seconds=1))
    feed.numbers()
    assert feed.looks == 2


def test_number_rises_with_what_has_changed_alone(clock: ManualClock) -> None:
    feed, world = _feed(clock)
    before = feed.numbers()
    world.topics["run:d/1"] = "running"
    clock.advance(timedelta(seconds=1))
    after = feed.numbers()
    assert after["run:d/1"] == before["run:d/1"] + 1
    assert after["fleet"] == before["fleet"]
    del world.topics["run:d/1"]
    clock.advance(timedelta(seconds=1))
    assert feed.numbers()["run:d/1"] == after["run:d/1"] + 1


def test_database_that_cannot_be_read_is_said(clock: ManualClock) -> None:
    feed, world = _feed(clock)
    world.broken = True
    feed.numbers()
    assert feed.engine.state == "database"
    world.broken = False
    clock.advance(timedelta(seconds=1))
    feed.numbers()
    assert feed.engine.state == "alive"


def test_page_is_told_of_its_topics_and_of_the_engine(clock: ManualClock) -> None:
    feed, world = _feed(clock)
    feed.numbers()

    async def listen(act: Callable[[], None]) -> bytes:
        stream = feed.events(["run:d/1"])
        assert b'"state":"alive"' in await anext(stream)
        act()
        told: bytes = await asyncio.wait_for(anext(stream), 10)
        await stream.aclose()  # type: ignore[attr-defined]
        return told

    def run_changes() -> None:
        feed.changed(["fleet", "other"])
        feed.changed(["run:d/1"])

    assert asyncio.run(listen(run_changes)) == b'event: changed\ndata: ["run:d/1"]\n\n'

    def engine_ends() -> None:
        world.engine = "none"
        clock.advance(timedelta(seconds=1))
        feed.numbers()

    assert b'event: engine\ndata: {"state":"none"' in asyncio.run(listen(engine_ends))
    assert feed.watched == frozenset()
    feed.close()


def test_what_changed_before_the_stream_began_is_told_at_once(clock: ManualClock) -> None:
    feed, world = _feed(clock)
    made_at = feed.numbers()["run:d/1"]
    world.topics["run:d/1"] = "running"
    clock.advance(timedelta(seconds=1))
    feed.numbers()

    async def first(version: str) -> list[bytes]:
        stream = feed.events(["run:d/1"], version)
        told = [await anext(stream)]
        told.append(await asyncio.wait_for(anext(stream), 10))
        await stream.aclose()  # type: ignore[attr-defined]
        return told

    assert asyncio.run(first(str(made_at)))[1] == b'event: changed\ndata: ["run:d/1"]\n\n'
    feed.close()


def test_page_is_opened_and_closed_while_a_look_waits_for_the_database(clock: ManualClock) -> None:
    looks, answers = threading.Event(), threading.Event()

    def wait() -> Look:
        looks.set()
        assert answers.wait(20)
        return Look({"fleet": 1}, "alive", "")

    feed = Feed(wait, clock)
    waiting = threading.Thread(target=feed.numbers)
    waiting.start()
    assert looks.wait(20)

    async def open_and_close() -> None:
        stream = feed.events(["fleet"])
        await anext(stream)
        assert feed.watched == {"fleet"}
        feed.changed(["fleet"])
        await stream.aclose()  # type: ignore[attr-defined]

    # in a thread: an event loop that waits for the look ends no test
    opened = threading.Thread(target=lambda: asyncio.run(open_and_close()), daemon=True)
    opened.start()
    opened.join(20)
    was_open = not opened.is_alive()
    answers.set()
    waiting.join(20)
    assert was_open
    feed.close()
