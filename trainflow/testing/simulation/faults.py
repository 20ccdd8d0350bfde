"""What each fault does to a world. Each says whether it found somebody to strike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection

from trainflow.checkpoints.entries import Author
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.promote import promote
from trainflow.metadata import run_creation, run_queries
from trainflow.metadata.dag_queries import Versions
from trainflow.operators.handover import CONF_REPAIR
from trainflow.serialization.document import DagDocument
from trainflow.states import DagRunType, TriggeredBy
from trainflow.testing.simulation.database import SimulatedCrash
from trainflow.testing.simulation.engine import SimulatedEngine
from trainflow.testing.simulation.plan import Fault, FaultKind, Shape
from trainflow.testing.simulation.process import Process
from trainflow.testing.simulation.worker import Trouble
from trainflow.testing.simulation.world import World

_T = TypeVar("_T")
#: how many steps the attempts of a stopping engine get
_GRACE_STEPS = 30
_LEASES = 2.5
_UNFINISHED = "'queued', 'running'"
_ANY = f"{_UNFINISHED}, 'success', 'failed'"


def strike(world: World, fault: Fault) -> bool:
    """Let a fault happen. False: there is nobody it could happen to now."""
    return _FAULTS[fault.kind](world, fault.choice)


def _pick(things: Sequence[_T], choice: int) -> _T | None:
    return things[choice % len(things)] if things else None


# -- engines ---------------------------------------------------------------------------------------------------------


def _crash(world: World, choice: int) -> bool:
    engine = _pick(world.living, choice)
    if engine is None:
        return False
    world.crash(engine)
    _lease_is_seen_to_be_over(world, engine, choice)
    return True


def _lease_is_seen_to_be_over(world: World, engine: SimulatedEngine, choice: int) -> None:
    """On the same host the next engine sees at once that the process is gone; elsewhere it waits for the lease."""
    if choice & 2 and engine.is_registered:
        world.database.interfere(
            "UPDATE service SET heartbeat_at = '2000-01-01 00:00:00.000000' WHERE id = ?", engine.service_id
        )


def _crash_before_commit(world: World, choice: int) -> bool:
    world.database.crash = "before"
    return True


def _crash_after_commit(world: World, choice: int) -> bool:
    world.database.crash = "after"
    return True


def _stop(world: World, choice: int) -> bool:
    engine = _pick(world.up, choice)
    if engine is None:
        return False
    engine.scheduler.draining = True
    engine.executor.end(timedelta(seconds=engine.settings.engine.stop_grace_seconds))
    try:
        _let_end(world, engine)
        engine.stop()
    except SimulatedCrash:
        world.crash(engine)
    return True


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


def _freeze(world: World, choice: int) -> bool:
    engine = _pick(world.up, choice)
    if engine is None:
        return False
    world.freeze(engine, engine.settings.engine.dead_after_seconds * _LEASES)
    world.wanted_engines = 2
    return True


def _second_engine(world: World, choice: int) -> bool:
    world.wanted_engines = 2
    return True


def _reboot(world: World, choice: int) -> bool:
    for engine in world.living:
        world.crash(engine)
        _lease_is_seen_to_be_over(world, engine, choice)
    for process in world.running:
        process.kill()
    return True


# -- attempts --------------------------------------------------------------------------------------------------------


def _to_a_process(happens: Callable[[World, Process, int], None]) -> Callable[[World, int], bool]:
    def strike_one(world: World, choice: int) -> bool:
        process = _pick(world.running, choice)
        if process is not None:
            happens(world, process, choice)
        return process is not None

    return strike_one


def _kill(_world: World, process: Process, _choice: int) -> None:
    process.kill()


def _stall(world: World, process: Process, choice: int) -> None:
    world.stall(process, steps=20 + choice % 200)


def _lose_reply(_world: World, process: Process, _choice: int) -> None:
    process.loses_reply = True


def _deliver_twice(world: World, process: Process, _choice: int) -> None:
    world.launch(process.work.workload)


def _fail(world: World, process: Process, _choice: int) -> None:
    world.invariants.expected_errors.add("Misfortune")
    process.meets_next = Process.misfortune


def _preempt(_world: World, process: Process, _choice: int) -> None:
    process.work.told_to_stop = True


def _set_clock(by: timedelta) -> Callable[[World, int], bool]:
    def jump(world: World, _choice: int) -> bool:
        world.clock.jump(by)
        return True

    return jump


def _silence(_world: World, process: Process, _choice: int) -> None:
    process.meets_next = Process.silence


def _give_up(world: World, choice: int) -> bool:
    """Its process goes on, and does not know."""
    held = [(engine, key) for engine in world.up for key in engine.executor.running()]
    found = _pick(sorted(held, key=lambda pair: pair[1].attempt_id), choice)
    if found is None:
        return False
    engine, key = found
    process = engine.executor.process(key)
    if process is not None and choice & 4:
        world.stall(process, steps=20 + choice % 200)
    _guarded(world, engine, lambda: engine.executor.give_up(key))
    return True


def _blind(world: World, choice: int) -> bool:
    world.blind_next = True
    return _crash(world, choice | 2)


def _swallow(world: World, choice: int) -> bool:
    engine = _pick(world.living, choice)
    if engine is not None:
        engine.executor.swallows_next = True
    return engine is not None


# -- triggers --------------------------------------------------------------------------------------------------------


def _event_twice(world: World, choice: int) -> bool:
    sent = [message for engine in world.engines for loop in engine.loops for message in loop.sent]
    message, engine = _pick(sent, choice), _pick(world.up, choice)
    if message is None or engine is None:
        return False
    _guarded(world, engine, lambda: engine.triggerer.deliver(message))
    return True


def _loop_dies(world: World, choice: int) -> bool:
    engine = _pick([engine for engine in world.up if engine.triggerer.loop is not None], choice)
    if engine is not None:
        _guarded(world, engine, engine.triggerer.loop_dies)
    return engine is not None


def _guarded(world: World, engine: SimulatedEngine, run: Callable[[], None]) -> None:
    try:
        run()
    except SimulatedCrash:
        world.crash(engine)


# -- people ----------------------------------------------------------------------------------------------------------


def _delete_database(world: World, choice: int) -> bool:
    for engine in world.living:
        world.crash(engine)
    if choice & 1:  # with the whole home
        world.spooled.clear()
    for process in world.running:
        if choice & 2:
            process.kill()
        elif choice & 4:
            world.stall(process, steps=20 + choice % 100)
    world.new_database()
    world.invariants.interfered()
    return True


def _to_a_run(does: Callable[[World, Connection, int, int], object], states: str) -> Callable[[World, int], bool]:
    def strike_one(world: World, choice: int) -> bool:
        rows = world.database.rows(f"SELECT id FROM dag_run WHERE state IN ({states}) ORDER BY id")
        run = _pick([number for (number,) in rows], choice)
        if run is None:
            return False
        world.invariants.interfered()
        if choice & 8:
            for process in world.running:
                world.stall(process, steps=20 + choice % 100)
        world.person(lambda connection: does(world, connection, run, choice))
        return True

    return strike_one


def _clear_run(world: World, connection: Connection, run: int, _choice: int) -> None:
    run_queries.clear(connection, run, world.clock.now())


def _clear_task(world: World, connection: Connection, run: int, choice: int) -> None:
    document = world.pipeline.documents[run_queries.by_id(connection, run).dag_id]
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
    run_queries.cancel(connection, row, Versions(), world.clock.now(), note=note, mirrored=False)


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
    chain = _pick([chain for chain in world.ledger.chains.values() if chain.head is not None], choice)
    if chain is not None:
        world.invariants.interfered()
        world.rewind(chain)
    return chain is not None


def _promote(world: World, choice: int) -> bool:
    world.invariants.check()
    chain = _pick([chain for chain in world.ledger.chains.values() if chain.head is not None], choice)
    if chain is not None:
        kept = [name for name in (chain.head, *chain.ancestors()) if name and not chain.kept[name].pruned]
        name = kept[(choice >> 4) % len(kept)]
        promote(Ledger(world.store, chain.key), name, "champion", by=Author(), now=world.clock.now())
    return chain is not None


# -- the samples -----------------------------------------------------------------------------------------------------


def _republish(world: World, choice: int) -> bool:
    number = _pick(sorted(world.table.arrived), choice)
    if number is not None:
        world.invariants.interfered()
        world.table.arrive(number)
    return number is not None


def _vanish(world: World, choice: int) -> bool:
    """Not those that a stage ends with: what comes after the others tells that they are missing."""
    last = world.table.size - (2 if world.scene.shape is Shape.LAGGED else 1)
    number = _pick([each for each in sorted(world.table.arrived) if each < last], choice)
    if number is not None:
        world.table.vanish(number)
    return number is not None


def _late(world: World, choice: int) -> bool:
    number = _pick(sorted({*range(world.table.size)} - {*world.table.arrived, *world.arrivals}), choice)
    if number is not None:
        world.table.arrive(number)
    return number is not None


def _unreadable(world: World, choice: int) -> bool:
    world.invariants.expected_errors.add("SampleUnreadable")
    world.table.unreadable = 1 + choice % 4
    return True


# -- the store -------------------------------------------------------------------------------------------------------


def _trouble(kind: str, lasts: int = 1) -> Callable[[World, int], bool]:
    def arm(world: World, choice: int) -> bool:
        # a listing that is behind shows no file of an upload, and part of one is damaged
        world.invariants.expected_errors |= {"StoreFailure", "ArtifactCorrupt"}
        world.trouble = Trouble(kind, 1 + choice % 8, lasts)
        return True

    return arm


def _tear(world: World, choice: int) -> bool:
    """Only when training is over, and nobody commits: between the look at the files and the entry nobody can notice."""
    running = [process for home in world.homes for process in home.running]
    if any(process.work.workload.task_id in ("train", "commit") for process in running):
        return False
    world.ledger.follow()
    written = [file.path for key in world.ledger.chains for file in world.store.files(key.artifacts)]
    files = [path for path in written if not world.ledger.is_committed(path)]
    path = _pick(files, choice)
    if path is None:
        return False
    world.invariants.expected_errors.add("ArtifactCorrupt")
    world.store.contents[path] = world.store.contents[path][:-1]
    return True


_FAULTS: dict[FaultKind, Callable[[World, int], bool]] = {
    FaultKind.CRASH: _crash,
    FaultKind.CRASH_BEFORE_COMMIT: _crash_before_commit,
    FaultKind.CRASH_AFTER_COMMIT: _crash_after_commit,
    FaultKind.STOP: _stop,
    FaultKind.FREEZE: _freeze,
    FaultKind.SECOND_ENGINE: _second_engine,
    FaultKind.REBOOT: _reboot,
    FaultKind.KILL: _to_a_process(_kill),
    FaultKind.STALL: _to_a_process(_stall),
    FaultKind.LOSE_REPLY: _to_a_process(_lose_reply),
    FaultKind.GIVE_UP: _give_up,
    FaultKind.BLIND: _blind,
    FaultKind.SWALLOW: _swallow,
    FaultKind.DELIVER_TWICE: _to_a_process(_deliver_twice),
    FaultKind.EVENT_TWICE: _event_twice,
    FaultKind.LOOP_DIES: _loop_dies,
    FaultKind.DELETE_DATABASE: _delete_database,
    FaultKind.CLEAR_RUN: _to_a_run(_clear_run, _ANY),
    FaultKind.CLEAR_TASK: _to_a_run(_clear_task, _ANY),
    FaultKind.CLEAR_TASK_ALONE: _to_a_run(_clear_task_alone, _ANY),
    FaultKind.CANCEL_RUN: _to_a_run(_cancel_run, _UNFINISHED),
    FaultKind.TRIGGER: _trigger,
    FaultKind.REWIND: _rewind,
    FaultKind.REPAIR: _repair,
    FaultKind.PROMOTE: _promote,
    FaultKind.REPUBLISH: _republish,
    FaultKind.VANISH: _vanish,
    FaultKind.LATE: _late,
    FaultKind.UNREADABLE: _unreadable,
    FaultKind.CLOCK_FORWARD: _set_clock(timedelta(hours=1)),
    FaultKind.CLOCK_BACK: _set_clock(-timedelta(minutes=10)),
    FaultKind.PREEMPT: _to_a_process(_preempt),
    FaultKind.FAIL: _to_a_process(_fail),
    FaultKind.SILENCE: _to_a_process(_silence),
    FaultKind.STORE_BEFORE: _trouble("before"),
    FaultKind.STORE_AFTER: _trouble("after"),
    FaultKind.STORE_TORN: _trouble("torn"),
    FaultKind.STORE_THROTTLED: _trouble("throttled", lasts=4),
    FaultKind.STORE_FULL: _trouble("full", lasts=1000),
    FaultKind.STORE_STALE: _trouble("stale"),
    FaultKind.TEAR: _tear,
}
