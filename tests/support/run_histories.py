"""A history of runs that ended well, written at once: for what must not cost in proportion to it."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from sqlalchemy import Connection, insert

from trainflow.clock import SystemClock
from trainflow.messages.workload import DagSource
from trainflow.metadata.models import AttemptTable, DagRunTable, TaskInstanceTable, XComTable
from trainflow.metadata.queries import dag_queries
from trainflow.serialization.document import DagDocument, encode
from trainflow.testing.chains import START

_TABLES = {"runs": DagRunTable, "tasks": TaskInstanceTable, "attempts": AttemptTable, "xcoms": XComTable}
#: more than the tasks of any of these DAGs
_TASKS = 16
Rows = dict[str, list[dict[str, object]]]


def write_history(connection: Connection, document: DagDocument, runs: int, *, place: int = 0) -> None:
    """Store the DAG and so many runs of it, an hour after each other; `place` tells the DAGs of one database apart,
    which have the same number of `runs`. What commits says which checkpoint it was."""
    source = DagSource(f"pipelines/{document.dag_id}.yaml")
    dag_queries.store(connection, document, encode(document), source, SystemClock().now())
    version = dag_queries.get(connection, document.dag_id).version_id
    made: Rows = {name: [] for name in _TABLES}
    for number in range(1, runs + 1):
        _add_run(made, document, version, place * runs + number, number)
    for name, table in _TABLES.items():
        if made[name]:
            connection.execute(insert(table.table), made[name])
    if connection.dialect.name == "postgresql":
        # a key that is given does not move what gives the next one
        for name in ("dag_run", "task_instance"):
            sequence = f"pg_get_serial_sequence('{name}', 'id')"
            connection.exec_driver_sql(f"SELECT setval({sequence}, (SELECT max(id) FROM {name}))")


def _add_run(made: Rows, document: DagDocument, version: int, run_key: int, number: int) -> None:
    at = START + timedelta(hours=number)
    times = {"queued_at": at, "started_at": at, "ended_at": at + timedelta(minutes=9)}
    made["runs"].append(
        {
            "id": run_key,
            "dag_id": document.dag_id,
            "run_id": f"manual__{number:05}",
            "number": number,
            "version_id": version,
            "state": "success",
            "run_type": "manual",
            "triggered_by": "cli",
            "conf": {},
            "run_after": at,
            "clear_number": 0,
            **times,
        }
    )
    for index, task in enumerate(document.tasks):
        key, attempt = run_key * _TASKS + index, f"{run_key}.{index}"
        of_task = {"dag_run_id": run_key, "task_id": task.task_id}
        made["tasks"].append(
            {"id": key, **of_task, "state": "success", "attempt_id": attempt, "pool": "default_pool", **times}
        )
        made["attempts"].append(
            {
                "attempt_id": attempt,
                "task_instance_id": key,
                "try_number": 1,
                "outcome": "success",
                "log_name": attempt,
                **times,
            }
        )
        if task.role == "commit" and document.chain is not None:
            chain = document.chain
            value = {"pipeline": chain.pipeline, "stage": chain.stage, "branch": chain.branch, "number": number}
            xcom = {**of_task, "key": "return_value", "value": msgspec.json.encode(value).decode(), "created_at": at}
            made["xcoms"].append(xcom)
