"""What happens to the clock, the samples and the store."""

from __future__ import annotations

import json
from datetime import timedelta

from tests.simulation.faults.targets import Injection, pick
from tests.simulation.plan import FaultKind, Shape
from tests.simulation.worker import StoreFault
from tests.simulation.world import World
from trainflow.checkpoints.chain import ChainKey


def _set_clock(by: timedelta) -> Injection:
    def jump(world: World, _choice: int) -> bool:
        world.clock.jump(by)
        return True

    return jump


def _republish(world: World, choice: int) -> bool:
    number = pick(sorted(world.table.arrived), choice)
    if number is not None:
        world.invariants.interfered()
        world.table.arrive(number)
    return number is not None


def _replace(world: World, choice: int) -> bool:
    """Of what some chain has not been trained on yet, and is being."""
    running = [process for home in world.homes for process in home.running]
    if not any(process.work.workload.task_id in ("evaluate", "train", "commit") for process in running):
        return False
    world.ledger.follow()
    trained = frozenset.intersection(*(chain.line.trained for chain in world.ledger.chains.values()))
    number = pick(sorted({*world.table.arrived} - trained), choice)
    if number is not None:
        world.invariants.interfered()
        world.table.arrive(number)
    return number is not None


def _vanish(world: World, choice: int) -> bool:
    """Not those that a stage ends with: what comes after the others tells that they are missing."""
    last = world.table.size - (2 if world.scenario.shape is Shape.LAGGED else 1)
    number = pick([each for each in sorted(world.table.arrived) if each < last], choice)
    if number is not None:
        world.table.vanish(number)
        if not world.table.arrived and world.scenario.mode == "backfill":
            world.invariants.expected_errors.add("FailException")  # a backfill of nothing at all fails
    return number is not None


def _late(world: World, choice: int) -> bool:
    number = pick(sorted({*range(world.table.size)} - {*world.table.arrived, *world.arrivals}), choice)
    if number is not None:
        world.table.arrive(number)
    return number is not None


def _unreadable(world: World, choice: int) -> bool:
    world.invariants.expected_errors.add("SampleUnreadable")
    world.table.unreadable = 1 + choice % 4
    return True


def _store_fault(kind: str, lasts: int = 1) -> Injection:
    def arm(world: World, choice: int) -> bool:
        # a listing that is behind shows no file of an upload, and part of one is damaged
        world.invariants.expected_errors |= {"StoreFailure", "ArtifactCorrupt"}
        world.store_fault = StoreFault(kind, 1 + choice % 8, lasts)
        return True

    return arm


def _tear(world: World, choice: int) -> bool:
    """Only when training is over, and nothing commits: between the look at the files and the entry it cannot be
    noticed."""
    running = [process for home in world.homes for process in home.running]
    if any(each.work.workload.task_id in ("train", "commit") and each.has_begun for each in running):
        return False
    world.ledger.follow()
    written = [file.path for key in world.ledger.chains for file in world.store.files(key.artifacts)]
    files = [path for path in written if not world.ledger.is_committed(path)]
    path = pick(files, choice)
    if path is None:
        return False
    world.invariants.expected_errors.add("ArtifactCorrupt")
    world.store.contents[path] = world.store.contents[path][:-1]
    return True


def _lose_entries(world: World, choice: int) -> bool:
    """The tail, or some before it. Only while nothing is about to append: between its look at the ledger and the entry
    nothing can notice."""
    running = [process for home in world.homes for process in home.running]
    if world.ledger.is_short or any(process.work.workload.task_id not in ("train", "evaluate") for process in running):
        return False
    world.ledger.follow()
    # beyond what anything knows of, nothing can be told: of two that write at once one may have put the mark back
    chains = [each for each in world.ledger.chains.values() if each.sequence]
    known = [each for each in chains if _mark_of(world, each.key) == each.sequence]
    chain = pick(known if world.store.remote else chains, choice)
    if chain is None:
        return False
    first = 1 + (choice >> 4) % chain.sequence
    last = first if choice & 8 else chain.sequence
    world.invariants.interfered()
    for home in world.homes:
        home.invariants.expected_errors.add("LedgerCorrupt")
    world.ledger.lose(chain.key, first, last, steps=10 + (choice >> 8) % 40)
    return True


def _mark_of(world: World, key: ChainKey) -> int:
    data = world.store.contents.get(key.mark)
    return int(json.loads(data)["sequence"]) if data else 0


FAULTS: dict[FaultKind, Injection] = {
    FaultKind.REPUBLISH: _republish,
    FaultKind.REPLACE: _replace,
    FaultKind.VANISH: _vanish,
    FaultKind.LATE: _late,
    FaultKind.UNREADABLE: _unreadable,
    FaultKind.CLOCK_FORWARD: _set_clock(timedelta(hours=1)),
    FaultKind.CLOCK_BACK: _set_clock(-timedelta(minutes=10)),
    FaultKind.STORE_BEFORE: _store_fault("before"),
    FaultKind.STORE_AFTER: _store_fault("after"),
    FaultKind.STORE_TORN: _store_fault("torn"),
    FaultKind.STORE_THROTTLED: _store_fault("throttled", lasts=4),
    FaultKind.STORE_FULL: _store_fault("full", lasts=1000),
    FaultKind.STORE_STALE: _store_fault("stale"),
    FaultKind.TEAR: _tear,
    FaultKind.LOSE_ENTRIES: _lose_entries,
}
