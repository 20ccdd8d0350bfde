"""What the attempts of runs have asked of stores. All of them together: `trainflow.insight.metrics`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from trainflow.metadata.queries import attempt_queries
from trainflow.observability.store_requests import Totals, totals


def store_totals(connection: Connection, runs: Sequence[int]) -> dict[int, Totals | None]:
    """What the attempts of runs asked of stores; None: nothing. By the id of the run."""
    found = attempt_queries.store_use_by_run(connection, runs)
    return {run: totals(uses) if uses else None for run, uses in found.items()}
