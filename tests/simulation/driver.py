"""Let one history happen: one actor takes one step, again and again, and after each everything is checked."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from random import Random

import msgspec

from tests.simulation import people
from tests.simulation.chain_check import ChainCheck
from tests.simulation.database import SimulatedDatabase
from tests.simulation.environment import isolated_project, storage_redirected
from tests.simulation.faults import inject
from tests.simulation.plan import MOST_DELAY_STEPS, Fault, Scenario
from tests.simulation.shared_world import SharedWorld
from tests.simulation.violation import Violation
from tests.simulation.world import Action, World
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.samples.table.inventory import open_inventory

#: a chain that has not come to its end after so many steps without a fault is stuck; the slowest of a thousand
#: needs a quarter of it
MOST_CALM_STEPS = 4000
#: no person should have to begin more often than for each partition that comes late, and after each fault
MOST_BEGINS = 10
#: how likely a moment passes, a partition arrives, or a person looks whether something is to be begun, at each step
_TIME, _ARRIVAL, _PERSON = 0.08, 0.02, 0.05
#: below it, a person looks when nothing else can happen
_SOON = 0.8
#: below it, an engine stops after each of its steps, also where nothing has changed
_CLOSE = 0.4


#: a partition that is written more often is not replayed for ever
_FEW = 3


class Event(msgspec.Struct, frozen=True):
    """What happened in one step."""

    step: int
    at: datetime
    what: str

    def __str__(self) -> str:
        return f"{self.step:4} {self.at:%H:%M:%S} {self.what}"


class History(msgspec.Struct, frozen=True):
    """What happened. `invariant` and `problem`: what was violated, None when nothing was."""

    seed: int
    scenario: Scenario
    faults: tuple[Fault, ...]
    steps: int
    #: what happened, in order: equal for equal histories
    events: tuple[Event, ...] = ()
    invariant: str | None = None
    problem: str | None = None


class Driver:
    """Drives the worlds of a history. All that is random comes from the seed, a constant amount of it at each step."""

    def __init__(
        self, seed: int, scenario: Scenario, faults: tuple[Fault, ...], databases: Sequence[SimulatedDatabase]
    ) -> None:
        self._seed = seed
        self._random = Random(f"driver {seed}")
        self._faults = deque(faults)
        self._databases = databases
        self._scenario = scenario
        self.steps = 0
        #: what happened so far
        self.events: list[Event] = []

    def drive(self) -> None:
        """Until the chain is complete. Raises Violation, or whatever the product raises where it must not."""
        with isolated_project(self._seed) as project:
            shared = SharedWorld(self._scenario)
            self._worlds = [World(shared, database, project) for database in self._databases[: self._scenario.homes]]
            self._world = self._worlds[0]
            try:
                with storage_redirected(self._world):
                    self._until_complete()
            finally:
                for world in self._worlds:
                    world.kill_everything()

    def _until_complete(self) -> None:
        if len(self._worlds) > 1:
            for world in self._worlds:
                world.invariants.interfered()
        calm = 0
        while self._faults or self._world.ledger.is_short or not all(world.complete for world in self._worlds):
            self._inject_due()
            self._step()
            self._check()
            calm = 0 if self._faults else calm + 1
            if calm == 1:
                for world in self._worlds:
                    world.thaw()
            if calm > MOST_CALM_STEPS * len(self._worlds):
                raise Violation("progress", f"not complete after {calm} steps without a fault: {self._situation()}")
        self._check_the_end()

    def _check(self) -> None:
        for world in self._worlds:
            world.invariants.check()

    def _inject_due(self) -> None:
        while self._faults and self._faults[0].at <= self.steps:
            fault = self._faults[0]
            self._world = self._worlds[fault.choice % len(self._worlds)]
            if inject(self._world, fault):
                self._note(f"!! {fault.kind}")
            elif self.steps < fault.at + MOST_DELAY_STEPS:
                return
            self._faults.popleft()
            self._check()

    def _step(self) -> None:
        chance, choice = self._random.random(), self._random.random()
        self.steps += 1
        if self._world.ledger.pass_step():
            self._note("the lost entries are put back")
        world = self._world = self._worlds[int(choice * 1000) % len(self._worlds)]
        if chance < _TIME:
            self._note(world.pass_time(choice))
        elif chance < _TIME + _ARRIVAL and world.arrivals:
            self._note(world.arrive())
        elif chance < _TIME + _ARRIVAL + _PERSON and people.could_begin(world):
            self._begin()
        elif chance < _TIME + _ARRIVAL + _PERSON and world.stopped:
            self._note(people.decide(world, choice))
        elif moves := self._moves(far=chance > _CLOSE):
            who, run = moves[int(choice * len(moves))]
            self._note(f"{who}: {run()}")
        elif world.arrivals and chance > 0.5:
            self._note(world.arrive())
        elif chance < _SOON and people.could_begin(world):
            # while nothing else can happen, people seldom wait for long
            self._begin()
        elif chance < _SOON and world.stopped:
            self._note(people.decide(world, choice))
        elif self._faults and self._is_at_rest():
            # nothing is left to do but what the faults will make
            self.steps = max(self.steps, self._faults[0].at)
        else:
            self._note(world.skip_time(self._worlds))

    def _moves(self, *, far: bool) -> list[Action]:
        """What could happen in this world; when that is nothing, in the others."""
        others = [world for world in self._worlds if world is not self._world]
        return next((moves for world in (self._world, *others) if (moves := world.moves(far=far))), [])

    def _is_at_rest(self) -> bool:
        return not any(world.unfinished_runs or people.could_begin(world) or world.stopped for world in self._worlds)

    def _begin(self) -> None:
        world = self._world
        if world.begins > (world.table.size + MOST_BEGINS) * len(self._worlds):
            raise Violation("progress", f"begun {world.begins} times: {self._situation()}")
        self._note(people.begin(world))

    def _check_the_end(self) -> None:
        world = self._world
        world.ledger.check_everything_is_there()
        for dag_id, chain in world.pipeline.chains.items():
            report = audit(Ledger(world.store, chain), world.pipeline.checker(dag_id).samples)
            if not report.ok:
                raise Violation("audit", "; ".join(report.problems))
            self._check_replayed(dag_id, world.ledger.chains[chain])

    def _check_replayed(self, dag_id: str, chain: ChainCheck) -> None:
        """What was published again before the newest run looked was trained again, where policy says so."""
        world, scenario = self._world, self._scenario
        possible = scenario.republished == "replay" and scenario.keep is None
        if not possible or scenario.homes > 1 or "SampleUnreadable" in world.invariants.expected_errors:
            return
        now = open_inventory(world.pipeline.checker(dag_id).samples, None, world.clock.now())
        for number, trained in chain.fingerprints().items():
            written_at, times = world.table.written[number]
            start = world.table.moment(number)
            now.states([start])
            seen = written_at < world.invariants.looked_at.get(dag_id, 0.0) and times <= _FEW
            if seen and now.fingerprint(start) not in (trained, None):
                raise Violation("replay", f"partition {number} was published again, and never trained again")

    def _note(self, step: str) -> None:
        home = f"home {self._worlds.index(self._world) + 1}: " if len(self._worlds) > 1 else ""
        self.events.append(Event(self.steps, self._world.clock.now(), f"{home}{step}"))

    def _situation(self) -> str:
        database = self._world.database
        runs = database.rows("SELECT number, state FROM dag_run ORDER BY id")
        tasks = database.rows(
            "SELECT dag_run_id, task_id, state FROM task_instance WHERE state IS NOT 'success' ORDER BY id"
        )
        watermarks = [f"{chain.watermark:%H}" for chain in self._world.ledger.chains.values() if chain.watermark]
        return f"watermarks {watermarks}, runs {runs}, tasks {tasks}"


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for garbage less often: a history makes a lot, and is short."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
