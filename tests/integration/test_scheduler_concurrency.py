"""Schedulers that share a database decide together what one alone would decide."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from tests.support.control_plane import ControlPlane, control_plane, empty_task
from trainflow.errors import LostTransition
from trainflow.messages.execution_api import Outcome, OutcomeState, Refused
from trainflow.metadata.queries import in_flight, run_queries, service_queries
from trainflow.metadata.queries.attempt_queries import ATTEMPT
from trainflow.metadata.queries.task_queries import TASK
from trainflow.scheduler.executor_slots import LEFT_TO_OTHERS
from trainflow.scheduler.recovery import adopt_orphans
from trainflow.settings.model import Settings

CHAIN_RUNS, WIDE_RUNS, STIRRED_RUNS = 12, 8, 6
#: ticks of one scheduler; far more than are needed
PATIENCE = 4000


@pytest.fixture
def planes(tmp_path: Path, database_url: str | None) -> Iterator[list[ControlPlane]]:
    """Two schedulers over one database, and a third connection for people."""
    settings = Settings(executors={"local": {"slots": 4}})
    with ExitStack() as stack:
        first = stack.enter_context(control_plane(tmp_path, database_url=database_url, settings=settings))
        first.add_dag("chain", empty_task("a"), empty_task("b", "a"), empty_task("c", "b"), max_active_runs=1)
        first.add_dag("wide", *(empty_task(f"t{number}") for number in range(6)), max_active_runs=3)
        first.add_dag("stirred", *(empty_task(f"t{number}") for number in range(6)), max_active_runs=2)
        more = [
            stack.enter_context(control_plane(tmp_path, clock=first.clock, settings=first.settings)) for _ in range(2)
        ]
        yield [first, *more]


class Workers:
    """Two schedulers that turn in threads of their own; what they hand over succeeds at once."""

    def __init__(self, planes: list[ControlPlane]) -> None:
        self.planes = planes
        self.order: list[str] = []
        self.handed: Counter[tuple[str, str, str]] = Counter()
        self.most_active: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()

    def turn(self, plane: ControlPlane) -> None:
        for _ in range(PATIENCE):
            plane.scheduler.sweep()
            for workload in plane.tick():
                with self._lock:
                    self.handed[workload.dag_id, workload.run_id, workload.task_id] += 1
                    if workload.dag_id == "chain" and workload.task_id == "a":
                        self.order.append(workload.run_id)
                plane.play(workload)
            if self.all_ended(plane):
                return
        raise AssertionError("the runs never ended")

    def all_ended(self, plane: ControlPlane) -> bool:
        with plane.database.reading() as connection:
            counts = run_queries.counts(connection)
        for dag_id, states in counts.items():
            self.most_active[dag_id] = max(self.most_active[dag_id], states.get("running", 0))
        return not any(states.get("queued", 0) or states.get("running", 0) for states in counts.values())

    def stir(self, plane: ControlPlane) -> None:
        """What people do at the same time: clear and cancel runs, all of whose rows others are moving. Locks are taken
        in an order of its own: there are deadlocks in plenty."""
        for number in range(40):
            plane.database.write(partial(self._cancel if number % 3 == 0 else self._clear, plane))
            plane.database.write(partial(self._renew, plane))

    def _clear(self, plane: ControlPlane, connection: Connection) -> None:
        for row in run_queries.listing(connection, ["stirred"]):
            with suppress(LostTransition):
                run_queries.clear(connection, row.id, plane.clock.now())

    def _cancel(self, plane: ControlPlane, connection: Connection) -> None:
        for row in run_queries.listing(connection, ["stirred"]):
            with suppress(LostTransition):
                run_queries.cancel(connection, row, plane.versions, plane.clock.now(), note="stirred", channels=())

    def _renew(self, plane: ControlPlane, connection: Connection) -> None:
        in_flight.heartbeat(connection, self.planes[0].service_id, plane.clock.now())

    def guarded(self, work: Callable[[ControlPlane], None], plane: ControlPlane) -> threading.Thread:
        def run() -> None:
            try:
                work(plane)
            except BaseException as error:
                self.errors.append(error)

        return threading.Thread(target=run)


def test_schedulers_at_once_keep_order_and_limits(planes: list[ControlPlane]) -> None:
    first, second, people = planes
    for number in range(CHAIN_RUNS):
        first.add_run("chain", f"r{number:02d}")
    for dag_id, count in (("wide", WIDE_RUNS), ("stirred", STIRRED_RUNS)):
        for number in range(count):
            first.add_run(dag_id, f"r{number:02d}")
    workers = Workers(planes)
    schedulers = [workers.guarded(workers.turn, plane) for plane in (first, second)]
    stirring = workers.guarded(workers.stir, people)
    for thread in (*schedulers, stirring):
        thread.start()
    stirring.join()
    for thread in schedulers:
        thread.join()
    assert workers.errors == []
    # in order, each task once, never too many
    assert workers.order == [f"r{number:02d}" for number in range(CHAIN_RUNS)]
    undisturbed = {key: times for key, times in workers.handed.items() if key[0] != "stirred"}
    assert set(undisturbed.values()) == {1}
    assert len(undisturbed) == CHAIN_RUNS * 3 + WIDE_RUNS * 6
    assert workers.most_active["chain"] == 1
    assert workers.most_active["wide"] <= 3
    assert workers.most_active["stirred"] <= 2
    with first.database.reading() as connection:
        ended = run_queries.counts(connection)
        attempts = connection.execute(
            select(func.count())
            .select_from(ATTEMPT.join(TASK, TASK.c.id == ATTEMPT.c.task_instance_id))
            .where(TASK.c.dag_run_id.in_([row.id for row in run_queries.listing(connection, ["chain"])]))
        ).scalar_one()
    assert ended["chain"] == {"success": CHAIN_RUNS}
    assert ended["wide"] == {"success": WIDE_RUNS}
    assert sum(ended["stirred"].values()) == STIRRED_RUNS
    assert attempts == CHAIN_RUNS * 3


@pytest.mark.exhaustive
def test_chain_advances_although_hundred_runs_are_busy(tmp_path: Path) -> None:
    """The run that has been waiting longest goes first: a run that began later than a hundred others, each with a long
    row of tasks, waits for what was ready before it, and not for the end of those runs."""
    slots, busy_runs = 4, 100
    with control_plane(tmp_path, settings=Settings(executors={"local": {"slots": slots}})) as plane:
        row = [empty_task("t0"), *(empty_task(f"t{number}", f"t{number - 1}") for number in range(1, 12))]
        plane.add_dag("busy", *row, max_active_runs=busy_runs)
        plane.add_dag("chain", empty_task("a"), empty_task("b", "a"), max_active_runs=1)
        for number in range(busy_runs):
            plane.add_run("busy", f"r{number:03d}")
        workloads = plane.tick()
        for number in range(4):
            plane.add_run("chain", f"r{number}")
        progress: list[int] = []
        for tick in range(300):
            for workload in workloads:
                if workload.dag_id == "chain":
                    progress.append(tick)
                plane.play(workload)
            plane.clock.advance(timedelta(seconds=1))
            workloads = plane.tick()
        gaps = [later - earlier for earlier, later in pairwise([0, *progress])]
        assert len(progress) == 8
        assert max(gaps) <= busy_runs / slots + 2


def _know_each_other(*planes: ControlPlane) -> None:
    """What a heartbeat of each would find out."""
    for plane in planes:
        plane.scheduler.task_queue.others = {each.service_id: 4 for each in planes if each is not plane}
        plane.scheduler.sweep()


def test_work_is_shared_by_free_slots(planes: list[ControlPlane]) -> None:
    """The scheduler that began runs leaves the others their share, in whatever order they look."""
    one, other, _ = planes
    one.add_dag("many", empty_task("a"))
    for number in range(6):
        one.add_run("many", f"r{number}")
    _know_each_other(one, other)
    mine, others = one.tick(), other.tick()
    assert (len(mine), len(others)) == (3, 3)
    assert len({workload.run_id for workload in [*mine, *others]}) == 6
    with one.database.reading() as connection:
        ran = connection.execute(select(ATTEMPT.c.service_id, func.count()).group_by(ATTEMPT.c.service_id)).all()
    assert {row[0]: row[1] for row in ran} == {one.service_id: 3, other.service_id: 3}


def test_work_left_to_one_that_does_not_take_it_is_taken(planes: list[ControlPlane]) -> None:
    one, other, _ = planes
    one.add_dag("many", empty_task("a"))
    for number in range(4):
        one.add_run("many", f"r{number}")
    _know_each_other(one, other)
    mine = one.tick()
    assert len(mine) == 2
    assert set(one.scheduler.task_queue.refused.values()) == {"left to another engine, which has more free slots"}
    one.clock.advance(LEFT_TO_OTHERS)
    one.scheduler.look_for_others()
    assert len(one.tick()) == 2


def test_run_whose_end_of_task_another_scheduler_was_told_and_does_not_follow_goes_on(
    planes: list[ControlPlane],
) -> None:
    """That one is frozen, say, and has not been silent for long enough. No other one was told by the API server."""
    frozen, other, api_server = planes
    api_server.service.follow_up = None
    run = frozen.add_run("chain")
    (first,) = frozen.tick()
    other.scheduler.sweep()
    assert other.tick() == []
    api_server.play(first)
    handed_over: list[str] = []
    for _ in range(3):
        other.scheduler.look_for_others()
        handed_over += [workload.task_id for workload in other.tick()]
    assert handed_over == ["b"]
    assert other.states(run) == {"a": "success", "b": "queued", "c": None}


def test_scheduler_taken_for_dead_that_goes_on_keeps_what_it_takes_from_then_on(planes: list[ControlPlane]) -> None:
    """A process that was stopped and resumed: what the other one took over is not its own any more, and what it queues
    afterwards is not taken away."""
    one, other, _ = planes
    one.add_dag("many", empty_task("a"))
    one.add_run("many", "r1")
    one.scheduler.sweep()
    [before] = one.tick()
    one.claim(before)

    def take_over(gone: bool) -> None:
        adopt_orphans(
            other.database, other.executor, other.service, other.leases,
            own=other.service_id, now=other.clock.now(), gone=lambda row: gone and row.id == one.service_id,
        )  # fmt: skip

    take_over(gone=True)
    assert isinstance(one.service.handle(Outcome(before.key, OutcomeState.SUCCESS)), Refused)
    one.database.write(lambda connection: service_queries.renew_lease(connection, one.service_id, one.clock.now()))
    one.scheduler.sweep()
    [after] = one.tick()
    take_over(gone=False)
    one.play(after)
    assert one.task(1, "a").state == "success"
    assert one.task(1, "a").lost == 0
