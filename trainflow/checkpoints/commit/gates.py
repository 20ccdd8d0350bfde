"""Gates: what the metrics must say before a checkpoint may be committed, and what happens when they do not. Pure.

    Gate("auc >= 0.6")                                       stop: nothing is committed, a person decides
    Gate("auc >= 0.98 * previous", otherwise="skip")         leave this split out, record why, go on with the next
    Gate("loss is finite", otherwise="rewind 2")             go back two checkpoints and train forward again

Several gates that refuse: the most severe consequence is taken (stop, then the longest rewind, then skip), and all that
failed is told. A gate on a metric that nothing reports says nothing about the split, so it stops, whatever it would do
otherwise. A rewind that cannot be, or that was tried at this split before, is a stop. One that would take back
what a person has decided, a checkpoint that was accepted or a split that was skipped, ends there.

Conditions on metrics, as people write them:

    auc >= 0.6                    against a number
    auc >= 0.98 * previous        against the same metric of the parent (passes when the parent has none)
    loss <= previous + 0.01
    loss is finite

A metric that is not there does not meet a condition; the message names those that are.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry, Rewind, Skip
from trainflow.checkpoints.ledger.state import CheckpointSummary
from trainflow.errors import InputError

_EXAMPLES = '"auc >= 0.6", "auc >= 0.98 * previous", "loss <= previous + 0.01", "loss is finite"'
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_METRIC = re.compile(r"\s*([A-Za-z_][\w.@/:\-]*)")
_COMPARISON = re.compile(r"\s*(>=|<=|==|>|<)")
_FINITE = re.compile(r"\s+is\s+finite\s*$")
_PREVIOUS = re.compile(rf"\s*(?:({_NUMBER})\s*\*\s*)?previous\s*(?:([+-])\s*({_NUMBER}))?\s*$")
_PLAIN = re.compile(rf"\s*({_NUMBER})\s*$")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


class Condition(msgspec.Struct, frozen=True):
    """`metric comparison factor · previous + offset`; without `previous` the limit is `offset`."""

    text: str
    metric: str
    comparison: str
    against_previous: bool = False
    factor: float = 1.0
    offset: float = 0.0

    def failure(self, metrics: Mapping[str, float], previous: Mapping[str, float]) -> str | None:
        """Why the metrics do not meet it; None when they do."""
        value = metrics.get(self.metric)
        if value is None:
            import difflib

            known = ", ".join(sorted(metrics)) or "none"
            close = difflib.get_close_matches(self.metric, metrics, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            return f"{self.text}: there is no metric {self.metric!r} (there are: {known}){hint}"
        if self.comparison == "finite":
            return None if math.isfinite(value) else f"{self.text}: it is {value}"
        limit = self._limit(previous)
        if limit is None or _OPERATORS[self.comparison](value, limit):
            return None
        if self.against_previous:
            return f"{self.text}: it is {value:.6g}, the limit is {limit:.6g} (previous: {previous[self.metric]:.6g})"
        return f"{self.text}: it is {value:.6g}"

    def _limit(self, previous: Mapping[str, float]) -> float | None:
        if not self.against_previous:
            return self.offset
        before = previous.get(self.metric)
        # a parent that measured nan would otherwise stop the chain for ever: nothing compares with nan
        if before is None or not math.isfinite(before):
            return None
        return self.factor * before + self.offset


def parse_condition(text: str) -> Condition:
    """The condition a person wrote. Raises InputError with the column where it stops making sense."""
    metric = _METRIC.match(text)
    if not metric:
        raise _problem(text, 0, "expected the name of a metric")
    if _FINITE.match(text, metric.end()):
        return Condition(text.strip(), metric[1], "finite")
    comparison = _COMPARISON.match(text, metric.end())
    if not comparison:
        raise _problem(text, metric.end(), "expected one of >= <= > < == or 'is finite'")
    against = _PREVIOUS.match(text, comparison.end())
    if against:
        offset = float((against[2] or "+") + against[3].lstrip("+")) if against[3] else 0.0
        return Condition(text.strip(), metric[1], comparison[1], True, float(against[1] or 1), offset)
    plain = _PLAIN.match(text, comparison.end())
    if not plain:
        raise _problem(text, comparison.end(), "expected a number, or '[number *] previous [± number]'")
    return Condition(text.strip(), metric[1], comparison[1], offset=float(plain[1]))


def _problem(text: str, position: int, expected: str) -> InputError:
    column = position + len(text[position:]) - len(text[position:].lstrip()) + 1
    rest = text[column - 1 :].strip()
    found = f"found {rest!r}" if rest else "it ends there"
    return InputError(f"condition {text!r}: {expected} at column {column}, {found}; examples: {_EXAMPLES}")


STOP = "stop"
SKIP = "skip"
_REWIND = re.compile(r"rewind\s+([1-9]\d{0,5})")
_ACTIONS = "stop, skip, or rewind N (N checkpoints back, at least 1)"


class Gate(msgspec.Struct, frozen=True):
    """A condition (see `trainflow.checkpoints.commit.gates`) and what to do when the metrics do not meet it:
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


def previous_of(
    metrics: Mapping[str, float], evaluation: Mapping[str, float], parent: Checkpoint | None
) -> dict[str, float]:
    """An honest score is compared with the parent's honest score, never with what a trainer said of its own data."""
    if parent is None:
        return {}
    sources = dict.fromkeys(metrics, parent.metrics) | dict.fromkeys(evaluation, parent.evaluation)
    return {name: source[name] for name, source in sources.items() if name in source}


def rewind_floor(line: Sequence[CheckpointSummary], since: int, entries: Iterable[LedgerEntry]) -> int:
    """The place of the checkpoint that holds the newest decision after entry `since`: one that was accepted, or the one
    after a split that a person skipped (the head, where it is not there yet); 0: no person has decided anything.

    `entries` are those after number `since`, `line` the kept checkpoints of the line. Pure.
    """
    decisions: list[int] = []
    sequences: dict[str, int] = {}
    for entry in entries:
        match entry:
            case Checkpoint():
                sequences[entry.id] = entry.sequence
                if entry.accepted is not None:
                    decisions.append(entry.sequence)
            case Skip() if entry.by.person:
                decisions.append(entry.sequence)
            case Rewind():
                last = sequences.get(entry.to_checkpoint_id or "", since)
                decisions = [each for each in decisions if each <= last]
    if not decisions or not line:
        return 0
    return next((each.place for each in line if each.sequence >= decisions[-1]), line[-1].place)
