"""What all homes of one history share: the store, the samples, the time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.simulation.clock import SettableClock
from tests.simulation.ledger_check import LedgerCheck
from tests.simulation.memory_store import MemoryStore
from tests.simulation.pipeline import STORE, SimulatedFiles, pipeline_of
from tests.simulation.plan import Scenario
from tests.simulation.table import SampleTable

if TYPE_CHECKING:
    from tests.simulation.world import World

MORNING = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class SharedWorld:
    """What all share that train the same chains: the store, the samples, the time."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = SettableClock(MORNING)
        self.pipeline = pipeline_of(scenario)
        self.files = SimulatedFiles(self.pipeline)
        # of each kind about half
        self.store = MemoryStore(STORE, remote=scenario.partitions % 2 == 1)
        self.table = SampleTable(self.clock, scenario.partitions, scenario.empty)
        self.arrivals = list(scenario.arrivals)
        for number in scenario.present:
            self.table.arrive(number)
        self.ledger = LedgerCheck(self.store, self.table, self.pipeline.expected(scenario), homes=scenario.homes)
        #: errors that attempts may fail with, because the plan has caused them; what is damaged is so for all
        self.expected_errors: set[str] = set()
        if scenario.gate or (
            scenario.mode == "backfill" and not scenario.present
        ):  # a backfill of nothing at all fails
            # a run whose checkpoint was refused fails, once for all
            self.expected_errors.add("FailException")
        self.homes: list[World] = []
