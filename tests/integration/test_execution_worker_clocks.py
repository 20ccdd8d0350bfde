"""A worker whose clock is wrong by hours: what it says of times is taken as it would be of any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.control_plane import START, ControlPlane, control_plane_with_run
from trainflow.authoring.dag import DAG
from trainflow.authoring.operator import BaseOperator
from trainflow.authoring.sensor import BaseSensorOperator
from trainflow.clock import Clock, ManualClock
from trainflow.errors import RescheduleException
from trainflow.execution.dag_files import DagFiles, LoadedFile
from trainflow.execution.execution_api_client import ExecutionApiClient
from trainflow.execution.stop_signal import StopSignal
from trainflow.execution.task_runner import conduct
from trainflow.messages.execution_api import Deferral, Outcome, OutcomeState, Reply, Request, Start
from trainflow.messages.http_protocol import TOKEN_PREFIX
from trainflow.messages.workload import DagSource, ExecuteTask
from trainflow.metadata import attempt_credentials
from trainflow.metadata.queries.trigger_queries import TRIGGER
from trainflow.operators.triggers.time import TimeDeltaTrigger

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane_with_run(tmp_path) as plane:
        yield plane


class _Line(ExecutionApiClient):
    """The way of an attempt on another host to the control plane."""

    def __init__(self, plane: ControlPlane, secret: str) -> None:
        self._plane, self._secret = plane, secret

    def request(self, request: Request) -> Reply:
        if isinstance(request, Start):
            return self._plane.service.claim_from_afar(request, self._secret, TOKEN_PREFIX + self._secret)
        return self._plane.service.handle(request)

    def report_outcome(self, outcome: Outcome) -> Reply | None:
        return self._plane.service.handle(outcome)

    def close(self) -> None:
        """There is nothing to hang up."""


class _Files(DagFiles):
    def __init__(self, dag: DAG) -> None:
        self._dag = dag

    def get(self, source: DagSource) -> LoadedFile:
        return LoadedFile({self._dag.dag_id: self._dag}, "")


class _Host:
    """A host whose clock is off by so much."""

    def __init__(self, plane: ControlPlane, off: timedelta) -> None:
        self._plane = plane
        self.clock = ManualClock(START + off)

    def run(self, make: Callable[[Clock], BaseOperator]) -> None:
        """Run the task that is queued."""
        (work,) = self._plane.tick()
        with self._plane.database.transaction() as connection:
            secret = attempt_credentials.issue(connection, work.key)
        with DAG("d") as dag:
            make(self.clock)
        self._conduct(work, secret, dag)
        self._plane.executor.alive.discard(work.key)

    def _conduct(self, work: ExecuteTask, secret: str, dag: DAG) -> None:
        plane, line = self._plane, _Line(self._plane, secret)
        claim = Start(work.key, 1, 1.0, "elsewhere")
        stop = StopSignal()
        conduct(work, claim, line, plane.project, plane.settings, _Files(dag), stop=stop, clock=self.clock)


@pytest.fixture(params=[5 * HOUR, -5 * HOUR, 400 * 24 * HOUR], ids=["ahead", "behind", "a year ahead"])
def host(plane: ControlPlane, request: pytest.FixtureRequest) -> _Host:
    return _Host(plane, request.param)


class _LooksAgain(BaseOperator):
    def __init__(self, clock: Clock, by_clock: bool) -> None:
        super().__init__(task_id="a")
        self.host_clock, self.by_clock = clock, by_clock

    def execute(self, context: Any) -> None:
        raise RescheduleException(self.host_clock.now() + MINUTE if self.by_clock else MINUTE)


@pytest.mark.parametrize("by_clock", [True, False], ids=["moment", "duration"])
def test_reschedule_of_worker_with_wrong_clock_waits_as_long_as_it_said(
    plane: ControlPlane, host: _Host, by_clock: bool
) -> None:
    host.run(lambda clock: _LooksAgain(clock, by_clock))
    assert (plane.states(1), plane.task(1, "a").retry_at) == ({"a": "up_for_reschedule"}, START + MINUTE)


class _Waits(BaseOperator):
    def __init__(self, timeout: timedelta | None) -> None:
        super().__init__(task_id="a")
        self.wait_timeout = timeout

    def execute(self, context: Any) -> None:
        self.defer(trigger=TimeDeltaTrigger(MINUTE), method_name="came", timeout=self.wait_timeout)

    def came(self, context: Any, event: Any) -> None:
        """It is over."""


def test_deferral_of_worker_with_wrong_clock_ends_after_its_timeout(plane: ControlPlane, host: _Host) -> None:
    host.run(lambda _clock: _Waits(HOUR))
    with plane.database.reading() as connection:
        (wait,) = connection.execute(TRIGGER.select()).all()
    assert (plane.states(1), wait.deadline) == ({"a": "deferred"}, START + HOUR)
    # a triggerer has the clock of the control plane
    moments = [datetime.fromisoformat(wait.kwargs[name]) for name in ("since", "moment")]
    assert moments == [START, START + MINUTE]


class _Sensor(BaseSensorOperator):
    def __init__(self, **options: Any) -> None:
        super().__init__(task_id="a", mode="reschedule", timeout=HOUR, poke_interval=MINUTE, **options)

    def poke(self, context: Any) -> bool:
        return False


def test_sensor_on_worker_with_wrong_clock_has_all_of_its_timeout(plane: ControlPlane, host: _Host) -> None:
    for number in range(1, 4):
        host.run(lambda _clock: _Sensor())
        assert plane.task(1, "a").retry_at == START + number * MINUTE
        plane.clock.advance(MINUTE)
        host.clock.advance(MINUTE)
        plane.scheduler.sweep()


def test_clock_of_task_is_that_of_control_plane(plane: ControlPlane, host: _Host) -> None:
    seen: list[datetime] = []

    class Reads(BaseOperator):
        def execute(self, context: Any) -> None:
            seen.append(context["ti"].clock.now())
            host.clock.advance(MINUTE)
            seen.append(context["ti"].clock.now())

    host.run(lambda _clock: Reads(task_id="a"))
    assert seen == [START, START + MINUTE]


def test_moments_of_worker_one_version_older_are_understood(plane: ControlPlane) -> None:
    (work,) = plane.tick()
    plane.play(work, OutcomeState.RESCHEDULED, reschedule_at=START + MINUTE)
    assert plane.task(1, "a").retry_at == START + MINUTE
    plane.clock.advance(MINUTE)
    (work,) = plane.tick()
    plane.play(work, OutcomeState.DEFERRED, deferral=Deferral("m.T", {}, "came", deadline=START + HOUR))
    with plane.database.reading() as connection:
        assert [wait.deadline for wait in connection.execute(TRIGGER.select())] == [START + HOUR]
