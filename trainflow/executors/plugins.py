"""Kinds of executors by name, those of the package and those that other packages register, and their options.

    [project.entry-points."trainflow.executors"]
    slurm = "my_package.slurm:SlurmExecutor"

makes `type = "slurm"` one that `[executors]` knows. The class inherits `trainflow.executors.executor.Executor`, and is
made with `from_options`.

What the tables of `[executors]` hold besides `type` and `slots` is read by the kind of executor and checked before a
run: a name or a value that can never work is a mistake in the settings, not an outage: it is refused where it is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

import msgspec

from trainflow.errors import EngineError, SettingsError, describe
from trainflow.executors.executor import Executor
from trainflow.identifiers import did_you_mean
from trainflow.settings.executors import ExecutorEntry, ExecutorSettingsError, executor_entries
from trainflow.settings.load import EXECUTORS, told, variable_of
from trainflow.settings.model import Settings
from trainflow.settings.project import Project

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


Options = TypeVar("Options", bound=msgspec.Struct)


def read_options(name: str, options: Mapping[str, Any], kind: type[Options]) -> Options:
    """The options of the executor `name` as `kind`. Raises ExecutorSettingsError naming the key that is wrong."""
    fields = msgspec.structs.fields(kind)
    known = [field.name for field in fields]
    for key in options:
        if key not in known:
            meant = did_you_mean(key, [*known, "type", "slots"], "known")
            raise ExecutorSettingsError(f"unknown setting {EXECUTORS}.{name}.{key}{meant}", executor=name, key=key)
    for field in fields:
        if field.required and field.name not in options:
            raise ExecutorSettingsError(f"{EXECUTORS}.{name}.{field.name} is missing", executor=name, key=field.name)
    try:
        return msgspec.convert(options, kind)
    except msgspec.ValidationError as error:
        sentence = told(error, within=kind)
        key = sentence.partition(":")[0].partition(".")[0]
        raise ExecutorSettingsError(f"{EXECUTORS}.{name}.{sentence}", executor=name, key=key) from None


def option_problems(entries: Mapping[str, ExecutorEntry]) -> Iterator[ExecutorSettingsError]:
    """What is wrong with the tables of executors, one problem of each. What is only missing on this host (a package
    that is not installed) is none."""
    for entry in entries.values():
        if entry.is_local:
            continue
        try:
            executor_class(entry.type, executor=entry.name).from_options(entry.name, entry.options)
        except ExecutorSettingsError as error:
            yield error
        except EngineError:
            continue


def check_options(project: Project, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
    """Raise SettingsError with the file or variable in which an executor's table is wrong."""
    for problem in told_problems(project, settings, os.environ if environ is None else environ):
        raise SettingsError(problem)


def told_problems(project: Project, settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the tables of executors, each with its file or variable."""
    for error in option_problems(executor_entries(settings)):
        variable = variable_of(environ, EXECUTORS, f"{error.executor}__{error.key}")
        where = f"environment variable {variable}" if variable else str(project.settings_file)
        yield f"{where}: {error}"
