"""What an attempt that is not waited for any more may still learn: nothing that it could mix with what it knew."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.simulation import people
from tests.simulation.database import SimulatedDatabase
from tests.simulation.environment import isolated_project, storage_redirected
from tests.simulation.plan import Scenario
from tests.simulation.process import Process
from tests.simulation.shared_world import SharedWorld
from tests.simulation.world import World
from trainflow.messages.execution_api import GetXCom, Refused, Reply, Request
from trainflow.metadata.queries import run_queries

SCENE = Scenario("backfill", evaluates=False, partitions=2, limit=2, present=(0,), arrivals=(1,), engines=1)


def go_on_until(world: World, reached: Callable[[], bool], *, without: tuple[Process, ...] = ()) -> None:
    """All but `without` take steps in turn."""
    names = {process.name for process in without}
    for _ in range(500):
        if reached():
            return
        moves = [move for move in world.moves(far=False) if move.who not in names]
        for move in moves[:1]:
            move.run()
        if not moves:
            world.skip_time()
    raise AssertionError("not reached")


@pytest.fixture
def world() -> Iterator[World]:
    with isolated_project(0) as project:
        world = World(SharedWorld(SCENE), SimulatedDatabase(), project)
        with storage_redirected(world):
            people.begin(world)
            yield world
        world.kill_everything()


def test_commit_of_cleared_run_cannot_claim_training_of_successor(world: World) -> None:
    go_on_until(world, lambda: any(process.work.workload.task_id == "commit" for process in world.running))
    [zombie] = [process for process in world.running if process.work.workload.task_id == "commit"]
    for _ in range(3):  # it claims itself, and reads the head and the split
        zombie.step(world)
    assert isinstance(zombie._at, GetXCom)
    # a person clears the run; it is trained again, on one partition more
    world.arrive()
    [(run,)] = world.database.rows("SELECT id FROM dag_run")
    world.person(lambda connection: run_queries.clear(connection, run, world.clock.now()))
    go_on_until(world, lambda: _state_of(world, "train") == "success", without=(zombie,))

    answers: list[Reply | None] = []
    real = world.answer

    def listen(process: Process, request: Request) -> Reply | None:
        answers.append(real(process, request))
        return answers[-1]

    world.answer = listen  # type: ignore[method-assign]
    while zombie.alive:
        zombie.step(world)

    # it would have committed what was trained on two partitions as trained on one: the second would come twice
    world.ledger.follow()
    assert not world.ledger.kept
    assert answers
    assert all(isinstance(answer, Refused) for answer in answers)


def test_commit_is_not_told_of_another_split_than_was_trained(world: World) -> None:
    go_on_until(world, lambda: any(process.work.workload.task_id == "commit" for process in world.running))
    [waiting] = [process for process in world.running if process.work.workload.task_id == "commit"]
    # a person lets the split be chosen again, and nothing else
    world.arrive()
    [(run,)] = world.database.rows("SELECT id FROM dag_run")
    world.invariants.interfered()
    world.person(lambda connection: run_queries.clear(connection, run, world.clock.now(), ["samples"]))
    go_on_until(world, lambda: _state_of(world, "samples") == "success", without=(waiting,))
    while waiting.alive:
        waiting.step(world)

    world.ledger.follow()
    assert not world.ledger.kept
    assert _state_of(world, "commit") == "failed"


def _state_of(world: World, task_id: str) -> str | None:
    [(state,)] = world.database.rows("SELECT state FROM task_instance WHERE task_id = ?", task_id)
    return str(state) if state else None
