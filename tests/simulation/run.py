"""Run seeds, and make what fails as small as it goes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from tests.simulation.database import SimulatedDatabase
from tests.simulation.driver import Driver, History, uncollected
from tests.simulation.plan import Fault, FaultKind, Scene, complexity, faults_of, plainer, scene_of
from tests.simulation.violation import Violation


def simulate(
    seed: int,
    *,
    scene: Scene | None = None,
    faults: tuple[Fault, ...] | None = None,
    database: SimulatedDatabase | None = None,
) -> History:
    """The history of a seed; with `scene` or `faults`, what would happen there instead. Never raises."""
    scene = scene_of(seed) if scene is None else scene
    faults = faults_of(seed) if faults is None else faults
    driver = Driver(seed, scene, faults, [database or _database(1), _database(2)])
    try:
        with uncollected():
            driver.drive()
    except Violation as violation:
        return _failed(seed, scene, faults, driver, violation.invariant, str(violation))
    except Exception as error:
        return _failed(seed, scene, faults, driver, type(error).__name__, traceback.format_exc())
    return History(seed, scene, faults, driver.steps, driver.digest)


def first_found(seeds: range, kinds: Sequence[FaultKind] = (), **scene: Any) -> History | None:
    """The first of these seeds that violates something, with faults of these kinds only, in scenes that are as told;
    None: none does. For bugs that were planted."""
    for seed in seeds:
        faults = faults_of(seed, kinds) if kinds else ()
        history = simulate(seed, scene=msgspec.structs.replace(scene_of(seed), **scene), faults=faults)
        if history.invariant is not None:
            return history
    return None


def shrink(history: History) -> History:
    """The same violation with as few faults, and in as plain a scene, as a greedy search finds."""
    smallest, size = history, -1
    while history.invariant is not None and size != _size(smallest):
        size = _size(smallest)
        for scene, faults in _smaller(smallest):
            again = simulate(history.seed, scene=scene, faults=faults)
            if again.invariant == history.invariant and _size(again) < _size(smallest):
                smallest = again
                break
    return smallest


def _smaller(history: History) -> Iterator[tuple[Scene, tuple[Fault, ...]]]:
    """What is tried next: without each fault, then each plainer scene."""
    for number in range(len(history.faults)):
        yield history.scene, (*history.faults[:number], *history.faults[number + 1 :])
    for scene in plainer(history.scene):
        yield scene, history.faults


def _size(history: History) -> int:
    return 1000 * len(history.faults) + complexity(history.scene)


def describe(history: History) -> str:
    """A history, for people: how to see it again, what it takes, and how it went."""
    violates = f" violates '{history.invariant}'" if history.invariant else " violates nothing,"
    lines = [
        f"seed {history.seed}{violates} after {history.steps} steps",
        f"replay: python -m {__package__} {history.seed}",
        f"scene: {history.scene}",
        "faults:",
        *(f"  before step {fault.at}: {fault.kind} ({fault.choice})" for fault in history.faults),
        "what happened:",
        *(f"  {step}" for step in history.told),
        history.problem or "",
    ]
    return "\n".join(lines)


def _failed(
    seed: int, scene: Scene, faults: tuple[Fault, ...], driver: Driver, invariant: str, problem: str
) -> History:
    return History(seed, scene, faults, driver.steps, driver.digest, invariant, problem, driver.told)


@cache
def _database(_number: int) -> SimulatedDatabase:
    return SimulatedDatabase()
