"""Kinds of executors by name: those of the package, and those that other packages register.

    [project.entry-points."trainflow.executors"]
    slurm = "my_package.slurm:SlurmExecutor"

makes `type = "slurm"` one that `[executors]` knows. The class inherits `trainflow.executors.executor.Executor`, and is
made with `from_options`.
"""

from __future__ import annotations

from importlib import import_module

from trainflow.errors import EngineError, describe
from trainflow.executors.executor import Executor
from trainflow.near_names import did_you_mean
from trainflow.settings.executors import ExecutorSettingsError

GROUP = "trainflow.executors"
#: looked up without asking what is installed, which takes longer than all else here
_OWN = {
    "celery": "trainflow.executors.celery:CeleryExecutor",
    "kubernetes": "trainflow.executors.kubernetes.executor:KubernetesExecutor",
    "local": "trainflow.executors.local:LocalExecutor",
    "ray": "trainflow.executors.ray.executor:RayExecutor",
    "workload": "trainflow.executors.workload_process:WorkloadExecutor",
}


def executor_class(kind: str, *, executor: str | None = None) -> type[Executor]:
    """The class of executors of this kind, which the table of `executor` names (default: the kind itself).

    Raises ExecutorSettingsError when there is none, EngineError when it cannot be imported."""
    registered = {} if kind in _OWN else _registered()
    found = _OWN.get(kind) or registered.get(kind)
    if found is None:
        name = executor or kind
        said = f"no kind of executor is called '{kind}'{did_you_mean(kind, [*_OWN, *registered])}"
        raise ExecutorSettingsError(f"executors.{name}.type: {said}", executor=name, key="type")
    module, _, name = found.partition(":")
    try:
        loaded = getattr(import_module(module), name)
    except Exception as error:
        raise EngineError(f"the executor '{kind}' ({found}) cannot be imported: {describe(error)}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Executor)):
        raise EngineError(f"the executor '{kind}' ({found}) is no class that inherits Executor")
    return loaded


def _registered() -> dict[str, str]:
    from importlib.metadata import entry_points  # longer than most engines need to be there

    return {each.name: each.value for each in entry_points(group=GROUP)}
