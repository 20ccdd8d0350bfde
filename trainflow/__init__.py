"""trainflow: an ML training pipeline toolkit specialised in checkpoint/sample chaining.

What a pipeline file imports is here by name; each name is loaded when it is first used, so that `import trainflow`
costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainflow.authoring.context import Context, get_current_context
    from trainflow.authoring.dag import DAG
    from trainflow.authoring.decorators import dag, setup, task, task_group, teardown
    from trainflow.authoring.graph import chain, cross_downstream
    from trainflow.authoring.operator import BaseOperator
    from trainflow.authoring.param import Param
    from trainflow.authoring.sensor import BaseSensorOperator, PokeReturnValue
    from trainflow.authoring.task_group import TaskGroup
    from trainflow.authoring.trigger import BaseTrigger, TriggerEvent
    from trainflow.authoring.xcom_arg import XComArg
    from trainflow.client import Client
    from trainflow.errors import (
        FailException,
        InputError,
        RescheduleException,
        SensorTimeout,
        SkipException,
        TrainflowError,
    )
    from trainflow.serving import open_checkpoint
    from trainflow.states import TriggerRule, WeightRule
    from trainflow.task_signals import TaskTimeout

__version__ = "0.1.0"

_HOMES = {
    "BaseOperator": "trainflow.authoring.operator",
    "BaseSensorOperator": "trainflow.authoring.sensor",
    "BaseTrigger": "trainflow.authoring.trigger",
    "Client": "trainflow.client",
    "Context": "trainflow.authoring.context",
    "DAG": "trainflow.authoring.dag",
    "FailException": "trainflow.errors",
    "InputError": "trainflow.errors",
    "Param": "trainflow.authoring.param",
    "PokeReturnValue": "trainflow.authoring.sensor",
    "RescheduleException": "trainflow.errors",
    "SensorTimeout": "trainflow.errors",
    "SkipException": "trainflow.errors",
    "TaskGroup": "trainflow.authoring.task_group",
    "TaskTimeout": "trainflow.task_signals",
    "TrainflowError": "trainflow.errors",
    "TriggerEvent": "trainflow.authoring.trigger",
    "TriggerRule": "trainflow.states",
    "WeightRule": "trainflow.states",
    "XComArg": "trainflow.authoring.xcom_arg",
    "chain": "trainflow.authoring.graph",
    "cross_downstream": "trainflow.authoring.graph",
    "dag": "trainflow.authoring.decorators",
    "get_current_context": "trainflow.authoring.context",
    "open_checkpoint": "trainflow.serving",
    "setup": "trainflow.authoring.decorators",
    "task": "trainflow.authoring.decorators",
    "task_group": "trainflow.authoring.decorators",
    "teardown": "trainflow.authoring.decorators",
}

__all__ = [
    "BaseOperator",
    "BaseSensorOperator",
    "BaseTrigger",
    "Client",
    "Context",
    "DAG",
    "FailException",
    "InputError",
    "Param",
    "PokeReturnValue",
    "RescheduleException",
    "SensorTimeout",
    "SkipException",
    "TaskGroup",
    "TaskTimeout",
    "TrainflowError",
    "TriggerEvent",
    "TriggerRule",
    "WeightRule",
    "XComArg",
    "chain",
    "cross_downstream",
    "dag",
    "get_current_context",
    "open_checkpoint",
    "setup",
    "task",
    "task_group",
    "teardown",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'trainflow' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
