"""The process that takes messages of the Celery executor and runs their attempts: a Celery worker of its own kind.

Each message waits in a thread of Celery's for the end of its attempt, which a `Worker` runs in a process: forked from a
warm one, as on an engine's host. A warm shutdown (SIGTERM) has the attempts save how far they are; they are preempted,
and go again elsewhere. A message that is taken meanwhile is given back to the broker.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainflow.actions.execute_workload import read_workload
from trainflow.actions.worker_restart import WorkerRestart
from trainflow.bootstrap import version
from trainflow.clock import Clock
from trainflow.errors import InputError, TrainflowError, describe
from trainflow.execution.code_bundles import code_of
from trainflow.execution.http_api_client import ApiAddress
from trainflow.execution.worker_heartbeats import WorkerHeartbeats
from trainflow.executors.celery import TASK, celery_app, celery_options, is_redis, send_message
from trainflow.executors.worker import worker_home
from trainflow.executors.worker_thread import WorkerThread
from trainflow.identifiers import did_you_mean
from trainflow.messages.http_protocol import WorkerHeartbeat, WorkerOrders
from trainflow.observability.processes import hostname, started_at
from trainflow.settings.environment import forget_secrets
from trainflow.settings.executors import ExecutorEntry, executor_entries
from trainflow.settings.model import Settings

if TYPE_CHECKING:
    from celery import Celery

    from trainflow.messages.workload import ExecuteTask

log = logging.getLogger(__name__)

#: before a message is given back that may come again
_PAUSE_SECONDS = 1.0


def celery_executor(settings: Settings, name: str | None) -> ExecutorEntry:
    """The executor whose messages are taken: the one of this name, or the only one of its kind. Raises InputError."""
    found = {each.name: each for each in executor_entries(settings).values() if each.type == "celery"}
    if name is not None and name not in found:
        raise InputError(f"no executor of type 'celery' is called '{name}'{did_you_mean(name, list(found))}")
    if name is None and len(found) != 1:
        there = f"name one with --executor: {', '.join(found)}" if found else "there is none in [executors]"
        raise InputError(f"which executor's messages are to be taken? {there}")
    return found[name if name is not None else next(iter(found))]


def run_celery_worker(
    settings: Settings,
    entry: ExecutorEntry,
    *,
    queues: list[str],
    slots: int,
    project: Path | None,
    clock: Clock,
    name: str | None = None,
    root: Path | None = None,
) -> bool:
    """Take messages of these queues until SIGTERM or Ctrl-C. `name`: what it is drained by; default: its host. `root`:
    of the project whose settings these are. Returns whether the worker is to begin again: see `WorkerRestart`."""
    options = celery_options(entry.name, entry.options)
    app = celery_app(options)
    gone_when_taken = is_redis(options.broker)
    if gone_when_taken:
        app.conf.task_queues = _gone_when_taken(queues)
    started_in = Path.cwd()
    consumers = _Consumers(app, f"{name or 'trainflow'}@{hostname()}")
    heartbeats = _heartbeats(settings, entry, queues, slots, name, root or started_in, consumers)
    restart = WorkerRestart(lambda: _stop_in_order(attempts))
    # from here on nothing that this process starts needs them
    forget_secrets()
    grace = timedelta(seconds=settings.engine.stop_grace_seconds)
    with worker_home() as home:
        attempts = WorkerThread(home, clock, grace=grace)

        taken = _Messages(app, attempts, consumers, heartbeats, restart, project, started_in)
        how = {"Strategy": staticmethod(_acknowledging_nothing)} if gone_when_taken else {}
        app.task(name=TASK, ignore_result=True, acks_late=False, **how)(taken.execute_workload)

        _hear_signals(attempts, heartbeats, restart)
        _leave_out_of_log()
        restart.watch()
        app.Worker(
            queues=queues,
            concurrency=slots,
            pool=_waking_pool(),
            hostname=consumers.node,
            loglevel="INFO",
            without_gossip=True,
            without_mingle=True,
        ).start()
        attempts.request_stop()
        attempts.join()
        heartbeats.end()
    return restart.begins_again()


def _stop_in_order(attempts: WorkerThread) -> None:
    """Do what SIGTERM does, which only a person or a service manager sends."""
    from celery.worker import state

    attempts.request_stop()
    state.should_stop = 0  # Celery's loop looks at it


def _hear_signals(attempts: WorkerThread, heartbeats: WorkerHeartbeats, restart: WorkerRestart) -> None:
    """Have a worker that is told to stop do so with its attempts, and begin what is begun once it takes messages."""
    from celery import signals

    def stop(**_facts: object) -> None:
        restart.told_to_end()
        attempts.request_stop()

    def ready(**_facts: object) -> None:
        restart.hear_hangup()
        heartbeats.begin()

    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_ready.connect(ready, weak=False)


def _heartbeats(
    settings: Settings,
    entry: ExecutorEntry,
    queues: list[str],
    slots: int,
    name: str | None,
    root: Path,
    consumers: _Consumers,
) -> WorkerHeartbeats:
    """What says that this worker lives."""
    api, pid = settings.api, os.getpid()
    host, started = hostname(), started_at(pid)

    def describe() -> WorkerHeartbeat:
        return WorkerHeartbeat(
            name=name or host,
            hostname=host,
            pid=pid,
            process_started=started,
            version=version(),
            executor=entry.name,
            queues=queues,
            slots=slots,
            in_use=consumers.in_use,
        )

    return WorkerHeartbeats(
        ApiAddress(api.address, str(root / api.tls_ca) if api.tls_ca is not None else None),
        settings.workers.token or api.token,
        describe=describe,
        on_orders=consumers.follow,
        heartbeat_seconds=settings.workers.heartbeat_seconds,
    )


def _gone_when_taken(queues: list[str]) -> list[Any]:
    """Queues as Celery makes them, of which a message is gone when it is taken: it is not kept until a worker has
    acknowledged it, which would be at once."""
    import kombu.entity

    entity: Any = kombu.entity
    return [entity.Queue(name, entity.Exchange(name), routing_key=name, no_ack=True) for name in queues]


def _acknowledging_nothing(task: Any, app: Celery, consumer: Any) -> Callable[..., None]:
    """What Celery does with a message, without the question to Redis that acknowledges one which is gone already."""
    from celery.worker.strategy import default

    handle = default(task, app, consumer)

    def handler(message: Any, body: Any, _ack: Any, reject: Any, callbacks: Any, **options: Any) -> None:
        handle(message, body, lambda *_given: None, reject, callbacks, **options)

    return handler


def _waking_pool() -> type:
    """Celery's pool of threads, which takes the next message at once when a slot has become free: its loop looks again
    only when something wakes it, and without messages in stock nothing does for up to a second."""
    from celery.concurrency.thread import TaskPool
    from kombu.asynchronous import get_event_loop

    def wake(_ended: object) -> None:
        loop: Any = get_event_loop()
        if loop is not None:
            loop.call_soon(_nothing)

    class WakingPool(TaskPool):  # type: ignore[misc]
        def on_apply(self, *args: Any, **options: Any) -> Any:
            applied = super().on_apply(*args, **options)
            # after the message is counted as done, which is the last that its thread does
            applied.f.add_done_callback(wake)
            return applied

    return WakingPool


def _leave_out_of_log() -> None:
    """Have Celery not say that a message came, and that its task has ended: what became of an attempt is said here, in
    one line. Nor that it keeps no results, of which it warns for each message that is called off."""
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("celery.worker.control").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Failed to mark task")


def _nothing() -> None:
    """Do nothing: what is asked for is that the loop looks again."""


class _Messages:
    """What comes from the broker: each is one attempt, which is run, or is left to others."""

    def __init__(
        self,
        app: Celery,
        attempts: WorkerThread,
        consumers: _Consumers,
        heartbeats: WorkerHeartbeats,
        restart: WorkerRestart,
        project: Path | None,
        started_in: Path,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._app = app
        self._pause = pause
        self._restart = restart
        self._attempts = attempts
        self._heartbeats = heartbeats
        self._consumers = consumers
        self._project = project
        self._started_in = started_in

    def execute_workload(self, text: str) -> None:
        """Run one, and wait for its end."""
        try:
            workload = read_workload(text)
        except InputError as error:
            log.error("a message is dropped: %s", error)
            return
        attempt_id = workload.key.attempt_id
        if workload.queue in self._consumers.drained:
            # it is listened on no more once that is heard; until then the same message would come at once
            self._pause(_PAUSE_SECONDS)
            self._give_back(workload, text, self._consumers.reason)
            return
        if self._restart.is_due():
            self._give_back(workload, text, "this worker stops")
            return
        try:
            with self._consumers.busy():
                end = self._attempts.execute(workload, code_of(workload, self._project, self._started_in))
        except TrainflowError as error:
            log.error("attempt %s: it cannot be run here: %s", attempt_id, error)
            return
        if end.is_left:
            self._give_back(workload, text, "this worker stops")
            return
        if end.done:
            self._heartbeats.note_served(workload.installation)
        log.log(logging.INFO if end.done else logging.ERROR, "attempt %s: %s", attempt_id, end.message)

    def _give_back(self, workload: ExecuteTask, text: str, reason: str) -> None:
        """Send its message anew: the engine would do so a minute later."""
        try:
            send_message(self._app, workload, text)
        except Exception as error:
            log.warning("attempt %s waits until it is sent again: %s", workload.key.attempt_id, describe(error))
        else:
            log.info("attempt %s is left to others: %s", workload.key.attempt_id, reason)


class _Consumers:
    """Which queues a worker listens on: those that are drained are left alone. Fit for several threads."""

    def __init__(self, app: Celery, node: str) -> None:
        """`node`: what Celery calls this worker."""
        self._app = app
        self.node = node
        self.drained: frozenset[str] = frozenset()
        self.reason = ""
        self.in_use = 0
        #: queues that are listened on no more
        self._left: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count an attempt while it runs."""
        with self._lock:
            self.in_use += 1
        try:
            yield
        finally:
            with self._lock:
                self.in_use -= 1

    def follow(self, orders: WorkerOrders) -> None:
        """Listen on what is not drained. Raises what the broker's client raises; told again, it goes on there."""
        self.drained, self.reason = frozenset(orders.drained_queues), orders.reason
        control = self._app.control
        for queue in sorted(self.drained - self._left):
            control.cancel_consumer(queue, destination=[self.node])
            self._left |= {queue}
            log.info("nothing more is taken from queue '%s': %s", queue, orders.reason)
        for queue in sorted(self._left - self.drained):
            control.add_consumer(queue, destination=[self.node])
            self._left -= {queue}
            log.info("queue '%s' is listened on again", queue)
