"""Run seeds, and make what fails as small as it goes."""

from __future__ import annotations

import traceback
from functools import cache

from trainflow.testing.simulation.database import SimulatedDatabase
from trainflow.testing.simulation.driver import Driver, History, uncollected
from trainflow.testing.simulation.plan import Fault, Scene, faults_of, scene_of
from trainflow.testing.simulation.violation import Violation


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
    driver = Driver(seed, scene, faults, database or _database())
    try:
        with uncollected():
            driver.drive()
    except Violation as violation:
        return _failed(seed, scene, faults, driver, violation.invariant, str(violation))
    except Exception as error:
        return _failed(seed, scene, faults, driver, type(error).__name__, traceback.format_exc())
    return History(seed, scene, faults, driver.steps, driver.digest)


def shrink(history: History) -> History:
    """The same violation with as few faults as a greedy search finds."""
    smallest = history
    for number in reversed(range(len(history.faults))):
        fewer = (*smallest.faults[:number], *smallest.faults[number + 1 :])
        again = simulate(history.seed, scene=history.scene, faults=fewer)
        if again.invariant == history.invariant:
            smallest = again
    return smallest


def describe(history: History) -> str:
    """A failed history, for people: how to see it again, what it takes, and how it ended."""
    lines = [
        f"seed {history.seed} violates '{history.invariant}' after {history.steps} steps",
        f"replay: TRAINFLOW_SIMULATION_SEED={history.seed} pytest tests/simulation",
        f"scene: {history.scene}",
        "faults:",
        *(f"  before step {fault.at}: {fault.kind} ({fault.choice})" for fault in history.faults),
        f"the last {len(history.last_steps)} steps:",
        *(f"  {step}" for step in history.last_steps),
        history.problem or "",
    ]
    return "\n".join(lines)


def _failed(
    seed: int, scene: Scene, faults: tuple[Fault, ...], driver: Driver, invariant: str, problem: str
) -> History:
    return History(seed, scene, faults, driver.steps, driver.digest, invariant, problem, tuple(driver.last_steps))


@cache
def _database() -> SimulatedDatabase:
    return SimulatedDatabase()
