"""What each fault does to a world: to its engines, to attempts, through people, and to the environment of them all.

A new kind of fault gets a name in `plan.FaultKind` and a function in the module of what it happens to.
"""

from __future__ import annotations

from tests.simulation.faults import attempts, engines, environment, people
from tests.simulation.faults.targets import Injection
from tests.simulation.plan import Fault, FaultKind
from tests.simulation.world import World

_FAULTS: dict[FaultKind, Injection] = {**engines.FAULTS, **attempts.FAULTS, **people.FAULTS, **environment.FAULTS}


def inject(world: World, fault: Fault) -> bool:
    """Let a fault happen. False: there is nothing it could happen to now."""
    if world.ledger.is_short and fault.kind in people.FAULTS:
        # a person is told, and waits until the entries are put back
        return False
    return _FAULTS[fault.kind](world, fault.choice)
