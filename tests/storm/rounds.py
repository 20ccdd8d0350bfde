"""One round of a storm: lay out, disturb, leave alone, look at the models."""

from __future__ import annotations

import io
import math
import time
from collections import Counter
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.storm.disturbances import (
    ClockJump,
    Disturbance,
    Freeze,
    FullDisk,
    Kill,
    PowerCut,
    TouchSamples,
)
from tests.storm.shapes import FILE, FUNCTIONS, NAME, Model, Shape, problems_of
from tests.support.live_project import WITHOUT_MLFLOW, Ended, LiveProject, Running
from tests.support.local_object_stores import settings_of
from tests.support.tiny_project import FIRST_DAY, ROWS_A_DAY
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.settings.home import Home
from trainflow.storage.urls import open_store
from trainflow.testing.processes import wait_for

#: a storm of kills is no reason to give up here; leases that end soon let survivors go on
SETTINGS = (
    WITHOUT_MLFLOW
    + """\
[engine]
lost_attempts = 1000
heartbeat_seconds = 0.5
dead_after_seconds = 5.0
poll_seconds = 0.5
"""
)
_PAUSE_SECONDS = 0.02
#: of a storm of kills: after so many a day of samples is published
_KILLS_A_DAY = 4
#: so often a project that was left alone may have to be started again until its chain is caught up
_MOST_STARTS = 30


class Finding(NamedTuple):
    """What came of a round: what was done how often, and what is wrong."""

    strikes: Counter[str]
    seconds: float
    problems: list[str]


class Place(NamedTuple):
    """Where checkpoints are kept, and the options that reach it."""

    url: str
    options: dict[str, Any]


