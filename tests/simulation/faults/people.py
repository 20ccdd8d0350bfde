"""What people do, whenever they like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from tests.simulation import people
from tests.simulation.faults.targets import Injection, pick
from tests.simulation.plan import FaultKind, Shape
from tests.simulation.table import LENGTH, START
from tests.simulation.world import World
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.promote import promote
from trainflow.metadata import run_creation
from trainflow.metadata.queries import run_queries
from trainflow.metadata.queries.dag_queries import Versions
from trainflow.operators.chain.run_conf import CONF_REPAIR
from trainflow.serialization.document import DagDocument
from trainflow.states import DagRunType, TriggeredBy

_UNFINISHED = "'queued', 'running'"
_ANY = f"{_UNFINISHED}, 'success', 'failed'"


def _to_a_run(does: Callable[[World, Connection, int, int], object], states: str) -> Injection:
    def inject(world: World, choice: int) -> bool:
        rows = world.database.rows(f"SELECT id FROM dag_run WHERE state IN ({states}) ORDER BY id")
        run = pick([number for (number,) in rows], choice)
        if run is None:
            return False
        world.invariants.interfered()
        world.ledger.saves_are_given_up = True
        if choice & 8:
            for process in world.running:
                world.stall(process, steps=20 + choice % 100)
        world.person(lambda connection: does(world, connection, run, choice))
        return True

    return inject


def _clear_run(world: World, connection: Connection, run: int, _choice: int) -> None:
    run_queries.clear(connection, run, world.clock.now())


def _clear_task(world: World, connection: Connection, run: int, choice: int) -> None:
    row = run_queries.by_id(connection, run)
    if row.run_id in world.invariants.cancelled:
        # what stays skipped fails no run
        world.invariants.partly_cleared.add(row.run_id)
    document = world.pipeline.documents[row.dag_id]
    cleared = document.with_downstream([_task_of(document, choice)])
    run_queries.clear(connection, run, world.clock.now(), cleared)


def _clear_task_alone(world: World, connection: Connection, run: int, choice: int) -> None:
    row = run_queries.by_id(connection, run)
    world.invariants.partly_cleared.add(row.run_id)
    # what follows may ask for what it had handed over
    world.invariants.expected_errors.add("TaskError")
    task = _task_of(world.pipeline.documents[row.dag_id], choice)
    run_queries.clear(connection, run, world.clock.now(), [task])


def _task_of(document: DagDocument, choice: int) -> str:
    return document.tasks[(choice >> 4) % len(document.tasks)].task_id


def _cancel_run(world: World, connection: Connection, run: int, _choice: int) -> None:
    row, note = run_queries.by_id(connection, run), "cancelled by a person"
    world.invariants.cancelled.add(row.run_id)
    run_queries.cancel(connection, row, Versions(), world.clock.now(), note=note, channels=())


def _trigger(world: World, choice: int) -> bool:
    return _trigger_with(world, choice, {})


def _repair(world: World, choice: int) -> bool:
    return _trigger_with(world, choice, {CONF_REPAIR: True})


def _trigger_with(world: World, choice: int, conf: dict[str, Any]) -> bool:
    world.invariants.interfered()
    dag_id = list(world.pipeline.dags)[choice % len(world.pipeline.dags)]
    now, name = world.clock.now(), f"manual__{world.clock.now().isoformat()}_{choice}"
    if not world.database.rows("SELECT 1 FROM dag_run WHERE run_id = ?", name):
        manual, person = DagRunType.MANUAL, TriggeredBy.CLI
        world.person(
            lambda connection: run_creation.create(
                connection, dag_id=dag_id, run_id=name, run_type=manual, triggered_by=person, conf=conf, now=now
            )
        )
    return True


def _rewind(world: World, choice: int) -> bool:
    world.invariants.check()
    chain = pick([chain for chain in world.ledger.chains.values() if chain.head is not None], choice)
    if chain is not None:
        world.invariants.interfered()
        people.rewind(world, chain)
    return chain is not None


def _edit(world: World, _choice: int) -> bool:
    """The file says an earlier start, and there is something. Runs fail until a person has said what that means."""
    if world.table.begin != START or world.scenario.shape is not Shape.ALONE or len(world.homes) > 1:
        return False
    if world.database.crash is not None:
        # that is for a process of the product
        return False
    world.invariants.interfered()
    world.invariants.expected_errors.add("FailException")
    world.table.arrive(-1)
    world.edit(START - LENGTH)
    return True


def _fork(world: World, _choice: int) -> bool:
    world.invariants.check()
    if world.branch is not None or world.database.crash is not None:
        return False
    if world.scenario.shape is Shape.PROMOTED:
        # what was promoted is so in the chain that was forked alone: its branch may end before anything is
        return False
    if not any(chain.head for chain in world.ledger.chains.values()):
        return False
    for home in world.homes:
        home.invariants.interfered()
    people.fork(world)
    return True


def _promote(world: World, choice: int) -> bool:
    world.invariants.check()
    chain = pick([chain for chain in world.ledger.chains.values() if chain.head is not None], choice)
    if chain is not None:
        kept = [name for name in (chain.head, *chain.ancestors()) if name and not chain.kept[name].pruned]
        name = kept[(choice >> 4) % len(kept)]
        promote(Ledger(world.store, chain.key), name, "champion", by=Author(), now=world.clock.now())
    return chain is not None


FAULTS: dict[FaultKind, Injection] = {
    FaultKind.CLEAR_RUN: _to_a_run(_clear_run, _ANY),
    FaultKind.CLEAR_TASK: _to_a_run(_clear_task, _ANY),
    FaultKind.CLEAR_TASK_ALONE: _to_a_run(_clear_task_alone, _ANY),
    FaultKind.CANCEL_RUN: _to_a_run(_cancel_run, _UNFINISHED),
    FaultKind.TRIGGER: _trigger,
    FaultKind.REWIND: _rewind,
    FaultKind.REPAIR: _repair,
    FaultKind.EDIT: _edit,
    FaultKind.PROMOTE: _promote,
    FaultKind.FORK: _fork,
}
