"""The pipeline that is simulated: the one-run DAG of a chain, as a document."""

from __future__ import annotations

from trainflow.checkpoints.chain import ChainKey
from trainflow.messages.workload import DagSource
from trainflow.serialization.document import ChainDocument, DagDocument, RetryDocument, TaskDocument

DAG_ID = "simulated"
CHAIN = ChainKey(DAG_ID)
SOURCE = DagSource("pipelines/simulated.yaml")
RETRIES = 2
MAX_ACTIVE_RUNS = 1
TASKS = ("checkpoint", "samples", "evaluate", "train", "commit", "next")
_RETRY = RetryDocument(retries=RETRIES, delay_seconds=5.0)


def document(mode: str, *, evaluates: bool) -> DagDocument:
    """The DAG of a pipeline in this mode (`backfill`, `latest`), with or without an evaluation of the head."""
    names = [name for name in TASKS if evaluates or name != "evaluate"]
    tasks = [
        TaskDocument(
            name,
            operator="TriggerDagRunOperator" if name == "next" else f"{name.title()}Operator",
            role=None if name == "next" else name,
            upstream=names[max(0, number - 1) : number],
            retry=_RETRY,
            priority_weight=len(names) - number,
            template_fields={"trigger_dag_id": DAG_ID} if name == "next" else {},
            shielded=name == "commit",
        )
        for number, name in enumerate(names)
    ]
    chain = ChainDocument(CHAIN.pipeline, CHAIN.stage, CHAIN.branch, store="simulated:/", mode=mode)
    return DagDocument(DAG_ID, tasks, max_active_runs=MAX_ACTIVE_RUNS, chain=chain)
