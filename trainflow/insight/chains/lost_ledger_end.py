"""Whether a home remembers checkpoints that a chain's ledger knows nothing of.

A ledger that lost its end together with everything around it - an older copy of the store was put back, a volume is not
mounted, another store is configured - looks whole by itself. What was committed from here is in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.metadata.queries import status_queries
from trainflow.metadata.sql_text import ReadingConnection
from trainflow.serialization.document import ChainDocument, DagDocument, decode_known

#: so many of the newest runs are looked at: those that found nothing new committed nothing
_RUNS = 20


class RememberedCheckpoint(msgspec.Struct, frozen=True):
    """The checkpoint of the highest number that runs of this home have committed of late, and by which."""

    number: int
    run: int
    at: datetime | None


def last_committed(
    connection: ReadingConnection, documents: Mapping[str, DagDocument]
) -> dict[str, RememberedCheckpoint]:
    """DAG → what its newest runs say of its chain, for those that committed something; one question for all."""
    chains = {dag_id: key_of(each.chain) for dag_id, each in documents.items() if each.chain is not None}
    tasks = {task.task_id for each in documents.values() for task in each.tasks if task.role == "commit"}
    found: dict[str, RememberedCheckpoint] = {}
    for row in status_queries.newest_results(connection, sorted(chains), sorted(tasks), _RUNS):
        number = _committed(row.value, chains[row.dag_id])
        if number is not None and (row.dag_id not in found or number > found[row.dag_id].number):
            found[row.dag_id] = RememberedCheckpoint(number, row.number, row.ended_at)
    return found


def committed_by(connection: ReadingConnection, dag_ids: Iterable[str]) -> dict[str, RememberedCheckpoint]:
    """`last_committed` of DAGs as they are now."""
    rows = [row for dag_id in dag_ids for row in status_queries.dags(connection, dag_id=dag_id)]
    return last_committed(connection, {row.dag_id: decode_known(row.dag_id, row.document) for row in rows})


def describe_loss(found: RememberedCheckpoint | None, last_number: int, url: str) -> str | None:
    """A sentence for people where the ledger's highest number is below what was committed from here; else None."""
    if found is None or found.number <= last_number:
        return None
    when = f" at {found.at:%Y-%m-%dT%H:%MZ}" if found.at is not None else ""
    rest = f"none after {last_number}" if last_number else "no checkpoint at all"
    return (
        f"run {found.run} of this home committed checkpoint {found.number}{when}, and the ledger in {url} knows {rest}"
        ": is it an older copy of the store, another store, or a volume that is not mounted? What comes after its head "
        "is trained again. If that is not meant: stop the engine ('trainflow stop'), put the store back, start again"
    )


def key_of(chain: ChainDocument) -> ChainKey:
    """The name of a chain."""
    return ChainKey(chain.pipeline, chain.stage, chain.branch)


def _committed(value: Any, chain: ChainKey) -> int | None:
    wanted = {"pipeline": chain.pipeline, "stage": chain.stage, "branch": chain.branch}
    if not (isinstance(value, dict) and wanted.items() <= value.items()):
        return None
    number = value.get("number")
    return number if isinstance(number, int) else None
