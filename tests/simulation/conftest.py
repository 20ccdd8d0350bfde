"""How many seeds: TRAINFLOW_SIMULATION_SEEDS (10,000 take minutes: run them after a change of the rules).

`python -m trainflow.testing.simulation SEED` replays one."""

from __future__ import annotations

import os

import pytest

#: read here: the tests themselves see no variable of ours
_SEEDS = int(os.environ.get("TRAINFLOW_SIMULATION_SEEDS", "2000"))


@pytest.fixture
def seeds() -> range:
    """The seeds to run."""
    return range(_SEEDS)
