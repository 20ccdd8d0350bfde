"""A bug that is planted in the product, and what the simulation says of it: a check that cannot fail is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.simulation.plan import FaultKind, Shape
from tests.simulation.run import first_found
from trainflow.checkpoints.ledger import fold, rules

Plant = Callable[[pytest.MonkeyPatch], None]
#: a bug that needs more of them to be found is as good as not found
SEEDS = range(400)
#: the simplest of scenarios
SIMPLEST: dict[str, Any] = {
    "shape": Shape.ALONE,
    "gate": None,
    "bad": (),
    "newer_than": None,
    "keep": None,
    "homes": 1,
    "empty": (),
    "remote": False,
}


def refuse_no_entry(patch: pytest.MonkeyPatch) -> None:
    """Have a ledger take any entry, when it is written and when it is read."""
    for module in (rules, fold):
        patch.setattr(module, "refuses", lambda *_: None)


class PlantedBug(NamedTuple):
    """A bug (its docstring says which), what brings it to light, and the invariants that it violates."""

    plant: Plant
    kinds: tuple[FaultKind, ...]
    invariants: set[str]
    scenario: dict[str, Any] = SIMPLEST

    def assert_found(self, patch: pytest.MonkeyPatch) -> None:
        """Plant it, and look until a history shows it."""
        self.plant(patch)
        found = first_found(SEEDS, self.kinds, **self.scenario)
        assert found is not None, f"{len(SEEDS)} seeds did not find: {self.plant.__doc__}"
        assert found.invariant in self.invariants, f"seed {found.seed}: {found.problem}"
