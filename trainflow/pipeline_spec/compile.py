"""A pipeline spec → the DAG: `[prepare →] checkpoint → samples → [evaluate →] train → commit → next`, and where another
stage follows, `samples → next_stage`.

Nothing but operators of `trainflow.operators` with plain arguments: what is written here can be written in Python, and
`pipelines/flight_delay_dag.py` is that.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from trainflow.authoring.dag import DAG
from trainflow.authoring.xcom_arg import XComArg
from trainflow.operators.checkpoint import CheckpointOperator
from trainflow.operators.commit import CommitCheckpointOperator
from trainflow.operators.evaluate import EvaluateOperator
from trainflow.operators.handover import CONF_REPAIR, CONF_SKIPPED
from trainflow.operators.python import PythonOperator
from trainflow.operators.samples import DataCheckerOperator
from trainflow.operators.train import TrainOperator
from trainflow.operators.trigger_dagrun import TriggerDagRunOperator
from trainflow.pipeline_spec.model import PipelineSpec
from trainflow.pipeline_spec.retention_section import policies_of
from trainflow.pipeline_spec.samples_section import limits_of, samples_of
from trainflow.pipeline_spec.section import TaskSection
from trainflow.states import TriggerRule


def compile_pipeline(spec: PipelineSpec) -> DAG:
    """The DAG of a pipeline. One run at a time: the chain is a line."""
    dag_id = dag_id_of(spec)
    with DAG(
        dag_id,
        description=spec.description,
        tags=spec.tags,
        params=spec.params,
        max_active_runs=1,
    ) as dag:
        head = _checkpoint(spec)
        split = _samples(spec, head)
        evaluated = _evaluate(spec, head, split)
        trained = _train(spec, head, split, evaluated)
        committed = _commit(spec, head, split, trained, evaluated)
        committed.operator >> TriggerDagRunOperator(
            task_id="next", trigger_dag_id=dag_id, carry_conf=(CONF_REPAIR, CONF_SKIPPED), **_attempts(spec)
        )
        if spec.next_stage:
            split.operator >> _next_stage(spec, spec.next_stage)
    return dag


def dag_id_of(spec: PipelineSpec) -> str:
    """A DAG trains one chain: that of `main` is named as the pipeline, a stage or branch of it says which."""
    if spec.branch != "main":
        return f"{spec.pipeline}.{spec.stage}.{spec.branch}"
    return spec.pipeline if spec.stage == "main" else f"{spec.pipeline}.{spec.stage}"


def _checkpoint(spec: PipelineSpec) -> XComArg:
    operator = CheckpointOperator(
        task_id="checkpoint",
        pipeline=spec.pipeline,
        stage=spec.stage,
        branch=spec.branch,
        store=spec.store.url if spec.store else None,
        storage_options=spec.store.storage_options if spec.store else None,
        start_from=spec.start_from,
        **_attempts(spec),
    )
    if spec.prepare:
        prepare = PythonOperator(
            task_id="prepare", python_callable=spec.prepare.function, **_attempts(spec, spec.prepare)
        )
        prepare >> operator
    return operator.output


def _samples(spec: PipelineSpec, head: XComArg) -> XComArg:
    section = spec.samples
    return DataCheckerOperator(
        task_id="samples",
        samples=samples_of(section),
        limits=limits_of(spec.split),
        checkpoint=head,
        mode=spec.mode,
        poke_interval=section.poke_interval,
        timeout=section.wait_timeout,
        **_attempts(spec, section),
    ).output


def _evaluate(spec: PipelineSpec, head: XComArg, split: XComArg) -> XComArg | None:
    if spec.evaluate is None:
        return None
    return EvaluateOperator(
        task_id="evaluate",
        function=spec.evaluate.function,
        checkpoint=head,
        split=split,
        **_attempts(spec, spec.evaluate),
    ).output


def _train(spec: PipelineSpec, head: XComArg, split: XComArg, evaluated: XComArg | None) -> XComArg:
    operator = TrainOperator(
        task_id="train",
        function=spec.train.function,
        command=spec.train.command,
        checkpoint=head,
        split=split,
        **_attempts(spec, spec.train),
    )
    if evaluated is not None:
        evaluated.operator >> operator  # one after the other: both want all of the machine
    return operator.output


def _commit(spec: PipelineSpec, head: XComArg, split: XComArg, trained: XComArg, evaluated: XComArg | None) -> XComArg:
    return CommitCheckpointOperator(
        task_id="commit",
        checkpoint=head,
        split=split,
        trained=trained,
        evaluated=evaluated,
        gates=spec.gates,
        retention=policies_of(spec.retention),
        **_attempts(spec, spec.commit),
    ).output


def _next_stage(spec: PipelineSpec, dag_id: str) -> TriggerDagRunOperator:
    """Runs when there is nothing to train on any more: then, and only then, the samples task ends skipped.

    Naming the checkpoint by a template, and not by `head`, keeps the checkpoint task, which succeeds, from being a
    second task that `all_skipped` waits for. Where everything was skipped for another reason the template has no value,
    so the task fails.
    """
    checkpoint = "{{ task_instance.xcom_pull(task_ids='checkpoint')['id'] }}"
    return TriggerDagRunOperator(
        task_id="next_stage",
        trigger_dag_id=dag_id,
        conf={"start_from": f"{spec.pipeline}/{spec.stage}/{spec.branch}@{checkpoint}"},
        trigger_rule=TriggerRule.ALL_SKIPPED,
        **_attempts(spec),
    )


def _attempts(spec: PipelineSpec, section: TaskSection | None = None) -> dict[str, Any]:
    """Retries and limits of a task: its section's, else the pipeline's."""
    section = section or TaskSection()
    delay: timedelta = spec.retry_delay if section.retry_delay is None else section.retry_delay
    return {
        "retries": spec.retries if section.retries is None else section.retries,
        "retry_delay": delay,
        "execution_timeout": section.timeout,
        "pool": section.pool,
        "queue": section.queue,
    }
