"""Waits that were begun by other code, an older build or a newer one: their tasks start over at no cost."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from tests.integration.engine_project import PIPELINE, WAITING, WriteProject, go
from tests.support.control_plane import ControlPlane, empty_task
from tests.support.embedded import embedded
from trainflow.executors.reactor import Reactor
from trainflow.messages.execution_api import Deferral, OutcomeState, Started
from trainflow.messages.triggerer import Fired, NotMade, Watch
from trainflow.messages.workload import ExecuteTask
from trainflow.metadata.queries.trigger_queries import TRIGGER
from trainflow.metadata.retry_policy import START_OVER_PAUSES
from trainflow.triggerer.loop_process import Loop
from trainflow.triggerer.triggerer import Triggerer

DEFERRAL = Deferral("m.Trigger", {"give_up_at": None}, "execute_complete", timeout_seconds=7 * 86_400.0)
WHY = "trigger 'm.Trigger' cannot be made from ['give_up_at']"


class _Triggerer(Triggerer):
    """Its event loop cannot make any trigger."""

    def _start_loop(self) -> Loop:
        return Loop(lambda _: None)

    def _send(self, loop: Loop, message: object) -> None:  # type: ignore[override]
        if isinstance(message, Watch):
            self.watch = message

    def say(self, message: Any) -> None:
        self._heard(self._common(), msgspec.json.encode(message))

    watch: Watch


class TestStartingOver:
    @pytest.fixture
    def triggerer(self, plane: ControlPlane) -> _Triggerer:
        return _Triggerer(
            plane.database,
            Reactor(plane.clock),
            plane.service,
            clock=plane.clock,
            project=plane.project,
            settings=plane.settings,
            service_id=plane.service_id,
            leases=plane.leases,
            on_change=plane.scheduler.notice,
        )

    @pytest.fixture
    def work(self, plane: ControlPlane) -> ExecuteTask:
        plane.add_dag("d", empty_task("a"))
        plane.add_run("d")
        (work,) = plane.tick()
        return work

    def defer(self, plane: ControlPlane, triggerer: _Triggerer, work: ExecuteTask) -> Started:
        started = plane.claim(work)
        assert isinstance(started, Started)
        plane.report(work, OutcomeState.DEFERRED, deferral=DEFERRAL)
        triggerer.notice()
        triggerer.tick()
        return started

    def test_first_time_resumes_same_attempt_at_once(
        self, plane: ControlPlane, triggerer: _Triggerer, work: ExecuteTask
    ) -> None:
        self.defer(plane, triggerer, work)
        triggerer.say(NotMade(triggerer.watch.trigger_id, WHY))
        triggerer.tick()
        (again,) = plane.tick()
        started = plane.claim(again)

        assert isinstance(started, Started)
        assert (again.key.attempt_id, started.try_number) == (work.key.attempt_id, 1)
        assert (started.next_method, started.next_kwargs) == ("__start_over__", {"reason": WHY, "times": 1})
        assert triggerer.seconds_left is None
        plane.report(again)
        assert plane.states(1) == {"a": "success"}

    def test_each_time_after_is_later_and_last_one_fails(
        self, plane: ControlPlane, triggerer: _Triggerer, work: ExecuteTask
    ) -> None:
        paused: list[float] = []
        for times in count():
            started = self.defer(plane, triggerer, work)
            assert started.next_kwargs.get("times", 0) == times
            triggerer.say(NotMade(triggerer.watch.trigger_id, WHY))
            if (left := triggerer.seconds_left) is None or left > START_OVER_PAUSES[-1].total_seconds():
                break
            paused.append(left)
            plane.clock.advance(timedelta(seconds=left))
            triggerer.tick()
            (work,) = plane.tick()
        assert paused == [pause.total_seconds() for pause in START_OVER_PAUSES]
        (failing,) = plane.tick()
        told = plane.claim(failing)
        assert isinstance(told, Started)
        assert told.next_method == "__fail__"
        assert f"{WHY}. The task has started over 5 times for that" in told.next_kwargs["error"]

    def test_wait_that_is_understood_in_between_begins_count_anew(
        self, plane: ControlPlane, triggerer: _Triggerer, work: ExecuteTask
    ) -> None:
        self.defer(plane, triggerer, work)
        triggerer.say(NotMade(triggerer.watch.trigger_id, WHY))
        triggerer.tick()
        (work,) = plane.tick()
        self.defer(plane, triggerer, work)
        triggerer.say(Fired(triggerer.watch.trigger_id, msgspec.Raw(b"null")))
        (work,) = plane.tick()
        self.defer(plane, triggerer, work)
        triggerer.say(NotMade(triggerer.watch.trigger_id, WHY))

        assert triggerer.seconds_left == 0.0

    def test_task_cleared_meanwhile_is_left_alone(
        self, plane: ControlPlane, triggerer: _Triggerer, work: ExecuteTask
    ) -> None:
        self.defer(plane, triggerer, work)
        with plane.database.transaction() as connection:
            connection.execute(TRIGGER.delete())
        triggerer.say(NotMade(triggerer.watch.trigger_id, WHY))
        triggerer.tick()

        assert plane.states(1) == {"a": "deferred"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"kwargs": {"folder": "x"}}, "cannot be made from ['folder']: "),
        ({"trigger_class": "operators.waiting.Renamed"}, "trigger 'operators.waiting.Renamed' cannot be imported"),
    ],
)
def test_task_that_waits_since_older_build_starts_over_and_ends_well(
    write_project: WriteProject, changed: dict[str, Any], why: str
) -> None:
    project = write_project({"pipelines/p.py": PIPELINE, "operators/__init__.py": "", "operators/waiting.py": WAITING})
    with embedded(project) as engine:
        assert engine.load() is None
        run = engine.trigger("defers")
        engine.until(lambda: engine.states(run).get("t") == "deferred")
    with embedded(project) as engine:
        database = engine.engine.database
        database.write(lambda connection: connection.execute(update(TRIGGER).values(service_id=None, **changed)))
        engine.until(lambda: engine.tasks(run)["t"].deferral_number == 1 and engine.states(run)["t"] == "deferred")
        go(project)
        assert engine.finish(run) == "success"
        (attempt,) = engine.attempts(run, "t")
        row = engine.tasks(run)["t"]

    assert (row.failures, row.lost, row.problem, attempt.outcome) == (0, 0, None, "success")
    log = (project.home.logs / attempt.log_name).read_text()
    assert "the task starts over: its wait was begun by other code than there is now" in log
    assert why in log
