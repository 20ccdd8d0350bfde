"""Whether a home remembers checkpoints that a chain's ledger knows nothing of.

A ledger that lost its end together with everything around it - an older copy of the store was put back, a volume is not
mounted, another store is configured - looks whole by itself. What was committed from here is in the database.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from trainflow.checkpoints.chain import ChainKey
from trainflow.metadata.queries import run_queries, xcom_queries
from trainflow.states import DagRunState

#: so many of the newest runs are looked at: those that found nothing new committed nothing
_RUNS = 20


class RememberedCheckpoint(NamedTuple):
    """The newest checkpoint that a run of this home has committed."""

    number: int
    run: int
    at: datetime


def newest_committed(connection: Connection, dag_id: str, chain: ChainKey) -> RememberedCheckpoint | None:
    """What the newest runs of a DAG say of a chain; None: they have committed nothing."""
    for row in run_queries.listing(connection, [dag_id], _RUNS, DagRunState.SUCCESS):
        number = _committed(xcom_queries.of_run(connection, row.id).values(), chain)
        if number is not None:
            return RememberedCheckpoint(number, row.number, row.ended_at)
    return None


def describe_loss(found: RememberedCheckpoint | None, last_number: int, url: str) -> str | None:
    """A sentence for people where the ledger's highest number is below what was committed from here; else None."""
    if found is None or found.number <= last_number:
        return None
    rest = f"none after {last_number}" if last_number else "no checkpoint at all"
    return (
        f"run {found.run} of this home committed checkpoint {found.number} at {found.at:%Y-%m-%dT%H:%MZ}, and the "
        f"ledger in {url} knows {rest}: is it an older copy of the store, another store, or a volume that is not "
        "mounted? What comes after its head is trained again. If that is not meant: stop (Ctrl-C), put the store back, "
        "and start again"
    )


def _committed(values: Iterable[Any], chain: ChainKey) -> int | None:
    wanted = {"pipeline": chain.pipeline, "stage": chain.stage, "branch": chain.branch}
    for value in values:
        if isinstance(value, dict) and wanted.items() <= value.items() and {"id", "uri", "watermark"} <= value.keys():
            number = value.get("number")
            return number if isinstance(number, int) else None
    return None
