"""Attempts on other hosts: one that is silent while it could be heard is lost, and no other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.control_plane import START, ControlPlane
from trainflow.messages.execution_api import Done, Outcome, OutcomeState, Refused, Start
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata import attempt_credentials
from trainflow.metadata.queries import service_list_queries, service_queries
from trainflow.scheduler.lost_attempts import RemoteAttempts

LOOK = timedelta(seconds=5)
LOST_AFTER = 60.0


@pytest.fixture
def work(plane: ControlPlane, work: ExecuteTask) -> ExecuteTask:
    """Claimed from afar."""
    with plane.database.transaction() as connection:
        secret = attempt_credentials.issue(connection, work.key)
    plane.service.claim_from_afar(Start(work.key, 1, 1.0, "there"), secret, "t" * 43)
    return work


@pytest.fixture
def pass_time(plane: ControlPlane) -> Callable[..., None]:
    """`pass_time(seconds, server=…, worker=…)`: look from time to time, and who is alive says so."""
    watch = RemoteAttempts(
        plane.database, plane.service.exited, plane.clock.monotonic, own=plane.service_id, lost_after_seconds=LOST_AFTER
    )
    with plane.database.transaction() as connection:
        server_id = service_queries.register(
            connection,
            kind=service_list_queries.API_SERVER,
            hostname="api",
            pid=1,
            process_started=1.0,
            now=plane.clock.now(),
        )

    def go_on(seconds: float, *, server: bool, worker: ExecuteTask | None) -> None:
        end = plane.clock.now() + timedelta(seconds=seconds)
        while plane.clock.now() < end:
            plane.clock.advance(LOOK)
            if server:
                with plane.database.transaction() as connection:
                    service_queries.renew_lease(connection, server_id, plane.clock.now())
                if worker is not None:
                    plane.service.note_heartbeats({worker.key})
            watch.look()

    return go_on


def test_silent_worker_is_lost_and_its_task_goes_again(
    plane: ControlPlane, run: int, work: ExecuteTask, pass_time: Callable[..., None]
) -> None:
    pass_time(600, server=True, worker=work)
    pass_time(LOST_AFTER - 5, server=True, worker=None)
    assert plane.task(run, "a").state == "running"
    pass_time(15, server=True, worker=None)
    row = plane.task(run, "a")
    assert (row.state, row.failures, row.lost) == ("scheduled", 0, 1)
    assert "was not heard for 60 s (workers.lost_after_seconds)" in row.problem
    (again,) = plane.tick()
    assert isinstance(plane.service.handle(Outcome(work.key, OutcomeState.SUCCESS)), Refused)
    assert plane.play(again) == Done()


def test_outage_of_the_server_ends_no_attempt(
    plane: ControlPlane, run: int, work: ExecuteTask, pass_time: Callable[..., None]
) -> None:
    for _ in range(3):
        pass_time(3_600, server=False, worker=None)
        pass_time(LOST_AFTER - 10, server=True, worker=None)
        pass_time(10, server=True, worker=work)
    assert plane.task(run, "a").state == "running"


def test_queued_attempt_is_not_waited_for_here(plane: ControlPlane, run: int, pass_time: Callable[..., None]) -> None:
    (work,) = plane.tick()
    with plane.database.transaction() as connection:
        attempt_credentials.issue(connection, work.key)
    pass_time(600, server=True, worker=None)
    assert plane.task(run, "a").state == "queued"


def test_attempt_of_this_host_needs_no_heartbeat(plane: ControlPlane, run: int, pass_time: Callable[..., None]) -> None:
    (work,) = plane.tick()
    plane.claim(work)
    pass_time(600, server=True, worker=None)
    assert plane.task(run, "a").state == "running"
    assert plane.task(run, "a").started_at == START
