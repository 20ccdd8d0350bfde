"""How many seeds: TRAINFLOW_SIMULATION_SEEDS. `python -m trainflow.testing.simulation SEED` replays one."""

from __future__ import annotations

import os

import pytest

#: read here: the tests themselves see no variable of ours
_SEEDS = int(os.environ.get("TRAINFLOW_SIMULATION_SEEDS", "10000"))


@pytest.fixture
def seeds() -> range:
    """The seeds to run."""
    return range(_SEEDS)
