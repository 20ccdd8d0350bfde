"""What one seed means: a scenario, and the faults that happen in it. Pure functions of the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from random import Random
from typing import Any

import msgspec


class FaultKind(StrEnum):
    """What may go wrong, and what people may do."""

    CRASH = "an engine is killed"
    CRASH_BEFORE_COMMIT = "the next writer is killed before the commit"
    CRASH_AFTER_COMMIT = "the next writer is killed right after the commit"
    LOSE_ACKNOWLEDGEMENT = "a commit counts, and its maker does not hear of it"
    STOP = "an engine is stopped in good order"
    FREEZE = "an engine stands still for longer than its lease"
    SECOND_ENGINE = "a second engine joins"
    REBOOT = "everything is killed"
    KILL = "an attempt is killed"
    STALL = "an attempt stands still for a while"
    LOSE_REPLY = "the reply to an attempt is lost after its request was applied"
    LOSE_MESSAGE = "a message of an attempt on another host is lost"
    MESSAGE_TWICE = "a message of an attempt on another host arrives twice"
    MESSAGE_LATE = "an old message of an attempt on another host arrives again"
    GIVE_UP = "an attempt that lives is declared lost"
    BLIND = "an engine is killed, and the next one does not see what runs"
    SWALLOW = "a workload is lost on its way"
    DELIVER_TWICE = "a workload is delivered twice"
    EVENT_TWICE = "the event of a trigger arrives twice"
    LOOP_DIES = "the loop of triggers is killed"
    DELETE_DATABASE = "the metadata database is deleted"
    CLEAR_RUN = "a person clears a run"
    CLEAR_TASK = "a person clears a task and what follows it"
    CLEAR_TASK_ALONE = "a person clears a task and nothing of what follows it"
    CANCEL_RUN = "a person cancels a run"
    TRIGGER = "a person triggers another run"
    REWIND = "a person rewinds the chain"
    REPAIR = "a person has holes repaired"
    EDIT = "a person has the samples start earlier"
    PROMOTE = "a person promotes a checkpoint"
    FORK = "a person forks a branch, which is to do something otherwise"
    REPUBLISH = "a partition is published again"
    REPLACE = "files of a split are replaced while it is worked on"
    VANISH = "a partition is taken away"
    LATE = "a partition comes that was not expected any more"
    UNREADABLE = "the samples cannot be read for a while"
    CLOCK_FORWARD = "the clock is set forward"
    CLOCK_BACK = "the clock is set back"
    HOST_CLOCK = "the clock of one host is set"
    WORKER_CLOCK = "the clock of a host of attempts is wrong by days"
    PREEMPT = "an attempt is told to stop"
    FAIL = "a training function raises"
    SILENCE = "an attempt exits with 0 and says nothing"
    STORE_BEFORE = "the store fails before a call has any effect"
    STORE_AFTER = "the store does what it was asked and fails to say so"
    STORE_TORN = "the store keeps half of an upload and fails"
    STORE_THROTTLED = "the store refuses a few calls"
    STORE_FULL = "the store is full for one process"
    STORE_STALE = "the store lists nothing that is new"
    TEAR = "a file that is not committed yet is damaged"
    LOSE_ENTRIES = "entries of a ledger are lost, and put back later"


class Fault(msgspec.Struct, frozen=True):
    """One fault. It happens before step `at`, or as soon after that as there is something it can happen to; `choice`
    picks one of those there are then."""

    at: int
    kind: FaultKind
    choice: int


class Shape(StrEnum):
    """How the stages of a pipeline start from each other."""

    ALONE = "one stage"
    ONCE = "pre-train, then fine-tune"
    DAILY = "every day the base, then a fine-tune"
    FAN = "one base feeds two fine-tunes"
    FEEDBACK = "the first stage goes on from the second"
    CIRCLE = "three stages, of which the first goes on from the last"
    LAGGED = "a stage that lags behind goes on from the newest base"
    PROMOTED = "a fine-tune goes on from what was promoted"


class Scenario(msgspec.Struct, frozen=True):
    """What is simulated. Partitions are numbered from 0; the last one of each stage always comes."""

    mode: str
    evaluates: bool
    partitions: int
    #: the most partitions of one split
    limit: int
    #: there from the beginning
    present: tuple[int, ...]
    #: come later, in this order; those in neither never come
    arrivals: tuple[int, ...]
    engines: int
    #: how long a missing partition is waited for while a later one is ready
    gap_seconds: int = 25
    shape: Shape = Shape.ALONE
    #: policy for partitions that are published again
    republished: str = "alert"
    #: partitions that are older than so many hours are stepped over
    newer_than: int | None = None
    #: checkpoints that keep their files
    keep: int | None = None
    #: training saves how far it is
    saves: bool = False
    #: partitions that have their marker and no row until they are published again
    empty: tuple[int, ...] = ()
    #: the most partitions of one split of each stage after the first; None: as many
    later_limit: int | None = None
    #: the most partitions of one split of a branch, once a person has forked one
    branch_limit: int = 1
    #: what gates do about bad partitions; None: there are no gates
    gate: str | None = None
    #: partitions that spoil what is trained on them
    bad: tuple[int, ...] = ()
    #: homes, each with its own database and engines, that train the same chains in the same store
    homes: int = 1
    #: attempts run on other hosts: they prove who they are, and their outcome waits for an answer
    remote: bool = False


#: a fault happens within so many steps, about as many as a history has
HORIZON = 220
_MOST_KINDS = 4
_MOST_FAULTS = 6
#: so many steps a fault waits for something it can happen to
MOST_DELAY_STEPS = 60


_SHAPES = (*[Shape.ALONE] * 7, *Shape)
#: partitions of a scenario. Short histories, and many of them, find more in the same time than long ones
_SIZES = (1, 2, 2, 3)


def scenario_of(seed: int) -> Scenario:
    """The scenario of a seed."""
    random = Random(f"scene {seed}")
    shape = random.choice(_SHAPES)
    gate = random.choice(("stop", "skip", "rewind 1")) if random.random() < 0.2 else None
    # whatever a stage ends with comes: what is missing at the end is no hole, there is nothing after it
    last = 2 if shape is Shape.LAGGED else 1
    size = max(last, random.choice(_SIZES))
    there = [number for number in range(size) if number >= size - last or random.random() > 0.12]
    late = [number for number in there if random.random() < 0.3]
    if random.random() < 0.25:
        random.shuffle(late)
    return Scenario(
        mode=random.choice(("backfill", "latest")),
        evaluates=random.random() < 0.25,
        partitions=size,
        limit=random.choice((1, 2, 3)),
        present=tuple(number for number in there if number not in late),
        arrivals=tuple(late),
        engines=2 if random.random() < 0.15 else 1,
        gap_seconds=random.choice((0, 25, 25)),
        republished=random.choice(("ignore", "alert", "replay", "replay")),
        newer_than=random.choice((1, 2)) if random.random() < 0.1 else None,
        keep=random.choice((1, 2)) if random.random() < 0.2 else None,
        saves=random.random() < 0.3,
        shape=shape,
        gate=gate,
        homes=2 if random.random() < 0.08 else 1,
        remote=Random(f"remote {seed}").random() < 0.4,
        empty=_some(seed, "empty", size, 0.12),
        branch_limit=Random(f"branch {seed}").choice((1, 2, 3)),
        later_limit=Random(f"later limit {seed}").choice((None, None, 1, 2)) if shape is not Shape.ALONE else None,
        bad=tuple(number for number in range(size) if random.random() < 0.3) if gate else (),
    )


def _some(seed: int, what: str, size: int, likely: float) -> tuple[int, ...]:
    """Some of so many partitions, drawn beside what else the scenario of a seed is."""
    random = Random(f"{what} {seed}")
    return tuple(number for number in range(size) if random.random() < likely)


def faults_of(seed: int, among: Sequence[FaultKind] = tuple(FaultKind)) -> tuple[Fault, ...]:
    """The faults of a seed, in the order in which they happen: a few kinds a seed, so that each meets itself and every
    other one often."""
    random = Random(f"faults {seed}")
    kinds = random.sample(among, min(len(among), random.randint(1, _MOST_KINDS)))
    faults = [
        Fault(random.randrange(HORIZON), random.choice(kinds), random.randrange(1 << 16))
        for _ in range(random.randint(0, _MOST_FAULTS))
    ]
    return tuple(sorted(faults, key=lambda fault: fault.at))


#: what a scenario is simplest with
_SIMPLEST: dict[str, Any] = {
    "mode": "backfill",
    "evaluates": False,
    "engines": 1,
    "republished": "ignore",
    "newer_than": None,
    "keep": None,
    "saves": False,
    "shape": Shape.ALONE,
    "gate": None,
    "bad": (),
    "empty": (),
    "later_limit": None,
    "branch_limit": 1,
    "homes": 1,
    "remote": False,
}


def simpler(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario with one thing less in it."""
    for name, value in _SIMPLEST.items():
        if getattr(scenario, name) != value:
            yield msgspec.structs.replace(scenario, **{name: value})
    for late in scenario.arrivals:
        there = tuple(sorted((*scenario.present, late)))
        yield msgspec.structs.replace(
            scenario, present=there, arrivals=tuple(n for n in scenario.arrivals if n != late)
        )
    for missing in set(range(scenario.partitions)) - {*scenario.present, *scenario.arrivals}:
        yield msgspec.structs.replace(scenario, present=tuple(sorted((*scenario.present, missing))))
    last = scenario.partitions - 1
    there_too = {last - 1, last - 2} if scenario.shape is Shape.LAGGED else {last - 1}
    if last and there_too <= {*scenario.present, *scenario.arrivals}:
        present, arrivals = (
            tuple(n for n in numbers if n != last) for numbers in (scenario.present, scenario.arrivals)
        )
        yield msgspec.structs.replace(scenario, partitions=last, present=present, arrivals=arrivals)


def complexity(scenario: Scenario) -> int:
    """How much there is in a scenario: less after each step of `simpler`."""
    missing = scenario.partitions - len(scenario.present) - len(scenario.arrivals)
    fancy = len([name for name, value in _SIMPLEST.items() if getattr(scenario, name) != value])
    return 20 * scenario.partitions + 3 * missing + 2 * len(scenario.arrivals) + fancy
