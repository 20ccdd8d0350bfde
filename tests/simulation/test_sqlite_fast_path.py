"""The connection of the simulation is one like SQLAlchemy's, only faster."""

from __future__ import annotations

import pytest
from sqlalchemy import StaticPool, create_engine

from tests.simulation.database import SimulatedDatabase
from tests.simulation.run import difference, simulate
from trainflow.metadata.fast_connection import TextConnection

pytestmark = pytest.mark.slow


@pytest.mark.exhaustive
def test_history_over_sqlalchemys_connection_is_the_same() -> None:
    database = SimulatedDatabase()
    engine = create_engine("sqlite://", creator=lambda: database.raw, poolclass=StaticPool)
    fast = [simulate(seed, database=database) for seed in range(20)]

    with TextConnection(engine) as connection:
        database.connection = connection
        slow = [simulate(seed, database=database) for seed in range(20)]
    assert [difference(*both) for both in zip(fast, slow, strict=True)] == [""] * 20
