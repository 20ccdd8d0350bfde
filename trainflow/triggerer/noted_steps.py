"""Notes which trigger runs, around each step of its tasks and each of its calls in a thread.

A trigger's context holds its number; what it starts inherits the context, and so is noted as the trigger's too.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from typing import Any, TypeVar

from trainflow.triggerer.crash_causes import LOOP_SLOT, NOTHING, RunningNote

_T = TypeVar("_T")

#: the trigger on whose behalf code runs
TRIGGER_ID: ContextVar[int] = ContextVar("trainflow_trigger", default=NOTHING)


class _NotedCoroutine(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are noted."""

    __slots__ = ("__name__", "__qualname__", "_inner", "_slots", "_trigger_id")

    def __init__(self, inner: Coroutine[Any, Any, Any], trigger_id: int, slots: memoryview) -> None:
        self._inner = inner
        self._trigger_id = trigger_id
        self._slots = slots
        self.__name__ = getattr(inner, "__name__", "coroutine")
        self.__qualname__ = getattr(inner, "__qualname__", "coroutine")

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._inner.throw, *error)

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        slots = self._slots
        slots[LOOP_SLOT] = self._trigger_id
        try:
            return step(*args)
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio would end the whole loop; what awaits this task is of the same trigger
            raise RuntimeError(f"a task of the trigger raised {error!r}") from error
        finally:
            slots[LOOP_SLOT] = NOTHING

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def note_steps(loop: asyncio.AbstractEventLoop, note: RunningNote) -> None:
    """Note the steps of the tasks of triggers from now on."""
    slots = note.slots

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Context | None = None, **options: Any
    ) -> Any:
        trigger_id = TRIGGER_ID.get() if context is None else context.get(TRIGGER_ID, NOTHING)
        if trigger_id != NOTHING and asyncio.iscoroutine(coroutine):
            coroutine = _NotedCoroutine(coroutine, trigger_id, slots)
        return asyncio.Task(coroutine, loop=loop, context=context, **options)

    loop.set_task_factory(factory)


class NotedThreads(ThreadPoolExecutor):
    """Threads whose calls are noted, in the slots from `first` on."""

    def __init__(self, threads: int, note: RunningNote | None, first: int) -> None:
        self._note_slots = None if note is None else note.slots
        self._numbers = itertools.count(first)
        self._own = threading.local()
        super().__init__(threads, thread_name_prefix="trigger", initializer=self._take_slot)

    def _take_slot(self) -> None:
        self._own.slot = next(self._numbers)

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """See `Executor.submit`; called in the context of the trigger."""
        return super().submit(self._noted, TRIGGER_ID.get(), fn, args, kwargs)

    def _noted(self, trigger_id: int, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
        slots = self._note_slots
        if slots is None:
            return fn(*args, **kwargs)
        slots[self._own.slot] = trigger_id
        try:
            return fn(*args, **kwargs)
        finally:
            slots[self._own.slot] = NOTHING
