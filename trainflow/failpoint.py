"""Fail points: a development run in which processes die at named steps, drawn from one seed.

Code that proceeds in named steps says so with `hit(step)`. Without the variable `TRAINFLOW_FAILPOINT` that is one
comparison and nothing else; `trainflow start --failpoint SEED` sets it for the engine and all below.
Each process draws from (seed, kind, how many of its kind came before) how many steps it may pass. The number of deaths
is bounded: fail points end, and what is under test has to come to its end.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Literal, NamedTuple

VARIABLE = "TRAINFLOW_FAILPOINT"

Kind = Literal["engine", "worker", "attempt"]


class PlannedKill(NamedTuple):
    """The process gets `signal` when it has passed `steps` steps."""

    steps: int
    signal: int


class _Draw(NamedTuple):
    """Chances of a kind: each of its first `among` processes dies with this `probability` within `longest` steps."""

    among: int
    probability: float
    longest: int


_DRAWS: dict[Kind, _Draw] = {
    "engine": _Draw(among=8, probability=1.0, longest=300),
    "worker": _Draw(among=6, probability=0.5, longest=60),
    "attempt": _Draw(among=160, probability=0.15, longest=12),
}


def planned_kill(seed: int, kind: Kind, ordinal: int) -> PlannedKill | None:
    """What happens to the `ordinal`-th process (from 0) of this kind; None: nothing. Pure."""
    # imported here: what is imported with it has handlers that each forked attempt would run
    from random import Random

    draw = _DRAWS[kind]
    random = Random(f"{seed} {kind} {ordinal}")
    if ordinal >= draw.among or random.random() >= draw.probability:
        return None
    # an attempt is also asked to stop, as a machine that is taken away asks
    how = signal.SIGTERM if kind == "attempt" and random.random() < 0.25 else signal.SIGKILL
    return PlannedKill(random.randint(1, draw.longest), how)


class RecordedKill(NamedTuple):
    """What was done to a process."""

    kind: str
    ordinal: int
    step: str
    signal: str


class Failpoints:
    """The fail points of one run: its seed, and the folder in which its processes count themselves."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self._kind: Kind | None = None
        self._ordinal = 0
        self._fate: PlannedKill | None = None
        self._passed = 0

    @property
    def variable(self) -> str:
        """The value of `TRAINFLOW_FAILPOINT`."""
        return f"{self.seed}:{self.folder}"

    @classmethod
    def of_variable(cls, value: str) -> Failpoints:
        """The inverse. Raises ValueError."""
        seed, _, folder = value.partition(":")
        return cls(int(seed), Path(folder))

    def enter(self, kind: Kind) -> None:
        """Count this process as one of `kind` from now on."""
        descriptor = os.open(self.folder / kind, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, b".")
        self._ordinal = os.lseek(descriptor, 0, os.SEEK_CUR) - 1
        os.close(descriptor)
        self._kind, self._fate, self._passed = kind, planned_kill(self.seed, kind, self._ordinal), 0

    def hit(self, step: str) -> None:
        """A step was passed; perhaps the last one."""
        self._passed += 1
        if self._fate is None or self._passed < self._fate.steps:
            return
        how = signal.Signals(self._fate.signal)
        self._fate = None
        self._record(RecordedKill(str(self._kind), self._ordinal, step, how.name))
        os.kill(os.getpid(), how)

    def _record(self, kill: RecordedKill) -> None:
        descriptor = os.open(self.folder / "kills", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, json.dumps(kill).encode() + b"\n")
        os.close(descriptor)

    def kills(self) -> list[RecordedKill]:
        """What was done so far, in order."""
        path = self.folder / "kills"
        return [RecordedKill(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


_failpoints = Failpoints.of_variable(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def active() -> bool:
    """Whether processes of this run die at steps."""
    return _failpoints is not None


def enter(kind: Kind) -> None:
    """Say what this process is. Without fail points it does nothing."""
    if _failpoints is not None:
        _failpoints.enter(kind)


def hit(step: str) -> None:
    """Say that this process has passed a named step. Without fail points it does nothing."""
    if _failpoints is not None:
        _failpoints.hit(step)
