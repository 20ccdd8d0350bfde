"""EvaluateOperator: how good is the head on samples it has never seen?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainflow.authoring.context import Context
from trainflow.operators import function_reference
from trainflow.operators.chain.chain_operator import SplitOperator
from trainflow.operators.chain.parent import fetch_judged
from trainflow.operators.chain.run_conf import params_of
from trainflow.operators.training.training_context import (
    EvaluateContext,
    EvaluateFunction,
    checked_metrics,
    enter_tracking_run,
    metrics_to_xcom,
    seed_of,
    uses_mlflow,
)


class EvaluateOperator(SplitOperator):
    """Let the head of the chain score the new split *before* it is trained on: honest, and free of leakage.

    `function` is a callable or `"module.path:name"`; it is called with an EvaluateContext and returns metrics. `params`
    as in TrainOperator. A stage that starts from an upstream is scored by its own head too: the upstream has seen the
    split. When the chain has no checkpoint yet, what it was forked from or one of the upstream that has not is asked;
    else there is nothing to score: the task succeeds, returns None and skips nothing.
    """

    role = "evaluate"

    def __init__(
        self,
        *,
        task_id: str = "evaluate",
        function: EvaluateFunction | str,
        checkpoint: Any,
        split: Any,
        storage_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task_id=task_id, checkpoint=checkpoint, split=split, storage_options=storage_options, **kwargs)
        if isinstance(function, str):
            function_reference.split_reference(function)
        self.function = function

    def warm_up(self, project_root: Path) -> None:
        from trainflow.samples.rows.batches import warm_up

        super().warm_up(project_root)
        warm_up()
        function_reference.resolve(self.function, project_root)

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Returns the metrics; None when there is no checkpoint to evaluate."""
        ti = context["ti"]
        head = self.head()
        split = self.load_split(ti)
        parent = fetch_judged(self.open_ledger(head, ti), head, split, ti, self.foreign_options(ti))
        if parent is None:
            ti.set_note("no checkpoint to evaluate yet")
            return None
        function = function_reference.resolve_for_good(self.function, ti.project_root)
        if uses_mlflow():
            enter_tracking_run(ti)
        evaluation = EvaluateContext(
            split=split,
            parent=parent,
            params=params_of(context.get("params")),
            seed=seed_of(head.chain.prefix, split.digest, head.generation),
            run_id=ti.run_id,
            attempt_id=ti.attempt_id,
            logger=ti.log,
            project_root=ti.project_root,
            _report=ti.report_progress,
        )
        name = f"the evaluating function {function_reference.reference_of(self.function)}"
        with self.bound(split, ti):
            return metrics_to_xcom(checked_metrics(function(evaluation), name))
