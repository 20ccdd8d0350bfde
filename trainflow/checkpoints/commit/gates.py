"""Gates: what the metrics must say before a checkpoint may be committed, and what happens when they do not. Pure.

    Gate("auc >= 0.6")                                       stop: nothing is committed, a person decides
    Gate("auc >= 0.98 * previous", otherwise="skip")         leave this split out, record why, go on with the next
    Gate("loss is finite", otherwise="rewind 2")             go back two checkpoints and train forward again

Several gates that refuse: the most severe consequence is taken (stop, then the longest rewind, then skip), and all that
failed is told. A gate on a metric that nothing reports says nothing about the split, so it stops, whatever it would do
otherwise. A rewind that cannot be, or that was tried at this split before, is a stop. One that would take back
what a person has decided, a checkpoint that was accepted or a split that was skipped, ends there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from trainflow.checkpoints.commit.conditions import parse_condition
from trainflow.errors import InputError

STOP = "stop"
SKIP = "skip"
_REWIND = re.compile(r"rewind\s+([1-9]\d{0,5})")
_ACTIONS = "stop, skip, or rewind N (N checkpoints back, at least 1)"


class Gate(msgspec.Struct, frozen=True):
    """A condition (see `trainflow.checkpoints.commit.conditions`) and what to do when the metrics do not meet it:
    `stop`, `skip`, or `rewind N`. Raises InputError for what cannot be read."""

    require: str
    otherwise: str = STOP

    def __post_init__(self) -> None:
        parse_condition(self.require)
        rewind_of(self.otherwise)

    def failure(self, metrics: Mapping[str, float], previous: Mapping[str, float]) -> str | None:
        """Why the metrics do not pass; None when they do."""
        return parse_condition(self.require).failure(metrics, previous)

    @property
    def metric(self) -> str:
        """The metric it looks at."""
        return parse_condition(self.require).metric


def gate_of(given: str | Gate) -> Gate:
    """A gate; a condition alone stops. Raises InputError for anything else."""
    if not isinstance(given, str | Gate):
        raise InputError(f"{given!r} is no gate; give a condition such as 'auc >= 0.6', or a Gate")
    return given if isinstance(given, Gate) else Gate(given)


def rewind_of(action: str) -> int | None:
    """How many checkpoints an action goes back; None for `stop` and `skip`. Raises InputError for anything else."""
    if action in (STOP, SKIP):
        return None
    found = _REWIND.fullmatch(action) if isinstance(action, str) else None
    if found is None:
        raise InputError(f"{action!r} is nothing a gate can do: write {_ACTIONS}")
    return int(found[1])


class GateHistory(msgspec.Struct, frozen=True):
    """What a gate needs to know of its chain."""

    #: places (counted from 1) of the kept checkpoints on the line, the head's last
    places: Sequence[int] = ()
    #: a gate has caused a rewind at this split before
    rewound: bool = False


class CommitCheckpoint(msgspec.Struct, frozen=True):
    """Commit."""


class StopChain(msgspec.Struct, frozen=True):
    """Commit nothing, wait for a person. `misnamed`: for no other reason than metrics that do not exist."""

    reasons: tuple[str, ...]
    misnamed: bool = False


class SkipSplit(msgspec.Struct, frozen=True):
    """Leave the split out and go on with the next."""

    reasons: tuple[str, ...]


class RewindBy(msgspec.Struct, frozen=True):
    """Make the checkpoint at `place` of the line the head (0: begin again before the first)."""

    place: int
    reasons: tuple[str, ...]


Verdict = CommitCheckpoint | StopChain | SkipSplit | RewindBy


def judge(
    gates: Iterable[Gate], metrics: Mapping[str, float], previous: Mapping[str, float], past: GateHistory
) -> Verdict:
    """What to do with a trained checkpoint: `metrics` are its own, `previous` its parent's."""
    failed = [(gate, why) for gate in gates if (why := gate.failure(metrics, previous))]
    if not failed:
        return CommitCheckpoint()
    reasons = tuple(why for _, why in failed)
    actions = {gate.otherwise for gate, _ in failed}
    if STOP in actions or any(gate.metric not in metrics for gate, _ in failed):
        return StopChain(reasons)
    steps = max((rewind_of(action) or 0 for action in actions), default=0)
    return _rewind(steps, reasons, past) if steps else SkipSplit(reasons)


def limit_rewind(verdict: RewindBy, floor: int, places: Sequence[int]) -> Verdict:
    """What a person has decided no gate takes back: a rewind goes as far as the checkpoint at place `floor` (0: nothing
    was decided) and no further. `places` as in `GateHistory`."""
    if verdict.place >= floor:
        return verdict
    if floor in places[:-1]:
        no_further = f"a person decided about the checkpoint at place {floor} of the line: it goes back no further"
        return RewindBy(floor, (*verdict.reasons, no_further))
    return StopChain((*verdict.reasons, "it cannot be rewound: that would take back what a person has decided"))


def _rewind(steps: int, reasons: tuple[str, ...], past: GateHistory) -> Verdict:
    if past.rewound:
        return StopChain((*reasons, "a rewind was tried at this split already"))
    if not past.places:
        return StopChain((*reasons, f"there is no checkpoint to rewind {steps} from"))
    place = max(0, past.places[-1] - steps)
    if place and place not in past.places:
        return StopChain(
            (*reasons, f"the files of the checkpoint {steps} back were pruned, so it cannot be rewound to")
        )
    return RewindBy(place, reasons)
