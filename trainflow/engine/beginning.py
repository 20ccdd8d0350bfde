"""Begin to train what a pipeline file defines, or go on where it was left."""

from __future__ import annotations

import os
from datetime import datetime

from sqlalchemy import Connection

from trainflow.engine.following import Following
from trainflow.identifiers import manual_run_id
from trainflow.metadata import dag_queries, run_queries
from trainflow.metadata.dag_queries import Versions
from trainflow.serialization.document import DagDocument
from trainflow.states import DagRunType, TriggeredBy


def begin(connection: Connection, stored_path: str, now: datetime) -> list[Following]:
    """For each DAG of the file that nothing else triggers: follow its unfinished run, or queue a new one."""
    followings = []
    documents = _documents(connection, stored_path)
    triggered = {
        task.template_fields.get("trigger_dag_id")
        for document in documents
        for task in document.tasks
        if task.template_fields.get("trigger_dag_id") != document.dag_id
    }
    for document in documents:
        dag_id = document.dag_id
        if dag_id in triggered:
            continue
        unfinished = run_queries.unfinished_of(connection, dag_id)
        if unfinished:
            root_id = unfinished[0].root_id or unfinished[0].id
        else:
            root_id = run_queries.create(
                connection,
                dag_id=dag_id,
                run_id=manual_run_id(now, os.urandom(3).hex()),
                run_type=DagRunType.MANUAL,
                triggered_by=TriggeredBy.CLI,
                conf={},
                now=now,
            )
        followings.append(Following(dag_id, root_id, document.chain, now))
    return followings


def _documents(connection: Connection, stored_path: str) -> list[DagDocument]:
    versions = Versions()
    dags = [dag_queries.get(connection, dag_id) for dag_id in dag_queries.of_path(connection, stored_path)]
    return [versions.get(connection, dag.version_id)[0] for dag in dags]
