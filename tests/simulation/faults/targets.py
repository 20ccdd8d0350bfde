"""How a fault finds what it happens to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.simulation.database import SimulatedCrash
from tests.simulation.engine import SimulatedEngine
from tests.simulation.world import World

T = TypeVar("T")
#: does a fault to a world, with the choice that the plan has drawn. False: there is nothing it could happen to now
Injection = Callable[[World, int], bool]


def pick(things: Sequence[T], choice: int) -> T | None:
    """One of them; None: there are none."""
    return things[choice % len(things)] if things else None


def guarded(world: World, engine: SimulatedEngine, run: Callable[[], None]) -> None:
    """What an engine does, and may die of."""
    try:
        run()
    except SimulatedCrash:
        world.crash(engine)
