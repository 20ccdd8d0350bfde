"""The document of a DAG: what the scheduler needs, in canonical JSON; its digest is the DAG's version."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger_changes.import_spec import Adopt
from trainflow.checkpoints.stages.init_from import InitFrom
from trainflow.identifiers import canonical_json, digest
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.states import TriggerRule


class RetryDocument(msgspec.Struct, frozen=True):
    """How often and when a failed attempt is tried again.

    `multiplier` 0: always `delay_seconds`; otherwise it grows, see `trainflow.metadata.retry_policy.retry_delay`.
    """

    retries: int = 0
    delay_seconds: float = 300.0
    multiplier: float = 0.0
    max_delay_seconds: float | None = None


class TaskDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """One task."""

    task_id: str
    operator: str
    #: what the task does for its chain: "checkpoint", "samples", "evaluate", "train", "commit", "after_commit"; None:
    #: nothing of these
    role: str | None = None
    upstream: list[str] = msgspec.field(default_factory=list)
    trigger_rule: TriggerRule = TriggerRule.ALL_SUCCESS
    retry: RetryDocument = msgspec.field(default_factory=RetryDocument)
    pool: str = "default_pool"
    pool_slots: int = 1
    priority_weight: int = 1
    queue: str = "default"
    #: None: the one of tasks that name none
    executor: str | None = None
    #: what it asks of the executor
    executor_config: dict[str, Any] = msgspec.field(default_factory=dict)
    depends_on_past: bool = False
    execution_timeout_seconds: float | None = None
    max_active_tis_per_dag: int | None = None
    max_active_tis_per_dagrun: int | None = None
    is_setup: bool = False
    is_teardown: bool = False
    #: short and worth finishing: a stopping engine waits for it
    shielded: bool = False
    #: how many processes train together
    nodes: int = 1
    #: template fields as written, for people
    template_fields: dict[str, Any] = msgspec.field(default_factory=dict)
    doc: str | None = None


class ChainDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a DAG trains: enough to audit and plan it without running its code."""

    pipeline: str
    stage: str
    branch: str
    #: fsspec URL; a path is relative to the project
    store: str
    storage_options: dict[str, Any] = msgspec.field(default_factory=dict)
    samples: Samples | None = None
    limits: SplitLimits | None = None
    mode: str = "backfill"
    #: where a chain without entries begins
    adopt: Adopt | None = None
    #: the chain whose checkpoints its runs start from
    init_from: InitFrom | None = None
    #: conditions that a checkpoint must meet to be committed, as they are written
    gates: list[str] = []

    @property
    def places(self) -> list[str]:
        """What it names: where its checkpoints and samples are, and what it adopts."""
        return [self.store, *(each.path for each in (self.samples, self.adopt) if each is not None)]


class DagDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """One DAG."""

    dag_id: str
    tasks: list[TaskDocument]
    description: str | None = None
    doc: str | None = None
    max_active_runs: int = 16
    max_active_tasks: int = 16
    dagrun_timeout_seconds: float | None = None
    fail_fast: bool = False
    tags: list[str] = msgspec.field(default_factory=list)
    #: name → JSON schema with its `default`
    params: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    is_paused_upon_creation: bool = False
    chain: ChainDocument | None = None
    #: digest of what else decides what an attempt does (the resolved YAML); empty for Python files
    content: str = ""

    def task(self, task_id: str) -> TaskDocument | None:
        """The task of this id, or None."""
        return next((task for task in self.tasks if task.task_id == task_id), None)

    def with_downstream(self, task_ids: Collection[str]) -> set[str]:
        """Tasks, and all that wait for them, directly or not."""
        reached = set(task_ids)
        for task in self.tasks:  # in topological order: one pass
            if not reached.isdisjoint(task.upstream):
                reached.add(task.task_id)
        return reached


def encode(document: DagDocument) -> bytes:
    """Canonical bytes of a document."""
    return canonical_json(msgspec.to_builtins(document))


def decode(data: bytes | str) -> DagDocument:
    """The inverse of `encode`. Raises msgspec.ValidationError for what is no document."""
    return msgspec.json.decode(data, type=DagDocument)


def decode_known(dag_id: str, data: bytes | str) -> DagDocument:
    """The document of a DAG where several are looked at: of one that another version of trainflow has written, and that
    cannot be read here, its id is all that is known, until its file is read again."""
    try:
        return decode(data)
    except msgspec.MsgspecError as error:
        import logging  # a command that reads documents as they should be does without it

        logger = logging.getLogger(__name__)
        logger.warning("DAG %s was stored by another version of trainflow, and cannot be read: %s", dag_id, error)
        return DagDocument(dag_id=dag_id, tasks=[])


def version_of(data: bytes) -> str:
    """The version of a DAG: digest of its canonical bytes."""
    return digest(data)


def upstream_first(documents: list[DagDocument]) -> list[DagDocument]:
    """Each stage after the one it starts from; what begins a circle comes first."""
    named = [(each.chain, each) for each in documents if each.chain]
    chains = {ChainKey(chain.pipeline, chain.stage, chain.branch): each for chain, each in named}

    def depth(document: DagDocument, seen: frozenset[str] = frozenset()) -> int:
        init = document.chain.init_from if document.chain else None
        upstream = chains.get(init.chain) if init and not init.feedback else None
        if upstream is None or upstream.dag_id in seen:
            return 0
        return 1 + depth(upstream, seen | {document.dag_id})

    return sorted(documents, key=lambda each: (depth(each), each.dag_id))
