"""Operators that chain: what pipelines import.

    from trainflow.operators import CheckpointOperator, DataCheckerOperator, TrainOperator, TriggerDagRunOperator

One run of a chain is `checkpoint → samples → [evaluate →] train → commit → next`. Each operator is one module, named
after its class; what they hand to each other is small JSON, and none of it is secret.

Invariants
- `execute` may be killed at any point and run again by another attempt: a commit gives the same checkpoint, a trigger
  names the same run, training writes into another folder.
- Options for storage (keys, endpoints) are put together in the process that uses them and never leave it.
- What waits, waits in the triggerer; a trigger asks the very question its operator asks.

A change breaks this when importing a name loads pyarrow, fsspec, mlflow or jinja2, when an operator keeps state outside
of the ledger and the outcome of its attempt, or when a default depends on the time of day.

Reading order: `checkpoint`, `data_checker`, `train`, `evaluate`, `commit`, `after_commit`, `trigger_dagrun`; then what
they stand on: `chain` (the head, the way into its chain, where weights come from, what is told), `training` (what a
function or program is given, and its saves), `function_reference`, `process_group`, `triggers` (what is waited for).
`python` and `bash` chain nothing.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainflow.checkpoints.commit.gates import Gate
    from trainflow.checkpoints.ledger_changes.import_spec import Adopt
    from trainflow.checkpoints.ledger_changes.promote import Promote
    from trainflow.operators.after_commit import AfterCommitContext, AfterCommitOperator
    from trainflow.operators.bash import BashOperator
    from trainflow.operators.checkpoint import CheckpointOperator
    from trainflow.operators.commit import CommitCheckpointOperator
    from trainflow.operators.data_checker import DataCheckerOperator
    from trainflow.operators.evaluate import EvaluateOperator
    from trainflow.operators.python import EmptyOperator, PythonOperator
    from trainflow.operators.train import TrainOperator
    from trainflow.operators.training.model_signature import ModelSignature
    from trainflow.operators.training.training_context import EvaluateContext, ParentCheckpoint, TrainContext
    from trainflow.operators.training.training_task import training_task
    from trainflow.operators.trigger_dagrun import TriggerDagRunOperator
    from trainflow.samples.spec import Checks, GapPolicy, Ready, Republished, Samples, SplitLimits

__all__ = [
    "Adopt",
    "AfterCommitContext",
    "AfterCommitOperator",
    "BashOperator",
    "CheckpointOperator",
    "Checks",
    "CommitCheckpointOperator",
    "DataCheckerOperator",
    "EmptyOperator",
    "EvaluateContext",
    "EvaluateOperator",
    "GapPolicy",
    "Gate",
    "ModelSignature",
    "ParentCheckpoint",
    "Promote",
    "PythonOperator",
    "Ready",
    "Republished",
    "Samples",
    "SplitLimits",
    "TrainContext",
    "TrainOperator",
    "TriggerDagRunOperator",
    "training_task",
]

_MODULES = {
    "Adopt": "checkpoints.ledger_changes.import_spec",
    "AfterCommitContext": "operators.after_commit",
    "AfterCommitOperator": "operators.after_commit",
    "BashOperator": "operators.bash",
    "CheckpointOperator": "operators.checkpoint",
    "Checks": "samples.spec",
    "CommitCheckpointOperator": "operators.commit",
    "DataCheckerOperator": "operators.data_checker",
    "EmptyOperator": "operators.python",
    "EvaluateContext": "operators.training.training_context",
    "EvaluateOperator": "operators.evaluate",
    "GapPolicy": "samples.spec",
    "Gate": "checkpoints.commit.gates",
    "ModelSignature": "operators.training.model_signature",
    "ParentCheckpoint": "operators.training.training_context",
    "Promote": "checkpoints.ledger_changes.promote",
    "PythonOperator": "operators.python",
    "Ready": "samples.spec",
    "Republished": "samples.spec",
    "Samples": "samples.spec",
    "SplitLimits": "samples.spec",
    "TrainContext": "operators.training.training_context",
    "TrainOperator": "operators.train",
    "TriggerDagRunOperator": "operators.trigger_dagrun",
    "training_task": "operators.training.training_task",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"trainflow.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
