"""How many seeds: TRAINFLOW_SIMULATION_SEEDS (fewer while something is tried; 10,000 after a change of the rules, which
take some minutes: `TRAINFLOW_SIMULATION_SEEDS=10000 pytest tests/simulation -n auto`).

`python -m tests.simulation SEED` replays one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.simulation.parallel import pinned_to, processors

#: read here: the tests themselves see no variable of ours
_SEEDS = int(os.environ.get("TRAINFLOW_SIMULATION_SEEDS", "2000"))


@pytest.fixture(autouse=True)
def _a_worker_a_processor(worker_id: str) -> Iterator[None]:
    which = processors()
    number = 0 if worker_id == "master" else int(worker_id.removeprefix("gw"))
    with pinned_to(which[number % len(which)]):
        yield


@pytest.fixture
def seeds() -> range:
    """The seeds to run."""
    return range(_SEEDS)
