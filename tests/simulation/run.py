"""Run seeds, and make what fails as small as it goes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from tests.simulation.database import SimulatedDatabase
from tests.simulation.driver import Driver, History, uncollected
from tests.simulation.plan import Fault, FaultKind, Scenario, complexity, faults_of, scenario_of, simpler
from tests.simulation.violation import Violation

#: events that are shown before and after the first that differs
_BEFORE, _AFTER = 10, 3


def simulate(
    seed: int,
    *,
    scenario: Scenario | None = None,
    faults: tuple[Fault, ...] | None = None,
    database: SimulatedDatabase | None = None,
) -> History:
    """The history of a seed; with `scenario` or `faults`, what would happen there instead. Never raises."""
    scenario = scenario_of(seed) if scenario is None else scenario
    faults = faults_of(seed) if faults is None else faults
    driver = Driver(seed, scenario, faults, [database or _database(1), _database(2)])
    try:
        with uncollected():
            driver.drive()
    except Violation as violation:
        return _failed(seed, scenario, faults, driver, violation.invariant, str(violation))
    except Exception as error:
        return _failed(seed, scenario, faults, driver, type(error).__name__, traceback.format_exc())
    return History(seed, scenario, faults, driver.steps, tuple(driver.events))


def first_found(seeds: range, kinds: Sequence[FaultKind] = (), **scenario: Any) -> History | None:
    """The first of these seeds that violates something, with faults of these kinds only, in scenarios that are as told;
    None: none does. For bugs that were planted."""
    for seed in seeds:
        faults = faults_of(seed, kinds) if kinds else ()
        history = simulate(seed, scenario=msgspec.structs.replace(scenario_of(seed), **scenario), faults=faults)
        if history.invariant is not None:
            return history
    return None


def shrink(history: History) -> History:
    """The same violation with as few faults, and in as plain a scenario, as a greedy search finds."""
    smallest, size = history, -1
    while history.invariant is not None and size != _size(smallest):
        size = _size(smallest)
        for scenario, faults in _smaller(smallest):
            again = simulate(history.seed, scenario=scenario, faults=faults)
            if again.invariant == history.invariant and _size(again) < _size(smallest):
                smallest = again
                break
    return smallest


def _smaller(history: History) -> Iterator[tuple[Scenario, tuple[Fault, ...]]]:
    """What is tried next: without each fault, then each simpler scenario."""
    for number in range(len(history.faults)):
        yield history.scenario, (*history.faults[:number], *history.faults[number + 1 :])
    for scenario in simpler(history.scenario):
        yield scenario, history.faults


def _size(history: History) -> int:
    return 1000 * len(history.faults) + complexity(history.scenario)


def describe(history: History) -> str:
    """A history, for people: how to see it again, what it takes, and how it went."""
    violates = f" violates '{history.invariant}'" if history.invariant else " violates nothing,"
    lines = [
        f"seed {history.seed}{violates} after {history.steps} steps",
        f"replay: python -m {__package__} {history.seed}",
        f"scene: {history.scenario}",
        "faults:",
        *(f"  before step {fault.at}: {fault.kind} ({fault.choice})" for fault in history.faults),
        "what happened:",
        *(f"  {step}" for step in history.events),
        history.problem or "",
    ]
    return "\n".join(lines)


def difference(one: History, other: History) -> str:
    """What two histories of a seed differ in, with what happened before that; '' where they are the same."""
    if one == other:
        return ""
    number = next((n for n, (a, b) in enumerate(zip(one.events, other.events, strict=False)) if a != b), None)
    if number is None:
        number = min(len(one.events), len(other.events))
    lines = [
        f"seed {one.seed} has two histories, of {one.steps} and {other.steps} steps, the same to event {number}:",
        *(f"  both  {event}" for event in one.events[max(number - _BEFORE, 0) : number]),
        *(f"  one   {event}" for event in one.events[number : number + _AFTER]),
        *(f"  other {event}" for event in other.events[number : number + _AFTER]),
        f"one violates {one.invariant}, other violates {other.invariant}",
    ]
    return "\n".join(lines)


def _failed(
    seed: int, scenario: Scenario, faults: tuple[Fault, ...], driver: Driver, invariant: str, problem: str
) -> History:
    return History(seed, scenario, faults, driver.steps, tuple(driver.events), invariant, problem)


@cache
def _database(_number: int) -> SimulatedDatabase:
    return SimulatedDatabase()
