"""A pipeline spec → its DAGs, one a stage: `[prepare →] checkpoint → samples → [evaluate →] train → commit → next`, and
for each stage that starts from this one, `commit → next_STAGE` or, where that begins once, `samples → next_STAGE`.

Nothing but operators of `trainflow.operators` with plain arguments: what is written here can be written in Python, and
`pipelines/flight_delay_dag.py` is that.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from trainflow.authoring.dag import DAG
from trainflow.authoring.xcom_arg import XComArg
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.stages.init_from import Dependent
from trainflow.identifiers import chain_dag_id
from trainflow.messages.notice import XCOM_MORE
from trainflow.operators.after_commit import AfterCommitOperator
from trainflow.operators.chain.run_conf import CONF_REPAIR, CONF_SKIPPED
from trainflow.operators.checkpoint import XCOM_PIN, CheckpointOperator
from trainflow.operators.commit import XCOM_PASSED, XCOM_SKIPPED, CommitCheckpointOperator
from trainflow.operators.data_checker import XCOM_STEPPED_OVER, XCOM_TRAINED, DataCheckerOperator
from trainflow.operators.evaluate import EvaluateOperator
from trainflow.operators.python import PythonOperator
from trainflow.operators.train import TrainOperator
from trainflow.operators.trigger_dagrun import TriggerDagRunOperator
from trainflow.pipeline_spec.model import PipelineSpec, StageSpec
from trainflow.pipeline_spec.samples_section import limits_of, samples_of
from trainflow.pipeline_spec.sections import TaskSection, adopt_of, gates_of, policies_of, promotes_of
from trainflow.pipeline_spec.stage_cycles import is_feedback, passes_to, through, upstream_of
from trainflow.states import TriggerRule


class _Stage(NamedTuple):
    """A stage and its place in the pipeline."""

    pipeline: PipelineSpec
    name: str
    spec: StageSpec

    @property
    def dag_id(self) -> str:
        return dag_id_of(self.pipeline, self.name)

    @property
    def follows(self) -> bool:
        """Whether each of its runs starts from an upstream: then what it commits is not what its next run starts
        from."""
        init = self.spec.init_from
        return init is not None and not init.once and init.checkpoint is None

    @property
    def dependents(self) -> list[_Stage]:
        """The stages of this file that start from this one."""
        stages = self.pipeline.stages.items()
        return [
            _Stage(self.pipeline, name, spec) for name, spec in stages if upstream_of(self.pipeline, name) == self.name
        ]

    @property
    def as_dependent(self) -> Dependent:
        """The follower as the retention of its upstream knows it."""
        init = self.spec.init_from
        assert init is not None
        chain = ChainKey(self.pipeline.pipeline, self.name, self.pipeline.branch)
        feedback = is_feedback(self.pipeline, self.name)
        return Dependent(chain, init.at or "same_watermark", init.once, feedback)


def compile_pipeline(spec: PipelineSpec) -> tuple[DAG, ...]:
    """The DAGs of a pipeline, in the order of its stages."""
    return tuple(_compile(_Stage(spec, name, stage)) for name, stage in spec.stages.items())


def dag_id_of(spec: PipelineSpec, stage: str) -> str:
    """The DAG of a stage: each trains one chain."""
    return chain_dag_id(spec.pipeline, stage, spec.branch)


def _compile(stage: _Stage) -> DAG:
    """One run at a time: the chain is a line."""
    spec = stage.spec
    with DAG(
        stage.dag_id,
        description=spec.description,
        tags=stage.pipeline.tags,
        params=spec.params,
        max_active_runs=1,
    ) as dag:
        head = _checkpoint(stage)
        split = _samples(stage, head)
        evaluated = _evaluate(spec, head, split)
        trained = _train(spec, head, split, evaluated)
        committed = _commit(stage, head, split, trained, evaluated)
        _next(stage, head, committed)
        _after_commit(spec, head, committed)
        for dependent in stage.dependents:
            _next_stage(stage, dependent, split, committed)
        _pass_on(stage, split, committed)
    return dag


def _checkpoint(stage: _Stage) -> XComArg:
    spec = stage.spec
    operator = CheckpointOperator(
        task_id="checkpoint",
        pipeline=stage.pipeline.pipeline,
        stage=stage.name,
        branch=stage.pipeline.branch,
        store=spec.store.url if spec.store else None,
        storage_options=spec.store.storage_options if spec.store else None,
        init_from=spec.init_from.as_argument(
            feedback=is_feedback(stage.pipeline, stage.name), through=through(stage.pipeline, stage.name)
        )
        if spec.init_from
        else None,
        adopt=adopt_of(spec.adopt) if spec.adopt else None,
        **_attempts(spec),
    )
    if spec.prepare:
        prepare = PythonOperator(
            task_id="prepare", python_callable=spec.prepare.function, **_attempts(spec, spec.prepare)
        )
        prepare >> operator
    return operator.output


def _samples(stage: _Stage, head: XComArg) -> XComArg:
    spec, section = stage.spec, stage.spec.samples
    operator = DataCheckerOperator(
        task_id="samples",
        samples=samples_of(section),
        limits=limits_of(spec.split),
        checkpoint=head,
        mode=spec.mode,
        in_circle=passes_to(stage.pipeline, stage.name) is not None,
        poke_interval=section.poke_interval,
        timeout=section.wait_timeout,
        **_attempts(spec, section),
    )
    operator.written_at = spec.places
    return operator.output


def _evaluate(spec: StageSpec, head: XComArg, split: XComArg) -> XComArg | None:
    if spec.evaluate is None:
        return None
    return EvaluateOperator(
        task_id="evaluate",
        function=spec.evaluate.function,
        checkpoint=head,
        split=split,
        **_attempts(spec, spec.evaluate),
    ).output


def _train(spec: StageSpec, head: XComArg, split: XComArg, evaluated: XComArg | None) -> XComArg:
    operator = TrainOperator(
        task_id="train",
        function=spec.train.function,
        command=spec.train.command,
        nodes=spec.train.nodes,
        checkpoint=head,
        split=split,
        **_attempts(spec, spec.train),
    )
    if evaluated is not None:
        evaluated.operator >> operator  # one after the other: both want all of the machine
    return operator.output


def _commit(stage: _Stage, head: XComArg, split: XComArg, trained: XComArg, evaluated: XComArg | None) -> XComArg:
    spec = stage.spec
    operator = CommitCheckpointOperator(
        task_id="commit",
        checkpoint=head,
        split=split,
        trained=trained,
        evaluated=evaluated,
        gates=gates_of(spec.gates),
        promote=promotes_of(spec.promote),
        retention=policies_of(spec.retention),
        dependents=[each.as_dependent for each in stage.dependents],
        **_attempts(spec, spec.commit),
    )
    operator.written_at = spec.places
    return operator.output


def _next(stage: _Stage, head: XComArg, committed: XComArg) -> None:
    """The same stage again. One that follows an upstream goes on while there is more of it, up to where it was told
    to."""
    options: dict[str, Any] = {"carry_conf": (CONF_REPAIR, CONF_SKIPPED)}
    if stage.follows:
        options["when"] = committed[XCOM_MORE]
        if upstream_of(stage.pipeline, stage.name):
            options["conf"] = {"init_from": head[XCOM_PIN]}
    committed.operator >> TriggerDagRunOperator(
        task_id="next", trigger_dag_id=stage.dag_id, **options, **_attempts(stage.spec)
    )


def _after_commit(spec: StageSpec, head: XComArg, committed: XComArg) -> None:
    """What the next run does not wait for."""
    for section in spec.after_commit:
        AfterCommitOperator(
            task_id=section.name,
            function=section.function,
            command=section.command,
            checkpoint=head,
            committed=committed,
            **_attempts(spec, section),
        )


def _next_stage(stage: _Stage, dependent: _Stage, split: XComArg, committed: XComArg) -> None:
    """A stage that starts from this one, told from which checkpoint: at each commit, or once this one is caught up.

    Then, and only then, the samples task ends skipped; where it did because of an upstream of this stage, it names no
    checkpoint, and nothing is triggered.
    """
    # a run whose split was skipped, or that rewound its chain, has committed nothing to start from; in a circle the
    # stage that begins it is waiting all the same
    passed = committed[XCOM_PASSED] if is_feedback(stage.pipeline, dependent.name) else committed
    options: dict[str, Any] = {"conf": {"init_from": passed}, "when": passed}
    if not dependent.follows:
        caught_up = split[XCOM_TRAINED]
        options = {"conf": {"init_from": caught_up}, "when": caught_up, "trigger_rule": TriggerRule.ALL_SKIPPED}
    TriggerDagRunOperator(
        task_id=f"next_{dependent.name}", trigger_dag_id=dependent.dag_id, **options, **_attempts(stage.spec)
    )


def _pass_on(stage: _Stage, split: XComArg, committed: XComArg) -> None:
    """Have the next stage of a circle that has something to do go on when this one has stepped over all that its
    upstream let it train on, by a decision (its direct follower knows without) or because it is missing."""
    name = passes_to(stage.pipeline, stage.name)
    if name is None:
        return
    waiting = _Stage(stage.pipeline, name, stage.pipeline.stages[name]).dag_id
    if not (upstream_of(stage.pipeline, name) == stage.name and is_feedback(stage.pipeline, name)):
        TriggerDagRunOperator(
            task_id=f"skipped_{name}",
            trigger_dag_id=waiting,
            when=committed[XCOM_SKIPPED],
            **_attempts(stage.spec),
        )
    TriggerDagRunOperator(
        task_id=f"stepped_over_{name}",
        trigger_dag_id=waiting,
        when=split[XCOM_STEPPED_OVER],
        trigger_rule=TriggerRule.ALL_SKIPPED,
        **_attempts(stage.spec),
    )


def _attempts(spec: StageSpec, section: TaskSection | None = None) -> dict[str, Any]:
    """Retries, limits and executor of a task: its section's, else the stage's."""
    section = section or TaskSection()
    delay: timedelta = spec.retry_delay if section.retry_delay is None else section.retry_delay
    return {
        "retries": spec.retries if section.retries is None else section.retries,
        "retry_delay": delay,
        "execution_timeout": section.timeout,
        "pool": section.pool,
        "queue": section.queue,
        "executor": section.executor or spec.executor,
        "executor_config": {**spec.executor_config, **section.executor_config},
    }
