"""How many seeds: TRAINFLOW_SIMULATION_SEEDS (fewer while something is tried). `.ci/run` tries the next ones by
`python -m tests.simulation 100:2000`; after a change of the rules, `0:10000` takes some minutes.

`python -m tests.simulation SEED` replays one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.simulation.parallel import pinned_to, processor_now

#: read here: the tests themselves see no variable of ours
_SEEDS = int(os.environ.get("TRAINFLOW_SIMULATION_SEEDS", "100"))


@pytest.fixture(autouse=True)
def _on_one_processor() -> Iterator[None]:
    """There may be more workers than processors: the system has put each where there is room."""
    with pinned_to(processor_now()):
        yield


@pytest.fixture
def seeds() -> range:
    """The seeds to run."""
    return range(_SEEDS)
