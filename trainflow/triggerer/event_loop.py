"""The process in which triggers run: one asyncio loop, blocking calls in a few threads, frames to the triggerer.

Notes which trigger runs, around each step of its tasks and each of its calls in a thread.

A trigger's context holds its number; what it starts inherits the context, and so is noted as the trigger's too.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trainflow.authoring.trigger import BaseTrigger, TriggerEvent, make_trigger
from trainflow.errors import describe
from trainflow.execution.dag_files import add_to_path
from trainflow.messages.frames import FrameReader, pack
from trainflow.messages.triggerer import (
    AskDagRun,
    Crashed,
    DagRunAnswer,
    Fired,
    FromLoop,
    LoopAlive,
    NotMade,
    ToLoop,
    Unwatch,
    Watch,
)
from trainflow.observability import redacted_output
from trainflow.observability.logs import configure_logging
from trainflow.observability.process_lifetime import die_with_parent, watch_parent
from trainflow.observability.redaction import presentable
from trainflow.param_schema import check_json
from trainflow.settings.load import load_settings
from trainflow.settings.project import project_at
from trainflow.triggerer.crash_causes import LOOP_SLOT, NOTHING, RunningNote

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


log = logging.getLogger(__name__)

_T = TypeVar("_T")

ALIVE_SECONDS = 1.0
#: how long `on_kill` may take
KILL_SECONDS = 30.0
#: of what an exception says, this much is told
_MESSAGE_CHARACTERS, _TRACEBACK_CHARACTERS = 4_000, 64_000


class EventLoop:
    """Runs what it is told to watch; one task a trigger. `note`: where it writes which one runs."""

    def __init__(self, connection: socket.socket, threads: int, note: RunningNote | None = None) -> None:
        self._connection = connection
        self._decoder = msgspec.json.Decoder(ToLoop)
        self._note = note
        self._pool = NotedThreads(threads, note, LOOP_SLOT + 1)
        self._threads = threads
        self._watching: dict[int, tuple[asyncio.Task[None], BaseTrigger | None]] = {}
        #: kept here, so that none is collected: a task that is still under way
        self._killing: set[asyncio.Task[None]] = set()
        #: waits that were cancelled because they are over, or are watched elsewhere from now on
        self._dismissed: set[asyncio.Task[None]] = set()
        #: the task that runs `serve`
        self._serving: asyncio.Task[Any] | None = None
        self._questions: dict[int, asyncio.Future[str | None]] = {}
        self._numbers = itertools.count()

    async def serve(self) -> None:
        """Run triggers until the triggerer hangs up. They are cleaned up, not killed: another process will run them."""
        self._serving = asyncio.current_task()
        if self._note is not None:
            self._note_what_runs(self._note)
        reader, self._writer = await asyncio.open_connection(sock=self._connection)
        alive = asyncio.create_task(self._say_alive())
        frames = FrameReader()
        try:
            # one that is killed hangs up without having read what it was told last
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    for message in frames.feed(data):
                        self._told(self._decoder.decode(message))
        finally:
            alive.cancel()
            await self._stop_all()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._writer.close()

    def _note_what_runs(self, note: RunningNote) -> None:
        loop = asyncio.get_running_loop()
        note_steps(loop, note)
        first = LOOP_SLOT + 1 + self._threads
        # what `asyncio.to_thread` uses
        loop.set_default_executor(NotedThreads(len(note.slots) - first, note, first))

    def _told(self, message: ToLoop) -> None:
        match message:
            case Watch():
                if message.trigger_id not in self._watching:
                    task = asyncio.create_task(self._run(message), context=_context_of(message.trigger_id))
                    self._watching[message.trigger_id] = (task, None)
            case Unwatch(trigger_id, killed):
                if trigger_id in self._watching:
                    task, trigger = self._watching[trigger_id]
                    self._dismissed.add(task)
                    task.add_done_callback(self._dismissed.discard)
                    if killed and trigger is not None:
                        killing = asyncio.create_task(_kill(trigger, task), context=_context_of(trigger_id))
                        self._killing.add(killing)
                        killing.add_done_callback(self._killing.discard)
                    else:
                        task.cancel()
            case DagRunAnswer(question_id, state):
                future = self._questions.pop(question_id, None)
                if future is not None and not future.done():
                    future.set_result(state)

    async def _run(self, watch: Watch) -> None:
        trigger: BaseTrigger | None = None
        try:
            trigger = self._make(watch)
            if trigger is None:
                return
            trigger.services = self
            self._watching[watch.trigger_id] = (self._watching[watch.trigger_id][0], trigger)
            event = await _first_event(trigger)
            self._say(Fired(watch.trigger_id, msgspec.Raw(_encoded(event))))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._is_dismissed():
                return
            # also one that calls sys.exit, or cancels itself: it is one of many here
            self._say(_crash(watch.trigger_id, error))
        finally:
            self._watching.pop(watch.trigger_id, None)
            if trigger is not None:
                await _clean_up(trigger)

    def _make(self, watch: Watch) -> BaseTrigger | None:
        """The trigger; None, and the triggerer is told, when it cannot be made."""
        try:
            return make_trigger(watch.trigger_class, msgspec.json.decode(watch.kwargs, type=dict[str, Any]))
        except (Exception, SystemExit) as error:
            self._say(NotMade(watch.trigger_id, presentable(describe(error), _MESSAGE_CHARACTERS)))
            return None

    def _is_dismissed(self) -> bool:
        """Whether the task that runs was cancelled by this loop or ends with it: nothing is to be said of it then. One
        that a trigger has cancelled, its own or another's, is a failure: nothing else would end its wait."""
        ending = self._serving is not None and self._serving.cancelling() > 0
        return ending or asyncio.current_task() in self._dismissed

    async def _stop_all(self) -> None:
        tasks = [task for task, _ in self._watching.values()]
        self._dismissed.update(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- services of triggers --------------------------------------------------------------------------------------

    async def in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        """See `TriggerServices`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def ask_dag_run(self, dag_id: str, run_id: str) -> str | None:
        """See `TriggerServices`."""
        number = next(self._numbers)
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._questions[number] = future
        self._say(AskDagRun(number, dag_id, run_id))
        return await future

    # -- talking ---------------------------------------------------------------------------------------------------

    async def _say_alive(self) -> None:
        while True:
            self._say(LoopAlive())
            await asyncio.sleep(ALIVE_SECONDS)

    def _say(self, message: FromLoop) -> None:
        self._writer.write(pack(msgspec.json.encode(message)))


def _context_of(trigger_id: int) -> contextvars.Context:
    """What the trigger starts inherits this, and so its number."""
    context = contextvars.copy_context()
    context.run(TRIGGER_ID.set, trigger_id)
    return context


async def _first_event(trigger: BaseTrigger) -> TriggerEvent:
    async for event in trigger.run():
        if not isinstance(event, TriggerEvent):
            raise TypeError(f"{type(trigger).__name__} yielded {event!r}, which is no TriggerEvent")
        return event
    raise RuntimeError(f"{type(trigger).__name__} ended without an event")


def _encoded(event: TriggerEvent) -> bytes:
    check_json(event.payload, "the payload of the event")
    return msgspec.json.encode(event.payload)


def _crash(trigger_id: int, error: BaseException) -> Crashed:
    message = describe(error)
    trace = "".join(traceback.format_exception(error))
    return Crashed(trigger_id, presentable(message, _MESSAGE_CHARACTERS), presentable(trace, _TRACEBACK_CHARACTERS))


async def _clean_up(trigger: BaseTrigger) -> None:
    try:
        await trigger.cleanup()
    except (Exception, SystemExit):
        log.exception("cleanup of %s failed", type(trigger).__name__)


async def _kill(trigger: BaseTrigger, task: asyncio.Task[None]) -> None:
    try:
        await asyncio.wait_for(trigger.on_kill(), KILL_SECONDS)
    except (Exception, SystemExit):
        log.exception("on_kill of %s failed", type(trigger).__name__)
    task.cancel()


def main() -> None:
    """`python -m trainflow.triggerer.event_loop CONNECTION_FD NOTE_FD PROJECT_ROOT`."""
    redacted_output.install()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a trigger that blocks would keep it from seeing that the triggerer has hung up
    if not die_with_parent(os.getppid()):
        watch_parent(os.getppid())
    project = project_at(Path(sys.argv[3]))
    settings = load_settings(project)
    configure_logging(settings.logging.level)
    add_to_path(project)
    connection = socket.socket(fileno=int(sys.argv[1]))
    asyncio.run(EventLoop(connection, settings.triggerer.threads, RunningNote(int(sys.argv[2]))).serve())


if __name__ == "__main__":
    main()
