"""Describe a DAG as a document. Runs only where user code runs.

A form of any value that people can read and that is the same in every process: no addresses, no hash order.

Without secrets: documents are stored, logged and displayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import partial
from pathlib import PurePath
from typing import Any

import msgspec

from trainflow.authoring.dag import DAG
from trainflow.authoring.graph import effective_weights
from trainflow.authoring.operator import BaseOperator
from trainflow.errors import DagDefinitionError
from trainflow.identifiers import canonical_json, digest
from trainflow.observability.redaction import MASK, is_secret_key, redact, redact_text
from trainflow.serialization.document import ChainDocument, DagDocument, RetryDocument, TaskDocument

_TEXT_CHARACTERS = 8192


def stable(value: Any, dag_file: str | None = None) -> Any:
    """JSON that says what `value` is. What is written in `dag_file` is named without its module, whose name may depend
    on how the file was loaded."""
    if value is None or isinstance(value, bool | int):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    simple = _simple(value)
    if simple is not None:
        return simple
    if isinstance(value, Mapping):
        return {str(key): _entry(str(key), item, dag_file) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [stable(item, dag_file) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((stable(item, dag_file) for item in value), key=canonical_json)
    if isinstance(value, msgspec.Struct) or (hasattr(value, "__dataclass_fields__") and not isinstance(value, type)):
        names = value.__struct_fields__ if isinstance(value, msgspec.Struct) else value.__dataclass_fields__
        fields = {name: getattr(value, name) for name in names}
        return stable({name: item for name, item in fields.items() if item is not None}, dag_file)
    if isinstance(value, partial):
        return {
            "function": _name(value.func, dag_file),
            "args": stable(value.args, dag_file),
            "kwargs": stable(value.keywords, dag_file),
        }
    if isinstance(value, type) or callable(value):
        return _name(value, dag_file)
    return f"<{_name(type(value), dag_file)}>"


def _simple(value: Any) -> str | float | None:
    """Values that are written as one string or number."""
    from trainflow.authoring.xcom_arg import XComArg

    if isinstance(value, Enum):
        return stable(value.value)  # type: ignore[no-any-return]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, PurePath | XComArg):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return None


def _text(value: str) -> str:
    """The string without secrets; of a very long one, the beginning and the digest of the whole."""
    text = redact_text(value)
    return text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]}... ({digest(value.encode())})"


def _entry(key: str, value: Any, dag_file: str | None) -> Any:
    if key == "storage_options" and isinstance(value, Mapping):
        return {str(name): MASK for name in value}
    if value is not None and not isinstance(value, bool) and is_secret_key(key):
        return MASK
    return stable(value, dag_file)


def _name(thing: Callable[..., Any] | type, dag_file: str | None) -> str:
    """`module:qualified.name`; of an instance that can be called, the name of its type."""
    if not hasattr(thing, "__qualname__"):
        return f"<{_name(type(thing), dag_file)}>"
    module = getattr(thing, "__module__", None) or ""
    code = getattr(thing, "__code__", None)
    if dag_file is not None and dag_file in (getattr(code, "co_filename", None), _file_of(module)):
        return thing.__qualname__
    return f"{module}:{thing.__qualname__}"


def _file_of(module: str) -> str | None:
    import sys

    return getattr(sys.modules.get(module), "__file__", None)


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
