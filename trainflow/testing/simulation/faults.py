"""What each fault does to a world. Most find nobody to strike at some moments: then nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from trainflow.errors import ChainMoved
from trainflow.metadata import run_queries
from trainflow.metadata.dag_queries import Versions
from trainflow.states import DagRunType, TriggeredBy
from trainflow.testing.simulation.database import SimulatedCrash
from trainflow.testing.simulation.engine import SimulatedEngine
from trainflow.testing.simulation.pipeline import CHAIN, DAG_ID
from trainflow.testing.simulation.plan import Fault, FaultKind
from trainflow.testing.simulation.process import Process, misfortune, silence
from trainflow.testing.simulation.world import World

_T = TypeVar("_T")
#: how many steps the attempts of a stopping engine get
_GRACE_STEPS = 30
_LEASES = 2.5


def strike(world: World, fault: Fault) -> None:
    """Let a fault happen."""
    _FAULTS[fault.kind](world, fault.choice)


def _pick(things: Sequence[_T], choice: int) -> _T | None:
    return things[choice % len(things)] if things else None


# -- engines ---------------------------------------------------------------------------------------------------------


def _crash(world: World, choice: int) -> None:
    engine = _pick(world.living, choice)
    if engine is None:
        return
    world.crash(engine)
    if engine.is_up or choice & 1:
        _lease_is_seen_to_be_over(world, engine, choice)


def _lease_is_seen_to_be_over(world: World, engine: SimulatedEngine, choice: int) -> None:
    """On the same host the next engine sees at once that the process is gone; elsewhere it waits for the lease."""
    if choice & 2 and hasattr(engine, "service_id"):
        world.database.write(
            "UPDATE service SET heartbeat_at = '2000-01-01 00:00:00.000000' WHERE id = ?", engine.service_id
        )


def _crash_in_transaction(when: str) -> Callable[[World, int], None]:
    def arm(world: World, choice: int) -> None:
        world.database.crash = when

    return arm


def _stop(world: World, choice: int) -> None:
    engine = _pick(world.up, choice)
    if engine is None:
        return
    engine.scheduler.draining = True
    engine.executor.end(timedelta(seconds=engine.settings.engine.stop_grace_seconds))
    try:
        _let_end(world, engine)
        engine.stop()
    except SimulatedCrash:
        world.crash(engine)


def _let_end(world: World, engine: SimulatedEngine) -> None:
    for key in list(engine.executor.running()):
        process = engine.executor.process(key)
        if process is None:
            continue
        for _ in range(_GRACE_STEPS):
            if process.alive and engine.alive:
                process.step(world)
        process.kill()
    for key in engine.executor.has_ended:
        engine.executor.notice(key)


def _freeze(world: World, choice: int) -> None:
    engine = _pick(world.up, choice)
    if engine is not None:
        world.freeze(engine, engine.settings.engine.dead_after_seconds * _LEASES)
        world.wanted_engines = 2


def _second_engine(world: World, choice: int) -> None:
    world.wanted_engines = 2


def _reboot(world: World, choice: int) -> None:
    for engine in world.living:
        world.crash(engine)
        _lease_is_seen_to_be_over(world, engine, choice)
    for process in world.running:
        process.kill()


# -- attempts --------------------------------------------------------------------------------------------------------


def _process(world: World, choice: int) -> Process | None:
    return _pick(world.running, choice)


def _kill(world: World, choice: int) -> None:
    process = _process(world, choice)
    if process is not None:
        process.kill()


def _lose_reply(world: World, choice: int) -> None:
    process = _process(world, choice)
    if process is not None:
        process.loses_reply = True


def _give_up(world: World, choice: int) -> None:
    """Its process goes on, and does not know."""
    engine = _pick(world.up, choice)
    key = _pick(sorted(engine.executor.running(), key=lambda key: key.attempt_id), choice >> 2) if engine else None
    if engine is not None and key is not None:
        try:
            engine.executor.give_up(key)
        except SimulatedCrash:
            world.crash(engine)


def _blind(world: World, choice: int) -> None:
    _crash(world, choice | 3)
    world.blind_next = True


def _swallow(world: World, choice: int) -> None:
    engine = _pick(world.living, choice)
    if engine is not None:
        engine.executor.swallows_next = True


def _deliver_twice(world: World, choice: int) -> None:
    process = _process(world, choice)
    if process is not None:
        world.launch(process.work.workload)


def _fail(world: World, choice: int) -> None:
    process = _process(world, choice)
    if process is not None:
        world.invariants.expected_errors.add("Misfortune")
        process.fails_next = misfortune


def _silence(world: World, choice: int) -> None:
    process = _process(world, choice)
    if process is not None:
        process.fails_next = silence


# -- triggers --------------------------------------------------------------------------------------------------------


def _event_twice(world: World, choice: int) -> None:
    sent = [message for engine in world.engines for loop in engine.loops for message in loop.sent]
    message, engine = _pick(sent, choice), _pick(world.up, choice)
    if message is not None and engine is not None:
        try:
            engine.triggerer.deliver(message)
        except SimulatedCrash:
            world.crash(engine)


def _loop_dies(world: World, choice: int) -> None:
    engine = _pick([engine for engine in world.up if engine.triggerer.loop is not None], choice)
    if engine is not None:
        try:
            engine.triggerer.loop_dies()
        except SimulatedCrash:
            world.crash(engine)


# -- people ----------------------------------------------------------------------------------------------------------


def _delete_database(world: World, choice: int) -> None:
    for engine in world.living:
        world.crash(engine)
    if choice & 1:  # with the whole home
        world.spooled.clear()
    if choice & 2:  # attempts may have been stopped before
        for process in world.running:
            process.kill()
    world.new_database()
    world.invariants.interfered()


def _runs(world: World) -> list[int]:
    return [number for (number,) in world.database.rows("SELECT id FROM dag_run ORDER BY id")]


def _clear_run(world: World, choice: int) -> None:
    run = _pick(_runs(world), choice)
    if run is not None:
        world.invariants.interfered()
        world.person(lambda connection: run_queries.clear(connection, run, world.clock.now()))


def _clear_task(world: World, choice: int) -> None:
    run = _pick(_runs(world), choice)
    tasks = [task.task_id for task in world.document.tasks]
    if run is not None:
        world.invariants.interfered()
        cleared = world.document.with_downstream([tasks[(choice >> 4) % len(tasks)]])
        world.person(lambda connection: run_queries.clear(connection, run, world.clock.now(), cleared))


def _cancel_run(world: World, choice: int) -> None:
    unfinished = world.database.rows("SELECT id FROM dag_run WHERE state IN ('queued', 'running') ORDER BY id")
    run = _pick([number for (number,) in unfinished], choice)
    if run is None:
        return
    world.invariants.interfered()
    world.person(
        lambda connection: run_queries.cancel(
            connection,
            run_queries.by_id(connection, run),
            Versions(),
            world.clock.now(),
            note="cancelled by a person",
            mirrored=False,
        )
    )


def _trigger(world: World, choice: int) -> None:
    world.invariants.interfered()
    now = world.clock.now()
    name = f"manual__{now.isoformat()}_{choice}"
    taken = world.database.rows("SELECT 1 FROM dag_run WHERE run_id = ?", name)
    if taken:
        return
    world.person(
        lambda connection: run_queries.create(
            connection,
            dag_id=DAG_ID,
            run_id=name,
            run_type=DagRunType.MANUAL,
            triggered_by=TriggeredBy.CLI,
            conf={},
            now=now,
        )
    )


def _rewind(world: World, choice: int) -> None:
    world.invariants.interfered()
    try:
        world.rewind()
    except ChainMoved:  # the chain has moved on meanwhile: a person would look again
        return


# -- the store -------------------------------------------------------------------------------------------------------


def _store_before(world: World, choice: int) -> None:
    world.invariants.expected_errors.add("StoreFailure")
    world.store_fault = (1 + choice % 6, "before")


def _store_after(world: World, choice: int) -> None:
    world.invariants.expected_errors.add("StoreFailure")
    world.store_fault = (1 + choice % 6, "after")


def _tear(world: World, choice: int) -> None:
    """Not while somebody commits: between the look at the files and the entry nobody can notice."""
    if any(process.work.workload.task_id == "commit" for process in world.running):
        return
    world.ledger.follow()
    files = [file.path for file in world.store.files(CHAIN.artifacts) if not world.ledger.is_committed(file.path)]
    path = _pick(files, choice)
    if path is not None:
        world.invariants.expected_errors.add("ArtifactCorrupt")
        world.store.contents[path] = world.store.contents[path][:-1]


_FAULTS: dict[FaultKind, Callable[[World, int], None]] = {
    FaultKind.CRASH: _crash,
    FaultKind.CRASH_BEFORE_COMMIT: _crash_in_transaction("before"),
    FaultKind.CRASH_AFTER_COMMIT: _crash_in_transaction("after"),
    FaultKind.STOP: _stop,
    FaultKind.FREEZE: _freeze,
    FaultKind.SECOND_ENGINE: _second_engine,
    FaultKind.REBOOT: _reboot,
    FaultKind.KILL: _kill,
    FaultKind.LOSE_REPLY: _lose_reply,
    FaultKind.GIVE_UP: _give_up,
    FaultKind.BLIND: _blind,
    FaultKind.SWALLOW: _swallow,
    FaultKind.DELIVER_TWICE: _deliver_twice,
    FaultKind.EVENT_TWICE: _event_twice,
    FaultKind.LOOP_DIES: _loop_dies,
    FaultKind.DELETE_DATABASE: _delete_database,
    FaultKind.CLEAR_RUN: _clear_run,
    FaultKind.CLEAR_TASK: _clear_task,
    FaultKind.CANCEL_RUN: _cancel_run,
    FaultKind.TRIGGER: _trigger,
    FaultKind.REWIND: _rewind,
    FaultKind.FAIL: _fail,
    FaultKind.SILENCE: _silence,
    FaultKind.STORE_BEFORE: _store_before,
    FaultKind.STORE_AFTER: _store_after,
    FaultKind.TEAR: _tear,
}
