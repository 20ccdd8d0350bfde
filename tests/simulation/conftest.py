"""How many seeds, or which one: `--seed N`, or TRAINFLOW_SIMULATION_SEED=N, replays one; TRAINFLOW_SIMULATION_SEEDS=N
runs so many."""

from __future__ import annotations

import os

import pytest

#: read here: the tests themselves see no variable of ours
_SEEDS = int(os.environ.get("TRAINFLOW_SIMULATION_SEEDS", "1000"))
_SEED = os.environ.get("TRAINFLOW_SIMULATION_SEED")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="replay one simulation")


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    """The seeds to run."""
    # the option is known only when this folder is named on the command line
    seed = request.config.getoption("--seed", default=None)
    seed = _SEED if seed is None else seed
    return range(_SEEDS) if seed is None else range(int(seed), int(seed) + 1)
