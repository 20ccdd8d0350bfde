"""Which scheduled tasks are queued, under slots, pools and limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from trainflow.metadata.queries.in_flight import InFlightTask
from trainflow.metadata.queries.pool_queries import PoolSlots
from trainflow.metadata.queries.queueing_lock import MOST_BESIDE, UNSEEN
from trainflow.metadata.queries.scheduled_queries import Candidate
from trainflow.scheduler.executor_slots import LEFT_TO_OTHERS, EngineLoad, ExecutorSlots, less_loaded
from trainflow.scheduler.queueing import Limits, choose
from trainflow.serialization.document import DagDocument, TaskDocument
from trainflow.settings.executors import ExecutorEntry
from trainflow.states import TaskInstanceState

#: the engine that asks
OWN = 1
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class World:
    """Candidates in queueing order, what is held, and the limits."""

    def __init__(self, **dag: Any) -> None:
        self.tasks: dict[str, TaskDocument] = {}
        self.dag = dag
        self.candidates: list[Candidate] = []
        self.held: list[InFlightTask] = []
        self.pools = {"default_pool": PoolSlots(128)}
        self.executors: dict[str, ExecutorEntry] = {}
        self.problems: dict[str, str] = {}
        self.others: dict[int, int] = {}
        self.asked: list[int] = []
        #: other schedulers choose at the same time; whether that mattered
        self.beside = self.near = False

    def task(self, task_id: str, **more: Any) -> None:
        self.tasks[task_id] = TaskDocument(task_id=task_id, operator="EmptyOperator", **more)

    def candidate(self, task_id: str = "a", *, run: int = 1, **more: Any) -> int:
        self.tasks.setdefault(task_id, TaskDocument(task_id=task_id, operator="EmptyOperator"))
        facts: dict[str, Any] = {
            "id": len(self.candidates) + 1,
            "dag_run_id": run,
            "task_id": task_id,
            "map_index": -1,
            "pool": "default_pool",
            "pool_slots": 1,
            "priority_weight": 1,
            "queue": "default",
            "executor": None,
            "attempt_id": None,
            "deferral_number": 0,
            "failures": 0,
            "next_method": None,
            "dag_id": "d",
            "run_id": f"run{run}",
            "version_id": 1,
            "clear_number": 0,
            "traceparent": None,
            "scheduled_at": NOW,
        }
        self.candidates.append(Candidate(**{**facts, **more}))
        return self.candidates[-1].id

    def holds(
        self,
        task_id: str = "a",
        *,
        run: int = 1,
        pool: str = "default_pool",
        pool_slots: int = 1,
        executor: str | None = None,
        service: int = OWN + 1,
    ) -> None:
        facts = (1000 + len(self.held), run, task_id, pool, pool_slots, service)
        self.held.append(InFlightTask(*facts, TaskInstanceState.RUNNING, executor))

    def choose(self, slots: int = 100) -> tuple[list[int], dict[int, str]]:
        document = DagDocument(dag_id="d", tasks=list(self.tasks.values()), **self.dag)
        entries = {"local": ExecutorEntry("local", "local", slots), **self.executors}
        executors = ExecutorSlots(
            entries, "local", self.held, own=OWN, problems=self.problems, others=self.others, now=NOW
        )
        self.limits = Limits(executors=executors, pools=self.pools, held=self.held, documents=lambda _: document)
        choice = choose(self.candidates, self.limits, self._active_in_dag, beside=self.beside)
        self.near = choice.near
        return [candidate.id for candidate in choice.chosen], choice.refused

    def _active_in_dag(self, candidate: Candidate) -> int:
        self.asked.append(candidate.id)
        return sum(held.task_id == candidate.task_id for held in self.held)


def test_choose_without_limits_takes_all_in_order() -> None:
    world = World()
    ids = [world.candidate(), world.candidate("b"), world.candidate("c", run=2)]
    assert world.choose() == (ids, {})


def test_slots_of_executor() -> None:
    world = World()
    first, second, third = (world.candidate(run=run) for run in (1, 2, 3))
    chosen, refused = world.choose(slots=2)
    assert chosen == [first, second]
    assert refused == {third: "no slot of executor 'local' is free"}
    assert world.limits.executors.full() == {"local", None}


class TestExecutors:
    """Several at once: each has slots of its own."""

    def test_slots_of_one_that_is_full_hold_back_only_its_own(self) -> None:
        world = World()
        world.executors["gpu"] = ExecutorEntry("gpu", "celery", 1)
        first, second = (world.candidate(run=run, executor="gpu") for run in (1, 2))
        other = world.candidate("b")
        assert world.choose() == ([first, other], {second: "no slot of executor 'gpu' is free"})
        assert world.limits.executors.full() == {"gpu"}

    @pytest.mark.parametrize(("service", "free"), [(OWN, 1), (OWN + 1, 2)])
    def test_slots_of_local_are_those_of_one_engine(self, service: int, free: int) -> None:
        world = World()
        world.holds(run=9, executor="local", service=service)
        world.choose(slots=2)
        assert world.limits.executors.free == free

    @pytest.mark.parametrize("service", [OWN, OWN + 1])
    def test_slots_of_others_are_those_of_all_engines(self, service: int) -> None:
        world = World()
        world.executors["gpu"] = ExecutorEntry("gpu", "celery", 1)
        world.holds(run=9, executor="gpu", service=service)
        number = world.candidate(executor="gpu")
        assert world.choose() == ([], {number: "no slot of executor 'gpu' is free"})

    def test_executor_with_a_problem_takes_nothing_and_others_go_on(self) -> None:
        world = World()
        world.executors["gpu"] = ExecutorEntry("gpu", "celery", 5)
        world.problems["gpu"] = "no broker"
        number, other = world.candidate(executor="gpu"), world.candidate("b")
        assert world.choose() == ([other], {number: "executor 'gpu' takes nothing: no broker"})
        assert world.limits.executors.full() == {"gpu"}

    def test_executor_that_is_not_configured_is_named(self) -> None:
        world = World()
        world.executors["gpu"] = ExecutorEntry("gpu", "celery", 5)
        number = world.candidate(executor="gpo")
        assert world.choose() == ([], {number: "executor 'gpo' is not configured; did you mean 'gpu'?"})
        assert world.limits.executors.full() == {"gpo"}


class TestPools:
    def test_full_pool_does_not_hold_back_others(self) -> None:
        world = World()
        world.pools["gpu"] = PoolSlots(1)
        first = world.candidate(pool="gpu")
        second = world.candidate("b", pool="gpu")
        third = world.candidate("c")
        chosen, refused = world.choose()
        assert chosen == [first, third]
        assert refused == {second: "pool 'gpu' has 0 free slots, 1 is needed"}
        assert world.limits.full_pools() == ["gpu"]

    def test_pool_held_slots_count(self) -> None:
        world = World()
        world.pools["gpu"] = PoolSlots(4)
        world.holds(run=9, pool="gpu", pool_slots=3)
        large = world.candidate(pool="gpu", pool_slots=2)
        small = world.candidate("b", pool="gpu", pool_slots=1)
        chosen, refused = world.choose()
        assert chosen == [small]
        assert refused == {large: "pool 'gpu' has 1 free slot, 2 are needed"}

    def test_pool_without_limit_admits_all(self) -> None:
        world = World(max_active_tasks=1000)
        world.pools["wide"] = PoolSlots(-1)
        world.holds(run=9, pool="wide", pool_slots=500)
        ids = [world.candidate(pool="wide", pool_slots=100) for _ in range(50)]
        assert world.choose() == (ids, {})
        assert world.limits.full_pools() == []

    def test_pool_without_slots_admits_none(self) -> None:
        world = World()
        world.pools["closed"] = PoolSlots(0)
        number = world.candidate(pool="closed")
        assert world.choose() == ([], {number: "pool 'closed' has 0 free slots, 1 is needed"})

    def test_deferred_ones_count_where_pool_says_so(self) -> None:
        world = World()
        world.pools["gpu"] = PoolSlots(2, used_by_deferred=1)
        first, second = world.candidate(pool="gpu"), world.candidate("b", pool="gpu")
        chosen, refused = world.choose()
        assert chosen == [first]
        assert set(refused) == {second}

    def test_pool_that_was_made_smaller_than_its_use(self) -> None:
        world = World()
        world.pools["gpu"] = PoolSlots(1)
        world.holds(run=9, pool="gpu", pool_slots=3)
        number = world.candidate(pool="gpu")
        assert world.choose() == ([], {number: "pool 'gpu' has 0 free slots, 1 is needed"})

    def test_pool_that_does_not_exist(self) -> None:
        world = World()
        number, other = world.candidate(pool="nowhere"), world.candidate("b")
        assert world.choose() == ([other], {number: "pool 'nowhere' does not exist"})


class TestLimitsOfADag:
    def test_max_active_tasks_is_per_run(self) -> None:
        world = World(max_active_tasks=2)
        world.holds("x", run=1)
        first, second = world.candidate(run=1), world.candidate("b", run=1)
        third, fourth = world.candidate(run=2), world.candidate("b", run=2)
        chosen, refused = world.choose()
        assert chosen == [first, third, fourth]
        assert refused == {second: "max_active_tasks (2) of the run are active"}
        assert world.limits.run_is_full(world.candidates[0])

    def test_max_active_tis_per_dagrun(self) -> None:
        world = World()
        world.task("a", max_active_tis_per_dagrun=1)
        first, second, other = world.candidate(run=1), world.candidate(run=1, map_index=1), world.candidate(run=2)
        chosen, refused = world.choose()
        assert chosen == [first, other]
        assert refused == {second: "max_active_tis_per_dagrun (1) is reached"}

    def test_max_active_tis_per_dag_counts_what_is_held(self) -> None:
        world = World()
        world.task("a", max_active_tis_per_dag=1)
        world.holds(run=9)
        number = world.candidate(run=1)
        assert world.choose() == ([], {number: "max_active_tis_per_dag (1) is reached"})

    def test_max_active_tis_per_dag_counts_what_is_chosen_beside(self) -> None:
        world = World()
        world.task("a", max_active_tis_per_dag=2)
        first, second, third = (world.candidate(run=run) for run in (1, 2, 3))
        chosen, refused = world.choose()
        assert chosen == [first, second]
        assert refused == {third: "max_active_tis_per_dag (2) is reached"}
        assert world.asked == [first], "asked the database more than once"


def test_resumed_ones_go_first_whatever_their_priority() -> None:
    world = World()
    new = world.candidate(run=1, priority_weight=100)
    resumed = world.candidate(run=2, priority_weight=1, next_method="execute_complete")
    assert world.choose(slots=1)[0] == [resumed]
    assert world.choose(slots=2)[0] == [resumed, new]


@pytest.mark.parametrize(
    ("own", "others", "to"),
    [
        ((0, 4), {}, None),
        ((0, 4), {2: (0, 4)}, None),  # alike: it keeps what it has
        ((1, 4), {2: (0, 4)}, 2),
        ((1, 4), {2: (1, 4), 3: (0, 4)}, 3),
        ((1, 8), {2: (0, 2)}, None),  # a half of the small one is more than a quarter
        ((3, 4), {2: (2, 2)}, None),  # nothing is free there
    ],
)
def test_less_loaded_engine(own: tuple[int, int], others: dict[int, tuple[int, int]], to: int | None) -> None:
    assert less_loaded(EngineLoad(*own), {each: EngineLoad(*load) for each, load in others.items()}) == to


def test_engine_takes_its_share_of_local_slots() -> None:
    world = World()
    world.others = {OWN + 1: 4}
    ids = [world.candidate(run=run) for run in range(5)]
    assert world.choose(slots=4)[0] == [ids[0], ids[2], ids[4]]


def test_engine_takes_what_others_have_left_for_too_long() -> None:
    world = World()
    world.others = {OWN + 1: 4}
    ids = [world.candidate(run=run, scheduled_at=NOW - LEFT_TO_OTHERS) for run in range(5)]
    assert world.choose(slots=8)[0] == ids


def test_engine_leaves_nothing_to_others_that_are_full() -> None:
    world = World()
    world.others = {OWN + 1: 2}
    for _ in range(2):
        world.holds(service=OWN + 1)
    ids = [world.candidate(run=run) for run in range(3)]
    assert world.choose(slots=4)[0] == ids


def test_tasks_of_other_executors_are_left_to_no_engine() -> None:
    world = World()
    world.others, world.executors = {OWN + 1: 8}, {"gpu": ExecutorEntry("gpu", "celery", 4)}
    ids = [world.candidate(run=run, executor="gpu") for run in range(3)]
    assert world.choose()[0] == ids


class TestBeside:
    """Other schedulers choose at the same time, and what they take is not seen."""

    @pytest.fixture
    def world(self) -> World:
        world = World()
        world.beside = True
        return world

    def test_far_from_every_limit_it_takes_what_it_would_take_alone(self, world: World) -> None:
        ids = [world.candidate(run=run) for run in range(MOST_BESIDE)]
        assert (world.choose(), world.near) == ((ids, {}), False)

    @pytest.mark.parametrize(
        "candidate",
        [
            {"pool": "small"},
            {"executor": "fleet"},
            {"task_id": "few"},
            {"pool_slots": MOST_BESIDE + 1},
            {"map_index": 1, "task_id": "one"},
        ],
    )
    def test_what_may_be_too_much_is_not_taken_and_nothing_overtakes_it(
        self, world: World, candidate: dict[str, Any]
    ) -> None:
        world.pools["small"] = PoolSlots(UNSEEN)
        world.executors["fleet"] = ExecutorEntry("fleet", "celery", UNSEEN)
        world.task("few", max_active_tis_per_dag=UNSEEN)
        world.task("one", max_active_tis_per_dagrun=1)
        first = world.candidate(run=1)
        world.candidate(run=2, **candidate)
        world.candidate(run=3)
        assert (world.choose(), world.near) == (([first], {}), True)
        # which shows nothing if it could not be taken at all
        world.beside = False
        assert len(world.choose()[0]) == 3
        assert world.near

    def test_what_leaves_room_for_the_others_is_taken(self, world: World) -> None:
        world.pools["small"] = PoolSlots(UNSEEN + 1)
        first = world.candidate(pool="small")
        second = world.candidate("b", pool="small")
        assert (world.choose(), world.near) == (([first], {}), True)
        assert second not in world.choose()[1]

    def test_run_with_fewer_tasks_than_may_be_active_is_no_limit(self, world: World) -> None:
        world.dag = {"max_active_tasks": 3}
        ids = [world.candidate(name) for name in "ab"]
        assert (world.choose(), world.near) == (([ids[0]], {}), True)
        world.dag = {"max_active_tasks": 4}
        assert (world.choose(), world.near) == ((ids, {}), False)

    def test_more_than_its_share_is_left(self, world: World) -> None:
        ids = [world.candidate(run=run) for run in range(MOST_BESIDE + 1)]
        assert (world.choose()[0], world.near) == (ids[:-1], True)

    def test_slot_that_may_just_be_given_back_matters_and_own_slots_do_not(self, world: World) -> None:
        world.pools["none"] = PoolSlots(0)
        number = world.candidate(pool="none")
        assert world.choose() == ([], {number: "pool 'none' has 0 free slots, 1 is needed"})
        assert world.near
        world.candidates.clear()
        world.candidate()
        assert (world.choose(slots=0)[0], world.near) == ([], False)
        assert world.limits.executors.full_for_all() == frozenset()

    def test_executor_that_is_full_for_all_is_named(self, world: World) -> None:
        world.executors["fleet"] = ExecutorEntry("fleet", "celery", 1)
        world.holds(run=9, executor="fleet")
        world.candidate(executor="fleet")
        assert (world.choose()[0], world.near) == ([], True)
        assert world.limits.executors.full_for_all() == {"fleet"}
