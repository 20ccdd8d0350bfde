"""`[executors]`: the executors of a project by name, each a table of its own; and which one a task gets by default.

    [executors]
    local = {slots = 8, isolation = "spawn"}
    gpu = {type = "celery", slots = 64, broker = "redis://…"}

`type` names the kind of executor and is the name itself where it is left out; `slots` is how many attempts it is handed
at a time, `nodes` how many processes one of them may be (`nodes` of a task); what else may be there is the business of
the executor (`trainflow.executors.executor`).

`local` runs attempts on the engine's host. It is there when the table names it, and while it is `executor.default`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from trainflow.errors import InputError, SettingsError
from trainflow.identifiers import check_name, did_you_mean

if TYPE_CHECKING:
    from trainflow.settings.model import Settings

LOCAL = "local"
Count = Annotated[int, Meta(ge=1)]
#: what a task may ask for in `nodes` at all
MOST_NODES = 1024
#: kinds that give each process of a task with `nodes` a place of its own; elsewhere all are processes of one host
SPREADING = frozenset({"kubernetes", "ray"})
#: processes that one host gives a task where nothing is said
NODES_OF_ONE_HOST = 8


class ExecutorSettingsError(SettingsError):
    """The table of an executor cannot be used, wherever it runs. Attributes: executor, key (of its table)."""

    def __init__(self, message: str, *, executor: str, key: str) -> None:
        super().__init__(message)
        self.executor = executor
        self.key = key


class LocalExecutorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`executors.local`: attempts on the engine's host."""

    #: attempts at a time, for each engine
    slots: Count = max(4, os.cpu_count() or 1)
    #: processes that one task may ask for (`nodes`), all of them of this host
    nodes: Annotated[int, Meta(ge=1, le=MOST_NODES)] = NODES_OF_ONE_HOST
    #: fork attempts from a warm process, or run each in a fresh interpreter (for code that must not be forked); auto:
    #: fork, but for pipelines whose imports start threads
    isolation: Literal["auto", "fork", "spawn"] = "auto"


class OtherExecutorSettings(msgspec.Struct, frozen=True):
    """What every other executor has; the rest of its table is its own."""

    #: kind of executor; default: the name itself
    type: Annotated[str, Meta(min_length=1)] | None = None
    #: attempts at a time, over all engines of the database
    slots: Count = 32
    #: processes that one task may ask for (`nodes`); default: 1024 on kubernetes and ray, else as many as on `local`
    nodes: Annotated[int, Meta(ge=1, le=MOST_NODES)] | None = None


class ExecutorEntry(msgspec.Struct, frozen=True):
    """One executor that is configured. `options`: what is its own."""

    name: str
    type: str
    slots: int
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    nodes: int = NODES_OF_ONE_HOST

    @property
    def is_local(self) -> bool:
        """Whether it runs attempts on the engine's host, and its slots are those of one engine."""
        return self.type == LOCAL


def executor_entries(settings: Settings) -> dict[str, ExecutorEntry]:
    """The executors that are configured, by name; `local` first."""
    tables = dict(settings.executors)
    if settings.executor.default == LOCAL:
        tables = {LOCAL: {}, **tables}
    return {name: _entry(name, table) for name, table in tables.items()}


def _entry(name: str, table: Mapping[str, Any]) -> ExecutorEntry:
    if name == LOCAL:
        local = msgspec.convert(table, LocalExecutorSettings)
        return ExecutorEntry(name, LOCAL, local.slots, {"isolation": local.isolation}, local.nodes)
    other = msgspec.convert(table, OtherExecutorSettings)
    own = {key: value for key, value in table.items() if key not in OtherExecutorSettings.__struct_fields__}
    kind = other.type or name
    nodes = other.nodes or (MOST_NODES if kind in SPREADING else NODES_OF_ONE_HOST)
    return ExecutorEntry(name, kind, other.slots, own, nodes)


def nodes_problem(settings: Settings, executor: str | None, nodes: int) -> str | None:
    """Why a task that asks for so many nodes cannot have them of its executor (None: the default); None: it can."""
    if nodes == 1:
        return None
    entry = executor_entries(settings).get(executor or settings.executor.default)
    if entry is None or nodes <= entry.nodes:
        return None
    if entry.type in SPREADING:
        most, more = f"{entry.nodes}", "ask for fewer, or raise that"
    else:
        most = f"{entry.nodes} processes, all of one host"
        more = "ask for fewer, raise that, or name an executor of type kubernetes or ray, which has a place for each"
    return f"{nodes}: executor '{entry.name}' gives a task at most {most} (executors.{entry.name}.nodes): {more}"


def local_executor(settings: Settings) -> LocalExecutorSettings | None:
    """The settings of `local`; None where it is not configured."""
    if LOCAL in settings.executors or settings.executor.default == LOCAL:
        return msgspec.convert(settings.executors.get(LOCAL, {}), LocalExecutorSettings)
    return None


def table_type(name: str) -> type[msgspec.Struct]:
    """What the table of an executor is made of, as far as that is known without asking it."""
    return LocalExecutorSettings if name == LOCAL else OtherExecutorSettings


def table_problems(name: str, table: Any) -> Iterator[str | msgspec.ValidationError]:
    """What is wrong with the table of one executor, each a sentence or what msgspec says of one of its keys."""
    try:
        check_name(name, "executor")
    except InputError as error:
        yield str(error)
        return
    if not isinstance(table, Mapping):
        yield f"[executors] {name} must be a table: {name} = {{slots = 8}}"
        return
    known = list(LocalExecutorSettings.__struct_fields__)
    for key in table:
        if name == LOCAL and key not in known:
            yield f"unknown setting executors.{name}.{key}{did_you_mean(key, known, 'known')}"
            return
    try:
        _entry(name, table)
    except msgspec.ValidationError as error:
        yield error
        return
    if name != LOCAL and table.get("type") == LOCAL:
        yield f"executors.{name}.type: there is one executor of this host, and it is called '{LOCAL}'"


def default_problem(default: str, names: list[str]) -> str | None:
    """What is wrong with `executor.default`."""
    if default == LOCAL or default in names:
        return None
    return f"executor.default: no executor is called '{default}'{did_you_mean(default, [LOCAL, *names])}"
