"""Triggers, in an event loop of their own, without waiting for real time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from trainflow.authoring.trigger import BaseTrigger, describe_trigger, make_trigger
from trainflow.clock import ManualClock
from trainflow.errors import InputError, SampleUnreadable
from trainflow.operators import GapPolicy
from trainflow.operators.triggers.dag_state import DagStateTrigger
from trainflow.operators.triggers.partition import PartitionTrigger, _listings
from trainflow.operators.triggers.poller import SharedPoller, shared_poller
from trainflow.operators.triggers.time import DateTimeTrigger, TimeDeltaTrigger
from trainflow.samples.inventory import open_inventory
from trainflow.samples.probe import Probe

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


def fire(trigger: BaseTrigger, services: Services | None = None) -> Any:
    """The payload of its first event."""

    async def first() -> Any:
        trigger.services = services or Services()
        return (await anext(trigger.run())).payload

    return run(first())


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


# -- time ------------------------------------------------------------------------------------------------------------


def test_moment_is_waited_for(clock: ManualClock) -> None:
    moment = MOMENT + timedelta(hours=3, seconds=1)
    assert fire(DateTimeTrigger(moment, clock)) == moment.isoformat()
    assert clock.now() == moment


def test_moment_that_is_past_fires_at_once(clock: ManualClock) -> None:
    fire(DateTimeTrigger(MOMENT - timedelta(days=1), clock))
    assert clock.now() == MOMENT


def test_delta_keeps_its_moment_when_it_moves_to_another_process(clock: ManualClock) -> None:
    path, kwargs = describe_trigger(TimeDeltaTrigger(timedelta(minutes=5), clock=clock))
    clock.advance(timedelta(minutes=4))
    again = make_trigger(path, kwargs)
    assert isinstance(again, TimeDeltaTrigger)
    assert again.moment == MOMENT + timedelta(minutes=5)


def test_delta_may_be_seconds(clock: ManualClock) -> None:
    assert TimeDeltaTrigger(90, clock=clock).moment == MOMENT + timedelta(seconds=90)
    with pytest.raises(InputError):
        TimeDeltaTrigger()
    with pytest.raises(ValueError, match="naive"):
        DateTimeTrigger(datetime(2026, 1, 1))


# -- runs ------------------------------------------------------------------------------------------------------------


def test_run_that_is_over_fires_before_any_sleep(clock: ManualClock) -> None:
    trigger = DagStateTrigger("d", ["success", "failed"], ["r"], poll_interval=5)
    assert fire(trigger, Services({"r": ["success"]})) == {"r": "success"}
    assert clock.now() == MOMENT


def test_runs_are_waited_for_until_all_are_over(clock: ManualClock) -> None:
    services = Services({"a": ["running", "success"], "b": ["queued", "running", "failed"]})
    trigger = DagStateTrigger("d", ["success", "failed"], ["a", "b"], poll_interval=5)
    assert fire(trigger, services) == {"a": "success", "b": "failed"}
    assert clock.now() == MOMENT + timedelta(seconds=10)


def test_run_that_is_deleted_ends_wait(clock: ManualClock) -> None:
    assert fire(DagStateTrigger("d", ["success"], ["r"]), Services({"r": ["running", None]})) == {"r": None}


def test_dag_state_trigger_travels(clock: ManualClock) -> None:
    described = describe_trigger(DagStateTrigger("d", ["success"], ["r"], poll_interval=2.5))
    assert describe_trigger(make_trigger(*described)) == described


# -- the shared poller -----------------------------------------------------------------------------------------------


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


# -- partitions ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _fresh_listings() -> None:
    _listings.cache_clear()


def trigger_for(lab: Any, day: int, clock: ManualClock, **options: Any) -> PartitionTrigger:
    options = {"samples": lab.samples, **options}
    return PartitionTrigger(
        partition_start=lab.samples.start + timedelta(days=day), project_root=lab.root, clock=clock, **options
    )


def test_partition_that_is_ready_fires_at_once(lab: Any, clock: ManualClock) -> None:
    lab.write_day(0)
    assert fire(trigger_for(lab, 0, clock)) == "the partition 2013-01-01T00:00Z is ready"
    assert clock.now() == MOMENT


def test_partition_is_waited_for_until_its_marker_is_there(lab: Any, clock: ManualClock) -> None:
    folder = lab.write_day(0, marker=False)
    trigger = trigger_for(lab, 0, clock)
    assert trigger.look() is None
    clock.advance(timedelta(seconds=1))
    assert trigger.look() is None
    (folder / "_SUCCESS").touch()
    clock.advance(timedelta(seconds=1))
    assert fire(trigger) == "the partition 2013-01-01T00:00Z is ready"


def test_partition_file_being_written_behind_marker_is_waited_for(lab: Any, clock: ManualClock) -> None:
    folder = lab.write_day(0)
    [file] = folder.glob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    listing = open_inventory(lab.samples, lab.root, clock.now()).state(lab.samples.start).listing
    trigger = trigger_for(lab, 0, clock, unfinished=listing, check_again_at=MOMENT + timedelta(minutes=10))
    assert trigger.look() is None
    file.write_bytes(whole[:-10])
    clock.advance(timedelta(seconds=1))
    assert trigger.look() is None
    file.write_bytes(whole)
    clock.advance(timedelta(seconds=1))
    assert trigger.look() == "the partition 2013-01-01T00:00Z is ready"


def test_partition_file_unfinished_for_long_wakes_task(lab: Any, clock: ManualClock) -> None:
    lab.write_day(0)
    listing = open_inventory(lab.samples, lab.root, clock.now()).state(lab.samples.start).listing
    at = MOMENT + timedelta(minutes=10)
    assert "look again" in fire(trigger_for(lab, 0, clock, unfinished=listing, check_again_at=at))
    assert clock.now() == at


def test_gap_policy_that_runs_out_ends_wait(lab: Any, clock: ManualClock) -> None:
    for path in lab.write_day(1).iterdir():
        os.utime(path, (MOMENT.timestamp(),) * 2)
    samples = msgspec.structs.replace(lab.samples, gaps=GapPolicy(wait_seconds=3600, then="skip"))
    payload = fire(trigger_for(lab, 0, clock, samples=samples, poke_interval=10))
    assert "step over" in payload
    assert timedelta(hours=1) <= clock.now() - MOMENT <= timedelta(hours=1, minutes=1, seconds=10)


def test_gap_policy_is_asked_when_task_said(lab: Any, clock: ManualClock) -> None:
    for path in lab.write_day(1).iterdir():
        os.utime(path, (MOMENT.timestamp(),) * 2)
    samples = msgspec.structs.replace(lab.samples, gaps=GapPolicy(wait_seconds=10, then="skip"))
    at = MOMENT + timedelta(seconds=10)
    fire(trigger_for(lab, 0, clock, samples=samples, check_again_at=at))
    assert clock.now() == at


def write_old_day(lab: Any, number: int, age: timedelta) -> None:
    for path in lab.write_day(number).iterdir():
        os.utime(path, ((MOMENT - age).timestamp(),) * 2)


def test_later_partition_behind_gap_is_seen_at_next_poke(lab: Any, clock: ManualClock) -> None:
    samples = msgspec.structs.replace(lab.samples, gaps=GapPolicy(wait_seconds=0, then="skip"))
    trigger = trigger_for(lab, 0, clock, samples=samples, poke_interval=1)
    clock.advance(timedelta(seconds=1))
    assert trigger.look() is None
    write_old_day(lab, 1, timedelta(days=1))
    clock.advance(timedelta(seconds=1))
    assert "step over" in (trigger.look() or "")


@pytest.mark.parametrize(
    ("takes", "lookers", "pause"),
    [(0.0, 10_000, 1), (0.02, 1, 2), (0.02, 10, 20), (0.2, 1, 20), (0.2, 40, 60), (30, 1, 60)],
)
def test_partition_later_ones_are_looked_at_rarely(
    lab: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, takes: float, lookers: int, pause: int
) -> None:
    looked: list[datetime] = []

    def slow(*_: Any, look_later: bool, **__: Any) -> Probe:
        if look_later:
            looked.append(clock.now())
            clock.advance(timedelta(seconds=takes))
        return Probe(False, "not there yet")

    monkeypatch.setattr("trainflow.samples.probe.probe", slow)
    trigger = trigger_for(lab, 0, clock, poke_interval=1)
    trigger._lookers = lookers
    for _ in range(200):
        clock.advance(timedelta(seconds=1))
        trigger.look()
    pauses = {(later - earlier).total_seconds() for earlier, later in pairwise(looked)}
    assert pauses
    assert min(pauses) >= pause
    assert max(pauses) <= pause + 1 + takes


def test_backfill_gives_up_after_its_time(lab: Any, clock: ManualClock) -> None:
    fire(trigger_for(lab, 0, clock, give_up_at=MOMENT + timedelta(minutes=10)))
    assert clock.now() == MOMENT + timedelta(minutes=10)


def test_samples_out_of_reach_for_moment_do_not_end_wait(
    lab: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.write_day(0)
    outage = [True]
    from trainflow.samples import probe as module

    real = module.probe

    def flaky(*args: Any, **kwargs: Any) -> Any:
        if outage[0]:
            raise SampleUnreadable("storage is away")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "probe", flaky)
    trigger = trigger_for(lab, 0, clock)
    assert trigger.look() is None
    clock.advance(timedelta(minutes=4))
    assert trigger.look() is None
    outage[0] = False
    assert trigger.look() == "the partition 2013-01-01T00:00Z is ready"
    outage[0] = True
    assert trigger.look() is None
    clock.advance(timedelta(minutes=5))
    assert trigger.look() == "storage is away"


def test_key_is_same_for_same_question(lab: Any, clock: ManualClock) -> None:
    one = trigger_for(lab, 0, clock, poke_interval=1)
    clock.advance(timedelta(seconds=3))
    assert one.key == trigger_for(lab, 0, clock, poke_interval=9).key
    assert one.key != trigger_for(lab, 1, clock).key


def test_thousand_waits_cost_one_look(lab: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(
        PartitionTrigger, "look", lambda self: looks.append(1) or ("there" if len(looks) == 3 else None)
    )

    async def main() -> None:
        triggers = [trigger_for(lab, 0, clock) for _ in range(1000)]
        for trigger in triggers:
            trigger.services = Services()
        found = await asyncio.gather(*(anext(trigger.run()) for trigger in triggers))
        assert {event.payload for event in found} == {"there"}

    run(main())
    assert len(looks) == 3
