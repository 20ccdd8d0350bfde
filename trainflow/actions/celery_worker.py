"""The process that takes messages of the Celery executor and runs their attempts: a Celery worker of its own kind.

Each message waits in a thread of Celery's for the end of its attempt, which a `Worker` runs in a process: forked from a
warm one, as on an engine's host. A warm shutdown (SIGTERM) has the attempts save how far they are; they are preempted,
and go again elsewhere.
"""

from __future__ import annotations

import logging
import socket
from datetime import timedelta
from pathlib import Path

from trainflow.actions.execute_workload import read_workload
from trainflow.clock import Clock
from trainflow.errors import InputError, TrainflowError
from trainflow.execution.code_bundles import code_of
from trainflow.executors.celery import TASK, celery_app, celery_options
from trainflow.executors.worker_home import worker_home
from trainflow.executors.worker_thread import WorkerThread
from trainflow.near_names import did_you_mean
from trainflow.settings.environment import forget_secrets
from trainflow.settings.executors import ExecutorEntry, executor_entries
from trainflow.settings.model import Settings

log = logging.getLogger(__name__)


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
    settings: Settings, entry: ExecutorEntry, *, queues: list[str], slots: int, project: Path | None, clock: Clock
) -> None:
    """Take messages of these queues until SIGTERM or Ctrl-C."""
    from celery import signals

    app = celery_app(celery_options(entry.name, entry.options))
    started_in = Path.cwd()
    # from here on nothing that this process starts needs them
    forget_secrets()
    grace = timedelta(seconds=settings.engine.stop_grace_seconds)
    with worker_home() as home:
        attempts = WorkerThread(home, clock, grace=grace)

        def execute_workload(text: str) -> None:
            try:
                workload = read_workload(text)
            except InputError as error:
                log.error("a message is dropped: %s", error)
                return
            try:
                end = attempts.execute(workload, code_of(workload, project, started_in))
            except TrainflowError as error:
                log.error("attempt %s: it cannot be run here: %s", workload.key.attempt_id, error)
                return
            log.log(logging.INFO if end.done else logging.ERROR, "attempt %s: %s", workload.key.attempt_id, end.message)

        app.task(name=TASK, ignore_result=True, acks_late=False)(execute_workload)

        def stop(**_facts: object) -> None:
            attempts.request_stop()

        signals.worker_shutting_down.connect(stop, weak=False)
        app.Worker(
            queues=queues,
            concurrency=slots,
            pool="threads",
            hostname=f"trainflow@{socket.gethostname()}",
            loglevel="INFO",
            without_gossip=True,
            without_mingle=True,
        ).start()
        attempts.request_stop()
        attempts.join()
