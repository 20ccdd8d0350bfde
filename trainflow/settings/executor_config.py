"""`executor_config`: what a task asks of its executor, checked when its pipeline is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from trainflow.errors import InputError
from trainflow.identifiers import did_you_mean
from trainflow.settings.executors import ExecutorEntry, executor_entries, nodes_problem
from trainflow.settings.load import load_settings
from trainflow.settings.pod_template import read_template
from trainflow.settings.project import project_at

Text = Annotated[str, msgspec.Meta(min_length=1)]
_Config = TypeVar("_Config", bound=msgspec.Struct)


class KubernetesTaskConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a task may ask of an executor of type `kubernetes`."""

    #: image of its container
    image: Text | None = None
    #: one of the namespaces of the executor
    namespace: Text | None = None
    #: file of a pod, relative to the project
    pod_template: Text | None = None


_Amount = Annotated[float, msgspec.Meta(ge=0)]


class RayResources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job of an executor of type `ray` needs before Ray starts it; None: not said."""

    num_cpus: _Amount | None = None
    num_gpus: _Amount | None = None
    #: bytes
    memory: Annotated[int, msgspec.Meta(ge=0)] | None = None
    resources: dict[str, _Amount] | None = None

    def over(self, other: RayResources) -> RayResources:
        """Return these, and those of `other` where nothing is said."""
        mine = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(other, **mine)


def check_executor_config(root: Path, task_id: str, executor: str | None, config: Mapping[str, Any]) -> None:
    """Raise InputError for what the executor of a task of the project at `root` cannot be asked; `executor` None: the
    default."""
    if not config:
        return
    settings = load_settings(project_at(root))
    entry = executor_entries(settings)[executor or settings.executor.default]
    where = f"task '{task_id}': executor_config"
    if entry.type == "kubernetes":
        _check_kubernetes(root, entry, config, where)
    elif entry.type == "ray":
        _asked(config, RayResources, where)
    elif entry.type in ("local", "workload", "celery"):
        raise InputError(f"{where}: executor '{entry.name}' is of type {entry.type}, and can be asked for nothing")


def check_nodes(root: Path, task_id: str, executor: str | None, nodes: int) -> None:
    """Raise InputError for more nodes than the executor of a task gives; `executor` None: the default."""
    problem = None if nodes == 1 else nodes_problem(load_settings(project_at(root)), executor, nodes)
    if problem is not None:
        raise InputError(f"task '{task_id}': nodes: {problem}")


def _check_kubernetes(root: Path, entry: ExecutorEntry, config: Mapping[str, Any], where: str) -> None:
    asked = _asked(config, KubernetesTaskConfig, where)
    namespaces = [name for name in (entry.options.get("namespace"), *entry.options.get("namespaces", ())) if name]
    if asked.namespace is not None and asked.namespace not in namespaces:
        hint = did_you_mean(asked.namespace, namespaces, "allowed")
        raise InputError(
            f"{where}: namespace '{asked.namespace}' is none of executor '{entry.name}'{hint}; "
            f"allow it in executors.{entry.name}.namespaces"
        )
    if asked.pod_template is not None:
        read_template(root / asked.pod_template, asked.pod_template)


def _asked(config: Mapping[str, Any], kind: type[_Config], where: str) -> _Config:
    known = list(kind.__struct_fields__)
    for key in config:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'{did_you_mean(str(key), known, 'known')}")
    try:
        return msgspec.convert(dict(config), kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}") from None
