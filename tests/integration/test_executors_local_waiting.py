"""Children of a warm worker that wait for an attempt: the executor gives it to them itself."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.executor_hosts import local_host, results, started_executor
from trainflow.executors.executor import InFlightAttempt
from trainflow.executors.local import LocalExecutor
from trainflow.messages.execution_api import Start, Started
from trainflow.messages.workload import ExecuteTask, ProcessIdentity
from trainflow.observability.processes import is_alive, is_of_another
from trainflow.testing.contract_tasks import CODE, PIPELINE
from trainflow.testing.executor_contract import Host, lay_out, workload
from trainflow.testing.processes import wait_for


@pytest.fixture
def executor(host: Host) -> Iterator[LocalExecutor]:
    """One that has run an attempt: since then its worker forks ahead."""
    with started_executor(host) as executor:
        executor.queue_workload(workload(host, "says"))
        host.until(lambda: host.exits)
        yield executor


def waiting_process(host: Host, executor: LocalExecutor) -> ProcessIdentity:
    """One that waits."""
    host.until(lambda: executor.waiting_processes(workload(host, "says", 1)))
    return executor.waiting_processes(workload(host, "says", 1))[0]


def claim_for(host: Host, attempt: ExecuteTask, process: ProcessIdentity) -> Started:
    """What a scheduler does that queues the attempt."""
    reply = host.api.handle(Start(attempt.key, process.pid, process.process_started, socket.gethostname()))
    assert isinstance(reply, Started)
    return reply


def test_claimed_attempt_is_run_by_the_process_it_was_claimed_for(host: Host, executor: LocalExecutor) -> None:
    process, attempt = waiting_process(host, executor), workload(host, "waits")
    executor.queue_claimed(attempt, process, claim_for(host, attempt, process))
    assert executor._held[attempt.key].pid == process.pid
    assert process not in executor.waiting_processes(attempt)
    (host.project.root / "go").touch()
    host.until(lambda: len(host.exits) == 2)
    assert results(host) == {"says0": "first", "waits0": "went on"}
    # it has asked for nothing, and so was refused nothing
    assert (host.api.claims[attempt.key].pid, host.api.refused) == (process.pid, [])


def test_claimed_attempt_handed_over_twice_runs_once(host: Host, executor: LocalExecutor) -> None:
    process, attempt = waiting_process(host, executor), workload(host, "says", 1)
    started = claim_for(host, attempt, process)
    executor.queue_claimed(attempt, process, started)
    executor.queue_claimed(attempt, process, started)
    executor.queue_workload(attempt)
    host.until(lambda: len(host.exits) == 2)
    assert [outcome.key for outcome in host.api.outcomes].count(attempt.key) == 1


def test_attempt_without_a_claim_is_given_to_a_process_that_waits(host: Host, executor: LocalExecutor) -> None:
    process, attempt = waiting_process(host, executor), workload(host, "says", 1)
    executor.queue_workload(attempt)
    host.until(lambda: len(host.exits) == 2)
    assert host.api.claims[attempt.key].pid == process.pid


def test_claim_of_killed_process_is_inherited(host: Host, executor: LocalExecutor) -> None:
    process, attempt = waiting_process(host, executor), workload(host, "says", 1)
    started = claim_for(host, attempt, process)
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(process.pid, process.process_started), "the end of the process")
    # the executor has not looked since
    executor.queue_claimed(attempt, process, started)
    host.until(lambda: len(host.exits) == 2)
    assert results(host) == {"says0": "first", "says1": "first"}
    claim = host.api.claims[attempt.key]
    assert (claim.instead_of, claim.pid != process.pid) == (process, True)


def test_process_that_was_given_another_attempt_is_not_adopted_for_the_one_it_was_claimed_for(
    host: Host, executor: LocalExecutor
) -> None:
    process, given, claimed = waiting_process(host, executor), workload(host, "waits"), workload(host, "says", 1)
    waits, runs = (
        InFlightAttempt(each.key, True, socket.gethostname(), process.pid, process.process_started)
        for each in (claimed, given)
    )
    adopting = LocalExecutor(forks=False)
    adopting.start(host)
    # as long as it waits it may be given it
    assert adopting.adopt([waits]) == []
    executor.queue_claimed(given, process, claim_for(host, given, process))
    wait_for(lambda: is_of_another(process.pid, claimed.key.attempt_id), "the mark of the attempt it was given")
    adopting = LocalExecutor(forks=False)
    adopting.start(host)
    assert adopting.adopt([waits, runs]) == [claimed.key]
    (host.project.root / "go").touch()
    host.until(lambda: len(host.exits) >= 2)


def test_claim_is_inherited_by_a_process_with_the_code_that_is_there_now(host: Host, executor: LocalExecutor) -> None:
    process, attempt = waiting_process(host, executor), workload(host, "says", 1)
    started = claim_for(host, attempt, process)
    (host.project.root / PIPELINE).write_text(CODE.replace('"first"', '"the second"'))
    executor.queue_claimed(attempt, process, started)
    host.until(lambda: len(host.exits) == 2)
    assert results(host) == {"says0": "first", "says1": "the second"}
    assert host.api.claims[attempt.key].instead_of == process


def test_workload_too_large_for_one_message_goes_through_the_worker(host: Host, executor: LocalExecutor) -> None:
    process, attempt = waiting_process(host, executor), workload(host, "says", 1)
    attempt = ExecuteTask(**{**{f: getattr(attempt, f) for f in attempt.__struct_fields__}, "traceparent": "x" * 10**5})
    executor.queue_claimed(attempt, process, claim_for(host, attempt, process))
    host.until(lambda: len(host.exits) == 2)
    assert results(host)["says1"] == "first"


def test_killed_worker_ends_the_processes_that_wait_and_leaves_the_one_that_runs(
    host: Host, executor: LocalExecutor
) -> None:
    runs, attempt = waiting_process(host, executor), workload(host, "waits")
    executor.queue_claimed(attempt, runs, claim_for(host, attempt, runs))
    waits, worker = waiting_process(host, executor), executor.warm_process
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    host.until(lambda: executor.warm_process is not worker)
    wait_for(lambda: not is_alive(waits.pid, waits.process_started), "the end of the process that waits")
    assert executor.running() == {attempt.key}
    (host.project.root / "go").touch()
    host.until(lambda: len(host.exits) == 2)
    assert results(host)["waits0"] == "went on"


def test_ended_executor_leaves_no_process_that_waits(tmp_path: Path) -> None:
    with local_host(lay_out(tmp_path)) as host:
        with started_executor(host) as executor:
            executor.queue_workload(workload(host, "says"))
            host.until(lambda: host.exits)
            process = waiting_process(host, executor)
        wait_for(lambda: not is_alive(process.pid, process.process_started), "the end of the process that waits")


def test_stopping_executor_has_an_attempt_stop_that_was_just_given_away(host: Host, executor: LocalExecutor) -> None:
    process, attempt = waiting_process(host, executor), workload(host, "waits")
    executor.queue_claimed(attempt, process, claim_for(host, attempt, process))
    executor.end(timedelta(seconds=30))
    assert [str(outcome.state) for outcome in host.api.outcomes] == ["success", "preempted"]
