"""Random histories of a chain: whatever is killed, lost, repeated or cleared, what must always be true stays true."""

from __future__ import annotations

import pytest

from tests.simulation.parallel import first_of
from tests.simulation.plan import FaultKind, faults_of, scenario_of
from tests.simulation.run import describe, difference, shrink, simulate

pytestmark = pytest.mark.slow


#: as many tests as all workers together may have processors
PARTS = 20


@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_seeds_violate_no_invariant(seeds: range, part: int) -> None:
    found = first_of(seeds[part::PARTS])

    if found is not None:
        pytest.fail(describe(shrink(found)), pytrace=False)


def test_seed_always_gives_same_history() -> None:
    alone = [simulate(seed) for seed in range(5)]
    simulate(77)

    assert [difference(before, simulate(before.seed)) for before in alone] == [""] * 5


def test_seeds_of_run_meet_every_fault_and_every_scenario() -> None:
    scenarios = [scenario_of(seed) for seed in range(200)]

    assert {fault.kind for seed in range(200) for fault in faults_of(seed)} == set(FaultKind)
    assert {scenario.mode for scenario in scenarios} == {"backfill", "latest"}
    assert {scenario.evaluates for scenario in scenarios} == {True, False}
    assert any(len(scenario.present) + len(scenario.arrivals) < scenario.partitions for scenario in scenarios)
