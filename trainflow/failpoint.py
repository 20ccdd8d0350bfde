"""Chaos: a development run in which processes die at named steps, drawn from one seed.

Code that proceeds in named steps says so with `passed(step)`. Without the variable `TRAINFLOW_CHAOS` that is one
comparison and nothing else; `trainflow start --failpoint SEED` sets it for the engine and all below.
Each process draws from (seed, kind, how many of its kind came before) how many steps it may pass. The number of deaths
is bounded: failpoint ends, and what is under test has to come to its end.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

VARIABLE = "TRAINFLOW_CHAOS"

Kind = Literal["engine", "worker", "attempt"]


class Fate(NamedTuple):
    """The process gets `signal` when it has passed `steps` steps."""

    steps: int
    signal: int


class _Draw(NamedTuple):
    """Of the first `among` processes of a kind, each dies with this `probability` within `longest` steps."""

    among: int
    probability: float
    longest: int


_DRAWS: dict[Kind, _Draw] = {
    "engine": _Draw(among=8, probability=1.0, longest=600),
    "worker": _Draw(among=6, probability=0.5, longest=60),
    "attempt": _Draw(among=160, probability=0.15, longest=12),
}


def fate(seed: int, kind: Kind, ordinal: int) -> Fate | None:
    """What happens to the `ordinal`-th process (from 0) of this kind; None: nothing. Pure."""
    draw = _DRAWS[kind]
    random = Random(f"{seed} {kind} {ordinal}")
    if ordinal >= draw.among or random.random() >= draw.probability:
        return None
    # an attempt is also asked to stop, as a machine that is taken away asks
    how = signal.SIGTERM if kind == "attempt" and random.random() < 0.25 else signal.SIGKILL
    return Fate(random.randint(1, draw.longest), how)


class Kill(NamedTuple):
    """What was done to a process."""

    kind: str
    ordinal: int
    step: str
    signal: str


class Chaos:
    """The failpoint of one run: its seed, and the folder in which its processes count themselves."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self._kind: Kind | None = None
        self._ordinal = 0
        self._fate: Fate | None = None
        self._passed = 0

    @property
    def variable(self) -> str:
        """The value of `TRAINFLOW_CHAOS`."""
        return f"{self.seed}:{self.folder}"

    @classmethod
    def of_variable(cls, value: str) -> Chaos:
        """The inverse. Raises ValueError."""
        seed, _, folder = value.partition(":")
        return cls(int(seed), Path(folder))

    def enter(self, kind: Kind) -> None:
        """This process is one of `kind` from now on."""
        descriptor = os.open(self.folder / kind, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, b".")
        self._ordinal = os.lseek(descriptor, 0, os.SEEK_CUR) - 1
        os.close(descriptor)
        self._kind, self._fate, self._passed = kind, fate(self.seed, kind, self._ordinal), 0

    def passed(self, step: str) -> None:
        """A step was passed; perhaps the last one."""
        self._passed += 1
        if self._fate is None or self._passed < self._fate.steps:
            return
        how = signal.Signals(self._fate.signal)
        self._fate = None
        self._record(Kill(str(self._kind), self._ordinal, step, how.name))
        os.kill(os.getpid(), how)

    def _record(self, kill: Kill) -> None:
        descriptor = os.open(self.folder / "kills", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, json.dumps(kill).encode() + b"\n")
        os.close(descriptor)

    def kills(self) -> list[Kill]:
        """What was done so far, in order."""
        path = self.folder / "kills"
        return [Kill(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


_chaos = Chaos.of_variable(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def enter(kind: Kind) -> None:
    """Say what this process is. Without failpoint it does nothing."""
    if _chaos is not None:
        _chaos.enter(kind)


def passed(step: str) -> None:
    """Say that this process has passed a named step. Without failpoint it does nothing."""
    if _chaos is not None:
        _chaos.passed(step)
