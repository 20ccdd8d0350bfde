"""The store of the simulation is a store like every other."""

from __future__ import annotations

import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