class Round:
    """One pipeline in one storm. All files lie below `folder`, the checkpoints at a `place` where there is one.
    `kills`: so many processes are killed, and nothing else happens. `pause`: seconds between two strikes, in the
    mean."""

    def __init__(
        self, folder: Path, shape: Shape, seed: str, *, place: Place | None = None, kills: int = 0, pause: float = 0.4
    ) -> None:
        self.shape = shape
        self._random = Random(seed)
        self._days = 6 + kills // _KILLS_A_DAY if kills else self._random.randint(6, 14)
        self._partitions = self._random.randint(1, 3)
        self._samples = folder / "samples"
        self._editions = [0] * self._days
        self.disk = FullDisk(folder / "disk")
        self._clock = ClockJump(folder)
        self._disturbances: list[Disturbance] = [Kill(), Kill(), PowerCut(), Freeze(), self._clock, self.disk]
        self._disturbances.append(TouchSamples(self._samples))
        self._kills, self._between = kills, pause
        if kills:
            self._disturbances = [Kill(), Kill(), Kill(), PowerCut()]
        self._place = place or Place(str(self.disk.folder / "checkpoints"), {})
        self._projects = [self._lay_out(folder / f"home{number}") for number in range(shape.homes)]
        self._running: list[Running | None] = [None] * shape.homes
        self.strikes: Counter[str] = Counter()

    def _lay_out(self, root: Path) -> LiveProject:
        project = LiveProject(root, SETTINGS + settings_of(*self._place))
        project.environ = {**self._clock.environment(project), "TRAINFLOW_HOME": str(self.disk.folder / root.name)}
        project.home = Home(self.disk.folder / root.name)
        project.write(FILE, self.shape.pipeline(self._samples, self._days, self._partitions))
        project.write("operators/__init__.py", "")
        project.write("operators/storm.py", FUNCTIONS)
        return project

    # -- samples ---------------------------------------------------------------------------------------------------

    def _publish(self, day: int) -> None:
        """Write one edition of a day: renamed into place, or over what is there."""
        folder = self._samples / f"{FIRST_DAY + timedelta(days=day):%Y-%m-%d}"
        folder.mkdir(parents=True, exist_ok=True)
        ids = np.arange(day * ROWS_A_DAY, (day + 1) * ROWS_A_DAY, dtype=np.int64)
        table = pa.table({"row": ids, "x": values_of(day, self._editions[day])})
        path = folder / "part-0.parquet"
        written = path if self._random.random() < 0.3 else folder / ".part-0.new"
        pq.write_table(table, written)
        written.replace(path)
        (folder / "_SUCCESS").touch()
        self._editions[day] += 1

    def _publish_something(self) -> str:
        missing = [day for day, count in enumerate(self._editions) if not count]
        if missing:
            self._publish(missing[0])
            return "publish"
        self._publish(self._random.randrange(self._days))
        return "publish again"

    # -- the storm -------------------------------------------------------------------------------------------------

    def run(self, strikes: int) -> Finding:
        """Let it be struck so often (by so many kills, where those were asked for), then come to its end."""
        began = time.monotonic()
        first = (
            self._days if self.shape.mode == "backfill" else self._random.randint(1, 6 if self._kills else self._days)
        )
        for day in range(first):
            self._publish(day)
        try:
            number = 0
            while number < (self._kills or strikes):
                self._keep_running()
                self._pause(self._random.expovariate(1 / self._between))
                number += self._kill() if self._kills else self._strike()
            for day, count in enumerate(self._editions):
                if not count:
                    self._publish(day)
            problems = self._end() or self._look()
        except (AssertionError, TimeoutError) as error:
            problems = [f"{type(error).__name__}: {error}"]
        return Finding(self.strikes, time.monotonic() - began, problems)

    def _strike(self) -> int:
        """Do one thing, or find nothing to do it to; it counts as one all the same."""
        if self._random.random() < 0.25:
            self.strikes[self._publish_something()] += 1
        else:
            self._disturb()
        return 1

    def _kill(self) -> int:
        """Kill something; how much was killed. A new day now and then leaves something to train."""
        killed = self._disturb()
        if killed and sum(self.strikes.values()) % _KILLS_A_DAY == 0 and 0 in self._editions:
            self._publish(self._editions.index(0))
        return int(killed)

    def _disturb(self) -> bool:
        disturbance = self._random.choice(self._disturbances)
        struck = disturbance.strike(self._random.choice(self._projects), self._random)
        self.strikes[disturbance.name] += struck
        return struck

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self._calm(now)
            time.sleep(min(_PAUSE_SECONDS, until - now))

    def _calm(self, now: float) -> None:
        for disturbance in self._disturbances:
            disturbance.calm(now)

    def _keep_running(self) -> None:
        for number, project in enumerate(self._projects):
            running = self._running[number]
            if running is None or running.ended:
                self._running[number] = project.begin_start(FILE, "--plain")

    # -- the end ---------------------------------------------------------------------------------------------------

    def _end(self) -> list[str]:
        """Leave it alone until every chain has come to the end of the table."""
        self._calm(math.inf)
        for number, project in enumerate(self._projects):
            last = ""
            for _ in range(_MOST_STARTS):
                running = self._running[number]
                if running is None or running.ended:
                    running = project.begin_start(FILE, "--plain")
                self._running[number] = None
                ended = running.wait() if self.shape.mode == "backfill" else self._wait_for_latest(running)
                if ended is None or ended.code == 0:
                    break
                last = ended.output
            else:
                return [f"not caught up after {_MOST_STARTS} starts: {last[-2000:]}"]
            project.wait_until_quiet()
        return []

    def _wait_for_latest(self, running: Running) -> Ended | None:
        """A chain that chases never ends by itself: stop it when nothing of the newest editions is missing."""
        wait_for(
            lambda: running.ended or not self._look(),
            lambda: f"the chain to come to the newest samples: {self._look()}\n{running.output[-3000:]}",
        )
        if running.ended:
            return running.wait()
        running.control_c()
        running.wait()
        return None

    def _look(self) -> list[str]:
        """What is wrong with the models, by their own files."""
        found = []
        for stage in self.shape.chains:
            model = self._model(stage)
            if model is None:
                found.append(f"{stage}: there is no model")
                continue
            wrong = problems_of(self.shape, stage, model, self._days, self._editions, values_of)
            found += [f"{stage}: {problem}" for problem in wrong]
        return found

    def _model(self, stage: str) -> Model | None:
        store = open_store(self._place.url, storage_options=self._place.options)
        ledger = Ledger(store, ChainKey(NAME, stage))
        if ledger.state().head is None:
            return None
        folder = ledger.checkpoint().artifacts.path
        rows, values = (np.load(io.BytesIO(store.read(f"{folder}/{name}.npy"))) for name in ("rows", "values"))
        return Model(rows, values)

    def close(self) -> None:
        """End everything of it."""
        self._calm(math.inf)
        for project in self._projects:
            project.close()
        self.disk.close()


@lru_cache(maxsize=1000)
def values_of(day: int, edition: int) -> np.ndarray:
    """The values of the rows of a day in one of its editions."""
    return np.random.default_rng([day, edition]).normal(size=ROWS_A_DAY)
