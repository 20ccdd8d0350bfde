"""What a deferred task waits for: runs in the triggerer's event loop, as one of tens of thousands.

A trigger travels as (class path, JSON keyword arguments), never as a pickle. Its process has no database: what it may
ask of the control plane is `TriggerServices`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any, Protocol, TypeVar

from trainflow.bounds import check_text
from trainflow.errors import InputError
from trainflow.observability.redaction import check_no_secrets
from trainflow.param_schema import check_json

_T = TypeVar("_T")
#: of `package.module.Class`
MOST_PATH_CHARACTERS = 500


class TriggerEvent:
    """The wait is over. `payload` is JSON and reaches the task as `event`."""

    def __init__(self, payload: Any = None) -> None:
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TriggerEvent) and self.payload == other.payload

    def __hash__(self) -> int:
        return hash(repr(self.payload))

    def __repr__(self) -> str:
        return f"TriggerEvent({self.payload!r})"


class TriggerServices(Protocol):
    """What the event loop offers to the triggers it runs."""

    async def ask_dag_run(self, dag_id: str, run_id: str) -> str | None:
        """State of a run; None when there is none."""
        ...

    async def in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call something that blocks (a listing, a request) without blocking the loop; raises what it raises."""
        ...


class BaseTrigger:
    """Base of every trigger. `serialize` and `run` are to be written; nothing may block inside `run`."""

    #: set by the event loop before `run`
    services: TriggerServices | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """(`package.module.Class`, keyword arguments of the constructor that make an equal trigger; JSON)."""
        raise NotImplementedError(f"{type(self).__name__} has no serialize()")

    def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield one event; later events are not looked at. Written as `async def` with `yield`.

        May be started again from the beginning, in another process, at any time; so it looks at the world first: what
        it waits for may have happened already.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    async def cleanup(self) -> None:
        """Give back what this process holds; called on every exit. It must not end remote work: the trigger may just
        be moving to another process."""

    async def on_kill(self) -> None:
        """End remote work; called when a person ended the task, before `cleanup`."""

    async def ask_dag_run(self, dag_id: str, run_id: str) -> str | None:
        """State of a run; None when there is none."""
        return await self._services().ask_dag_run(dag_id, run_id)

    async def in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call something that blocks without blocking the loop; raises what it raises."""
        return await self._services().in_thread(function, *args)

    def _services(self) -> TriggerServices:
        if self.services is None:
            raise RuntimeError(f"{type(self).__name__} runs outside of an event loop of trainflow: set its services")
        return self.services

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def describe_trigger(trigger: BaseTrigger) -> tuple[str, dict[str, Any]]:
    """What travels instead of the trigger. Raises InputError for what could not be made again from it."""
    if not isinstance(trigger, BaseTrigger):
        raise InputError(f"{trigger!r} is no BaseTrigger")
    name = type(trigger).__name__
    described = trigger.serialize()
    if not isinstance(described, tuple) or len(described) != 2:
        raise InputError(f"{name}.serialize() gave {described!r}; it must give (class path, keyword arguments)")
    class_path, kwargs = described
    if not isinstance(class_path, str) or not isinstance(kwargs, dict) or not all(isinstance(k, str) for k in kwargs):
        raise InputError(f"{name}.serialize() gave {described!r}; it must give (class path, keyword arguments)")
    check_text(class_path, f"trigger {name}: class path", most=MOST_PATH_CHARACTERS)
    check_json(kwargs, f"keyword arguments of trigger {name}")
    check_no_secrets(kwargs, f"keyword arguments of trigger {name}")
    found = trigger_class(class_path)
    if found is not type(trigger):
        raise InputError(f"{name}.serialize() names {class_path!r}, which is another class: {found.__qualname__}")
    make_trigger(class_path, kwargs)
    return class_path, kwargs


def trigger_class(class_path: str) -> type[BaseTrigger]:
    """The class that `package.module.Class` names. Raises InputError when there is none or it is no trigger."""
    module_name, _, class_name = class_path.rpartition(".")
    if not module_name:
        raise InputError(f"trigger {class_path!r} is no class path: write package.module.Class")
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"trigger {class_path!r} cannot be imported by the triggerer: {error}") from error
    if not isinstance(found, type) or not issubclass(found, BaseTrigger):
        raise InputError(f"{class_path!r} is no BaseTrigger")
    return found


def make_trigger(class_path: str, kwargs: dict[str, Any]) -> BaseTrigger:
    """The trigger again. Raises InputError when the class is none, or does not take the arguments."""
    cls = trigger_class(class_path)
    try:
        return cls(**kwargs)
    except Exception as error:
        raise InputError(f"trigger {class_path!r} cannot be made from {sorted(kwargs)}: {error}") from error
