"""What happens to attempts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tests.simulation.faults.targets import Injection, pick
from tests.simulation.plan import FaultKind
from tests.simulation.process import Process
from tests.simulation.world import World

_DAYS_OFF = tuple(timedelta(days=days) for days in (-5, 5, -400, 400))


def _to_a_process(happens: Callable[[World, Process, int], None]) -> Injection:
    def inject(world: World, choice: int) -> bool:
        process = pick(world.running, choice)
        if process is not None:
            happens(world, process, choice)
        return process is not None

    return inject


def _kill(_world: World, process: Process, _choice: int) -> None:
    process.kill()


def _stall(world: World, process: Process, choice: int) -> None:
    world.stall(process, steps=20 + choice % 200)


def _lose_reply(_world: World, process: Process, _choice: int) -> None:
    process.loses_reply = True


def _to_a_remote_process(happens: Callable[[Process], None]) -> Injection:
    def inject(world: World, choice: int) -> bool:
        process = pick([process for process in world.running if process.work.is_remote], choice)
        if process is not None:
            happens(process)
        return process is not None

    return inject


def _lose_message(process: Process) -> None:
    process.loses_message = True


def _double_message(process: Process) -> None:
    process.doubles_message = True


def _late_message(world: World, choice: int) -> bool:
    old = pick(world.sent, choice)
    if old is not None:
        world.arrive_late(*old)
    return old is not None


def _deliver_twice(world: World, process: Process, _choice: int) -> None:
    world.launch(process.work.workload)


def _worker_clock(world: World, choice: int) -> bool:
    if not world.scenario.remote:
        return False
    world.workers_are_off = _DAYS_OFF[choice % len(_DAYS_OFF)]
    return True


def _fail(world: World, process: Process, _choice: int) -> None:
    world.invariants.expected_errors.add("TrainingFailed")
    process.meets_next = Process.misfortune


def _preempt(_world: World, process: Process, _choice: int) -> None:
    process.work.told_to_stop = True


def _silence(_world: World, process: Process, _choice: int) -> None:
    process.meets_next = Process.silence


FAULTS: dict[FaultKind, Injection] = {
    FaultKind.KILL: _to_a_process(_kill),
    FaultKind.STALL: _to_a_process(_stall),
    FaultKind.LOSE_REPLY: _to_a_process(_lose_reply),
    FaultKind.LOSE_MESSAGE: _to_a_remote_process(_lose_message),
    FaultKind.MESSAGE_TWICE: _to_a_remote_process(_double_message),
    FaultKind.MESSAGE_LATE: _late_message,
    FaultKind.DELIVER_TWICE: _to_a_process(_deliver_twice),
    FaultKind.WORKER_CLOCK: _worker_clock,
    FaultKind.PREEMPT: _to_a_process(_preempt),
    FaultKind.FAIL: _to_a_process(_fail),
    FaultKind.SILENCE: _to_a_process(_silence),
}
