"""What happens to engines, to what they hold, to the loops of their triggers, and to their database."""

from __future__ import annotations

from datetime import timedelta

from tests.simulation.database import SimulatedCrash
from tests.simulation.engine import SimulatedEngine
from tests.simulation.faults.targets import Injection, guarded, pick
from tests.simulation.plan import FaultKind
from tests.simulation.world import World

#: how many steps the attempts of a stopping engine get
_GRACE_STEPS = 30
_LEASES = 2.5
#: how far a host's clock is set: a little more than a lease or a tolerance, an hour, a day; forward and back
_JUMPS = tuple(sign * timedelta(seconds=seconds) for seconds in (100, 3600, 86400) for sign in (1, -1))


def _crash(world: World, choice: int) -> bool:
    engine = pick(world.living, choice)
    if engine is None:
        return False
    world.crash(engine)
    _lease_is_seen_to_be_over(world, engine, choice)
    return True


def _lease_is_seen_to_be_over(world: World, engine: SimulatedEngine, choice: int) -> None:
    """On the same host the next engine sees at once that the process is gone; elsewhere it waits for the lease."""
    if choice & 2:
        world.seen_gone.add(engine.number)


def _crash_before_commit(world: World, choice: int) -> bool:
    world.database.crash = "before"
    return True


def _crash_after_commit(world: World, choice: int) -> bool:
    world.database.crash = "after"
    return True


def _lose_acknowledgement(world: World, choice: int) -> bool:
    """Of whatever is committed next; or of the claim of a wait, which is seldom that."""
    if choice & 1 == 0:
        world.database.crash = "unheard"
        return True
    if not world.database.rows("SELECT id FROM trigger WHERE service_id IS NULL"):
        return False
    engine = pick([engine for engine in world.up if engine.triggerer.busy], choice // 2)
    if engine is None:
        return False
    world.database.crash = "unheard"
    guarded(world, engine, engine.triggerer.tick)
    return True


def _stop(world: World, choice: int) -> bool:
    engine = pick(world.up, choice)
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
    engine = pick(world.up, choice)
    if engine is None:
        return False
    world.freeze(engine, engine.settings.engine.dead_after_seconds * _LEASES)
    world.wanted_engines = 2
    return True


def _host_clock(world: World, choice: int) -> bool:
    """Beside another host, or where it is the only one while something waits for its time."""
    engine = pick(world.living, choice >> 2)
    if choice & 1:
        world.wanted_engines = 2
    elif not world.database.rows("SELECT 1 FROM task_instance WHERE state = 'up_for_retry'"):
        return False
    if engine is not None:
        engine.clock.jump(_JUMPS[(choice >> 4) % len(_JUMPS)])
    return engine is not None


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


def _give_up(world: World, choice: int) -> bool:
    """Its process goes on, and does not know."""
    held = [(engine, key) for engine in world.up for key in engine.executor.running()]
    found = pick(sorted(held, key=lambda pair: pair[1].attempt_id), choice)
    if found is None:
        return False
    engine, key = found
    process = engine.executor.process(key)
    if process is not None and choice & 4:
        world.stall(process, steps=20 + choice % 200)
    guarded(world, engine, lambda: engine.executor.give_up(key))
    return True


def _blind(world: World, choice: int) -> bool:
    world.blind_next = True
    return _crash(world, choice | 2)


def _swallow(world: World, choice: int) -> bool:
    engine = pick(world.living, choice)
    if engine is not None:
        engine.executor.swallows_next = True
    return engine is not None


def _event_twice(world: World, choice: int) -> bool:
    sent = [message for engine in world.engines for loop in engine.loops for message in loop.sent]
    message, engine = pick(sent, choice), pick(world.up, choice)
    if message is None or engine is None:
        return False
    guarded(world, engine, lambda: engine.triggerer.deliver(message))
    return True


def _loop_dies(world: World, choice: int) -> bool:
    engine = pick([engine for engine in world.up if engine.triggerer.loop is not None], choice)
    if engine is not None:
        guarded(world, engine, engine.triggerer.loop_dies)
    return engine is not None


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


FAULTS: dict[FaultKind, Injection] = {
    FaultKind.CRASH: _crash,
    FaultKind.CRASH_BEFORE_COMMIT: _crash_before_commit,
    FaultKind.CRASH_AFTER_COMMIT: _crash_after_commit,
    FaultKind.LOSE_ACKNOWLEDGEMENT: _lose_acknowledgement,
    FaultKind.STOP: _stop,
    FaultKind.FREEZE: _freeze,
    FaultKind.SECOND_ENGINE: _second_engine,
    FaultKind.HOST_CLOCK: _host_clock,
    FaultKind.REBOOT: _reboot,
    FaultKind.GIVE_UP: _give_up,
    FaultKind.BLIND: _blind,
    FaultKind.SWALLOW: _swallow,
    FaultKind.EVENT_TWICE: _event_twice,
    FaultKind.LOOP_DIES: _loop_dies,
    FaultKind.DELETE_DATABASE: _delete_database,
}
