"""The history of a chain for people: every checkpoint it ever had, and what was decided about it, one line each.

Read once from the first entry, and from then on only what is new: fit for a process that lives long.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import msgspec

from trainflow.checkpoints.ledger.entries import (
    Adoption,
    Checkpoint,
    Fork,
    HoleFilled,
    LedgerEntry,
    Loss,
    Promotion,
    Prune,
    Regrid,
    Resume,
    Rewind,
    Skip,
    Stop,
)
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import last_number, numbered
from trainflow.errors import LedgerCorrupt
from trainflow.humanize import counted
from trainflow.samples.partitions import label

#: so many numbers of checkpoints are told one by one
_FEW = 5


class CheckpointEvent(msgspec.Struct, gc=False):
    """A checkpoint that was committed. `scores`: of its split by its parent, before it was trained on; `metrics`: what
    the trainer returned. `on_line`: no rewind left it behind; `pruned`: its files are gone."""

    number: int
    id: str
    parent_id: str | None
    start: datetime
    watermark: datetime
    partitions: int
    holes: int
    rows: int | None
    size: int
    at: datetime
    run_id: str
    metrics: dict[str, float]
    scores: dict[str, float]
    seconds: float | None
    #: refused by gates, and accepted by a person
    accepted: bool
    #: trained on samples that arrived late
    filled: bool
    #: pipeline/stage/branch whose checkpoint it started from; empty: its parent
    origin: str = ""
    on_line: bool = True
    pruned: bool = False


class ChainEvent(msgspec.Struct, frozen=True):
    """An entry of another kind. `entry`: its number in the ledger; `watermark`: where it was, or went to, in time."""

    entry: int
    kind: str
    at: datetime
    watermark: datetime | None
    sentence: str
    person: str = ""
    checkpoint_id: str | None = None
    #: of a prune: whose files are gone, and why
    pruned: tuple[int, ...] = ()
    reason: str = ""


class ChainHistory:
    """All of one chain. Not fit for several threads at a time."""

    def __init__(self) -> None:
        self.checkpoints: list[CheckpointEvent] = []
        self.events: list[ChainEvent] = []
        self.sequence = 0
        #: the highest number that a checkpoint has or had
        self.last_number = 0
        #: alias → checkpoint that has it
        self.aliases: dict[str, str] = {}
        self._by_id: dict[str, CheckpointEvent] = {}
        #: names of scores and of metrics, in the order in which they came up
        self._scored: dict[str, None] = {}
        self._measured: dict[str, None] = {}
        self._head: CheckpointEvent | None = None
        self._start: datetime | None = None

    def read(self, ledger: Ledger) -> None:
        """Take what is new. Raises LedgerCorrupt, StoreFailure."""
        following = ledger.since(self.sequence) if self.sequence else ledger.entries()
        for entry in following:
            self.take(entry)

    def take(self, entry: LedgerEntry) -> None:
        """Take the next entry. Raises LedgerCorrupt where it is another one."""
        if entry.sequence != self.sequence + 1:
            raise LedgerCorrupt(f"ledger entry {self.sequence + 1} is missing before {entry.sequence}", location="")
        before, self.last_number = self.last_number, last_number(self.last_number, entry)
        self.sequence = entry.sequence
        if isinstance(entry, Checkpoint):
            self._add(numbered(entry, before))
            return
        if isinstance(entry, Rewind):
            self._rewind(entry)
        if isinstance(entry, Prune):
            for name in entry.checkpoint_ids:
                if name in self._by_id:
                    self._by_id[name].pruned = True
        if isinstance(entry, Promotion):
            self.aliases[entry.alias] = entry.checkpoint_id
        if isinstance(entry, Fork | Adoption):
            self._start = entry.watermark
        self.events.append(self._event(entry))

    @property
    def line(self) -> list[CheckpointEvent]:
        """The checkpoints from the root to the head."""
        return [each for each in self.checkpoints if each.on_line]

    @property
    def metric_names(self) -> list[str]:
        """Names of all that was ever measured, those of scores first."""
        return list(self._scored | self._measured)

    def find(self, which: str) -> CheckpointEvent | None:
        """The checkpoint of an id, or of a number."""
        found = self._by_id.get(which)
        if found is None and which.isdecimal():
            found = next((each for each in self.checkpoints if each.number == int(which)), None)
        return found

    def aliases_of(self, checkpoint_id: str) -> list[str]:
        """The aliases that a checkpoint has."""
        return sorted(alias for alias, name in self.aliases.items() if name == checkpoint_id)

    def _add(self, entry: Checkpoint) -> None:
        made = CheckpointEvent(
            number=entry.number,
            id=entry.id,
            parent_id=entry.parent_id,
            start=entry.split.start,
            watermark=entry.watermark,
            partitions=len(entry.split.partitions),
            holes=len(entry.split.holes),
            rows=entry.split.rows,
            size=entry.artifacts.size,
            at=entry.at,
            run_id=entry.by.run_id,
            metrics=entry.metrics,
            scores=entry.evaluation,
            seconds=entry.seconds,
            accepted=entry.accepted is not None,
            filled=isinstance(entry, HoleFilled),
            origin=str(entry.origin.chain) if entry.origin else "",
        )
        self.checkpoints.append(made)
        self._scored |= dict.fromkeys(made.scores)
        self._measured |= dict.fromkeys(made.metrics)
        self._by_id[made.id] = self._head = made

    def _rewind(self, entry: Rewind) -> None:
        target = self._by_id.get(entry.to_checkpoint_id or "")
        last = target.number if target else 0
        for each in self.checkpoints:
            if each.number > last:
                each.on_line = False
        staying = {each.id for each in self.checkpoints if each.on_line}
        self.aliases = {alias: name for alias, name in self.aliases.items() if name in staying} | entry.promoted
        self._head = target

    def _event(self, entry: LedgerEntry) -> ChainEvent:
        sentence, watermark, checkpoint_id = self._described(entry)
        return ChainEvent(
            entry.sequence,
            str(entry.__struct_config__.tag),
            entry.at,
            watermark,
            sentence,
            entry.by.person,
            checkpoint_id,
            *((self._numbers(entry), entry.reason) if isinstance(entry, Prune) else ()),
        )

    def _numbers(self, entry: Prune) -> tuple[int, ...]:
        return tuple(sorted(self._by_id[each].number for each in entry.checkpoint_ids if each in self._by_id))

    def _described(self, entry: LedgerEntry) -> tuple[str, datetime | None, str | None]:
        here = self._head.watermark if self._head else self._start
        match entry:
            case Promotion():
                return self._promoted(entry)
            case Rewind():
                to = f"checkpoint {self._head.number}" if self._head else "before the first checkpoint"
                return _because(f"rewound to {to}", entry.reason or entry.cause), here, entry.to_checkpoint_id
            case Skip():
                what = f"left out {label(entry.start)} to {label(entry.end)}"
                return _because(what, entry.reason), entry.start, None
            case Stop():
                return f"stopped by a gate: {'; '.join(entry.reasons)}", entry.split.end, entry.id
            case Resume():
                return _because("went on after a stop", entry.reason), here, None
            case Fork():
                which = f"checkpoint {entry.number} of " if entry.number else ""
                return f"forked from {which}{entry.origin.chain}", entry.watermark, entry.origin.checkpoint_id
            case Adoption():
                return f"adopted {entry.uri}", entry.watermark, None
            case Regrid():
                return _because("the grid of the samples was changed", entry.reason), entry.watermark, None
            case Prune():
                return _pruned(self._numbers(entry), entry.reason), here, None
            case Loss():
                what = f"the loss of entries {entry.first} to {entry.last} was accepted"
                return _because(what, entry.reason), here, None
        return "", here, None

    def _promoted(self, entry: Promotion) -> tuple[str, datetime | None, str | None]:
        found: Any = self._by_id.get(entry.checkpoint_id)
        which = f"checkpoint {found.number}" if found else "a checkpoint"
        sentence = _because(f"promoted {which} to {entry.alias}", entry.reason)
        return sentence, found.watermark if found else None, entry.checkpoint_id


def told(events: Sequence[ChainEvent]) -> list[ChainEvent]:
    """Events as people are told of them: prunes that follow each other, by the same person or by runs and for the same
    reason, are one, the newest."""
    return [_as_one(list(group)) for _, group in groupby(events, _group)]


def _group(event: ChainEvent) -> tuple[object, ...]:
    return ("prune", event.person, event.reason) if event.pruned else (event.entry,)


def _as_one(events: list[ChainEvent]) -> ChainEvent:
    newest = events[-1]
    if len(events) == 1:
        return newest
    pruned = tuple(sorted({number for each in events for number in each.pruned}))
    return msgspec.structs.replace(newest, pruned=pruned, sentence=_pruned(pruned, newest.reason))


def _pruned(numbers: Sequence[int], reason: str) -> str:
    few = ", ".join(map(str, numbers)) if len(numbers) <= _FEW else f"{numbers[0]} to {numbers[-1]}"
    which = f"checkpoint {few}" if len(numbers) == 1 else f"{counted(len(numbers), 'checkpoint')} ({few})"
    return _because(f"deleted the files of {which}", reason)


def _because(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what
