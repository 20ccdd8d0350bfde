"""What each fault does to a world: to its engines, to attempts, through people, and to what surrounds them all.

A new kind of fault gets a name in `plan.FaultKind` and a function in the module of whom it strikes.
"""

from __future__ import annotations

from tests.simulation.faults import attempts, engines, people, surroundings
from tests.simulation.faults.striking import Strike
from tests.simulation.plan import Fault, FaultKind
from tests.simulation.world import World

_FAULTS: dict[FaultKind, Strike] = {**engines.FAULTS, **attempts.FAULTS, **people.FAULTS, **surroundings.FAULTS}


def strike(world: World, fault: Fault) -> bool:
    """Let a fault happen. False: there is nothing it could happen to now."""
    if world.ledger.is_short and fault.kind in people.FAULTS:
        # a person is told, and waits until the entries are put back
        return False
    return _FAULTS[fault.kind](world, fault.choice)
