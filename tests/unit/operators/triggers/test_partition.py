"""Waits for partitions: ready, unfinished, missing, out of reach."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from tests.unit.operators.triggers.firing import MOMENT, Services, fire, run
from trainflow.clock import ManualClock
from trainflow.errors import SampleUnreadable
from trainflow.operators import GapPolicy
from trainflow.operators.triggers.partition import PartitionTrigger, _listings
from trainflow.samples.table.inventory import open_inventory
from trainflow.samples.table.probe import Probe


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
    trigger = trigger_for(lab, 0, clock, unfinished=listing, check_again_after=600)
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
    assert "look again" in fire(trigger_for(lab, 0, clock, unfinished=listing, check_again_after=600))
    assert clock.now() == MOMENT + timedelta(minutes=10)


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
    fire(trigger_for(lab, 0, clock, samples=samples, check_again_after=10))
    assert clock.now() == MOMENT + timedelta(seconds=10)


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

    monkeypatch.setattr("trainflow.samples.table.probe.probe", slow)
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
    fire(trigger_for(lab, 0, clock, give_up_after=600))
    assert clock.now() == MOMENT + timedelta(minutes=10)


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(days=1)])
def test_wait_that_was_told_by_another_host_takes_its_time_whatever_the_clock_is(
    lab: Any, clock: ManualClock, off: timedelta
) -> None:
    told = trigger_for(lab, 0, clock, give_up_after=600).serialize()[1]
    elsewhere = ManualClock(MOMENT + off)
    trigger = PartitionTrigger(**told, clock=elsewhere)
    elsewhere.advance(timedelta(seconds=599))
    assert trigger.look() is None
    elsewhere.advance(timedelta(seconds=1))
    assert trigger.look() == "time to look at everything again"


def test_samples_out_of_reach_for_moment_do_not_end_wait(
    lab: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.write_day(0)
    outage = [True]
    from trainflow.samples.table import probe as module

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
    assert one.key == trigger_for(lab, 0, clock, pause_first=True).key
    assert one.key != trigger_for(lab, 1, clock).key


@pytest.mark.parametrize(("woken_in_vain", "pause"), [(False, 0), (True, 7)])
def test_wait_after_one_that_was_over_in_vain_begins_with_a_pause(
    lab: Any, clock: ManualClock, woken_in_vain: bool, pause: int
) -> None:
    lab.write_day(0)
    fire(trigger_for(lab, 0, clock, poke_interval=7, pause_first=woken_in_vain))
    assert clock.now() == MOMENT + timedelta(seconds=pause)


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
