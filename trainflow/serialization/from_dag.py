"""Describe a DAG as a document. Runs only where user code runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from trainflow.authoring.dag import DAG
from trainflow.authoring.graph import effective_weights
from trainflow.authoring.operator import BaseOperator
from trainflow.errors import DagDefinitionError
from trainflow.observability.redaction import redact
from trainflow.serialization.document import ChainDocument, DagDocument, RetryDocument, TaskDocument
from trainflow.serialization.stable_text import stable

_CHAIN_FIELDS = frozenset(ChainDocument.__struct_fields__)


def to_document(dag: DAG, content: str = "") -> DagDocument:
    """The document of `dag`; `content` is the digest of what else decides what an attempt does.

    The same DAG gives the same document in every process and at every path. Raises InputError for a DAG that cannot be
    (see `DAG.validate`).
    """
    graph = dag.validate()
    weights = effective_weights(graph, {task.task_id: (task.priority_weight, task.weight_rule) for task in dag.tasks})
    order = [dag.get_task(task_id) for task_id in graph.order()]
    return DagDocument(
        dag_id=dag.dag_id,
        tasks=[_task(task, list(graph.upstream[task.task_id]), weights[task.task_id], dag.fileloc) for task in order],
        description=dag.description,
        doc=dag.doc_md,
        max_active_runs=dag.max_active_runs,
        max_active_tasks=dag.max_active_tasks,
        dagrun_timeout_seconds=_seconds(dag.dagrun_timeout),
        fail_fast=dag.fail_fast,
        tags=list(dag.tags),
        params={name: _without_secret(name, schema) for name, schema in dag.param_schemas.items()},
        is_paused_upon_creation=dag.is_paused_upon_creation,
        chain=_chain(dag.dag_id, order),
        content=content,
    )


def _task(task: BaseOperator, upstream: list[str], weight: int, dag_file: str | None) -> TaskDocument:
    return TaskDocument(
        task_id=task.task_id,
        operator=task.task_type,
        role=task.role,
        upstream=upstream,
        trigger_rule=task.trigger_rule,
        retry=RetryDocument(
            retries=task.retries,
            delay_seconds=task.retry_delay.total_seconds(),
            multiplier=task.retry_exponential_backoff,
            max_delay_seconds=_seconds(task.max_retry_delay),
        ),
        pool=task.pool,
        pool_slots=task.pool_slots,
        priority_weight=weight,
        queue=task.queue,
        executor=task.executor,
        executor_config=task.executor_config,
        depends_on_past=task.depends_on_past,
        execution_timeout_seconds=_seconds(task.execution_timeout),
        max_active_tis_per_dag=task.max_active_tis_per_dag,
        max_active_tis_per_dagrun=task.max_active_tis_per_dagrun,
        is_setup=task.is_setup,
        is_teardown=task.is_teardown,
        shielded=task.shielded,
        nodes=task.nodes,
        template_fields=stable({field: getattr(task, field) for field in task.template_fields}, dag_file),
        doc=task.doc_md,
    )


def _without_secret(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a param: its default is for the record, an attempt takes it from the file."""
    default = schema.get("default")
    return {**schema, "default": redact(default, name)} if isinstance(default, str) else dict(schema)


def _chain(dag_id: str, tasks: list[BaseOperator]) -> ChainDocument | None:
    """What the tasks say together; None when none of them names a pipeline."""
    facts: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    for task in tasks:
        for name, value in task.chain_facts().items():
            if name not in _CHAIN_FIELDS:
                raise DagDefinitionError(
                    f"{task!r}: chain_facts() gives {name!r}, which is none of {', '.join(sorted(_CHAIN_FIELDS))}",
                    task_ids=(task.task_id,),
                )
            if name in facts and facts[name] != value:
                raise DagDefinitionError(
                    f"DAG {dag_id!r}: tasks {said_by[name]!r} and {task.task_id!r} name different chains "
                    f"({name}); a DAG trains one",
                    task_ids=(said_by[name], task.task_id),
                )
            facts[name] = value
            said_by.setdefault(name, task.task_id)
    return _chain_of(facts) if "pipeline" in facts else None


def _chain_of(facts: Mapping[str, Any]) -> ChainDocument:
    defaults = {"stage": "main", "branch": "main", "store": ""}
    given = {name: value for name, value in facts.items() if value is not None}
    return msgspec.convert({**defaults, **given}, ChainDocument)


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value.total_seconds()
