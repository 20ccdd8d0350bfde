"""A local executor of its own, and what came of its attempts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import msgspec

from trainflow.executors.local import LocalExecutor
from trainflow.messages.execution_api import OutcomeState
from trainflow.settings.project import Project
from trainflow.testing.executor_contract import ExecutorContract, Host


@contextmanager
def local_host(project: Project) -> Iterator[Host]:
    """What stands in for the engine."""
    host = Host(project, ExecutorContract.settings)
    yield host
    host.close()


@contextmanager
def started_executor(host: Host) -> Iterator[LocalExecutor]:
    """An executor that has been started, until its attempts are ended."""
    executor = LocalExecutor()
    executor.start(host)
    host.executor = executor
    yield executor
    host.executor = None
    executor.end(timedelta())


def results(host: Host) -> dict[str, object]:
    """Task and number of each attempt that succeeded → what it returned."""
    return {
        outcome.key.attempt_id.partition("-")[0]: msgspec.json.decode(outcome.xcoms[0].value) if outcome.xcoms else None
        for outcome in host.api.outcomes
        if outcome.state is OutcomeState.SUCCESS
    }
