"""Look at the ledgers of a store with eyes of its own: the bytes of the entries, and what is inside of the models.

A simulated model remembers every row it was ever trained on. What the ledgers say must be what the models know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trainflow.checkpoints.chain import ChainKey
from trainflow.testing.simulation.memory_store import MemoryStore
from trainflow.testing.simulation.table import START, SampleTable, rows_of, tiles
from trainflow.testing.simulation.training import MODEL
from trainflow.testing.simulation.violation import Violation

Entry = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """What a checkpoint and its ancestors were trained on, by partition number."""

    trained: frozenset[int] = frozenset()
    holes: frozenset[int] = frozenset()
    #: exclusive end; None: nothing was trained, and nobody said where to begin
    watermark: datetime | None = None


@dataclass
class Kept:
    """A committed checkpoint."""

    entry: Entry
    line: Line
    rows: list[str]
    pruned: bool = False

    @property
    def origin(self) -> str | None:
        """The checkpoint of another chain whose weights it went on from."""
        return _origin(self.entry)


class ChainCheck:
    """Follows one chain's ledger. Raises Violation for the first entry that must not be there."""

    def __init__(self, key: ChainKey, store: MemoryStore, table: SampleTable, everybody: Mapping[str, Kept]) -> None:
        self.key = key
        self._store = store
        self._table = table
        #: the checkpoints of all chains
        self._everybody = everybody
        self._previous = ""
        self.sequence = 0
        self.head: str | None = None
        self.kept: dict[str, Kept] = {}
        #: where the chain goes on when it has no head
        self._beginning = Line()
        #: partitions that a skip after the head stepped over
        self._skipped: list[int] = []
        self.promoted: dict[str, str] = {}
        #: runs that have committed
        self.runs: set[str] = set()
        self.kinds: set[str] = set()
        self.rewinds = 0

    @property
    def line(self) -> Line:
        """What was trained from the root to the head."""
        return self.kept[self.head].line if self.head else self._beginning

    @property
    def watermark(self) -> datetime | None:
        """The exclusive end of what the head was trained on."""
        return self.line.watermark

    def ancestors(self) -> list[str]:
        """Checkpoints from the head's parent back to the root."""
        found, each = [], self.head
        while each is not None and (each := self.kept[each].entry["parent_id"]) is not None:
            found.append(each)
        return found

    def follow(self) -> list[str]:
        """Check the entries that are new. Returns the ids of checkpoints that are."""
        new = []
        while (data := self._store.contents.get(self.key.entry(self.sequence + 1))) is not None:
            entry = json.loads(data)
            if entry["sequence"] != self.sequence + 1 or entry["previous"] != self._previous:
                raise Violation("fenced", f"entry {entry['sequence']} of {self.key} does not follow the one before it")
            _KINDS[entry["kind"]](self, entry)
            self.kinds.add(entry["kind"])
            self._previous = f"sha256:{hashlib.sha256(data).hexdigest()}"
            self.sequence += 1
            if "artifacts" in entry:
                new.append(entry["id"])
        return new

    def check_everything_is_there(self) -> None:
        """Every committed file is as it was committed, unless it was pruned."""
        for kept in self.kept.values():
            if not kept.pruned:
                self._check_files(kept.entry)

    # -- entries ---------------------------------------------------------------------------------------------------

    def _checkpoint(self, entry: Entry) -> None:
        self._check_parent(entry)
        split, before = entry["split"], self.line
        trained, holes = self._check_tiles(entry)
        edge = before.watermark or START
        if _time(split["start"]) != edge:
            raise Violation("exactly once", f"{entry['id']} starts at {split['start']}, the chain ends at {edge}")
        if _time(entry["watermark"]) != _time(split["end"]):
            raise Violation("exactly once", f"{entry['id']} says it ends at {entry['watermark']}, not {split['end']}")
        if unrecorded := set(self._skipped) - holes:
            raise Violation("skips are holes", f"{entry['id']} does not record {sorted(unrecorded)}, which was skipped")
        line = Line(before.trained | trained, before.holes | holes, _time(entry["watermark"]))
        self._commit(entry, trained, line)
        self._skipped = []

    def _hole_filled(self, entry: Entry) -> None:
        self._check_parent(entry)
        before = self.line
        trained, holes = self._check_tiles(entry)
        if before.watermark != _time(entry["watermark"]):
            raise Violation("repair", f"{entry['id']} fills a hole and moves the watermark to {entry['watermark']}")
        if stray := (trained | holes) - before.holes:
            raise Violation("repair", f"{entry['id']} fills {sorted(stray)}, which are no holes")
        self._commit(entry, trained, Line(before.trained | trained, before.holes - trained, before.watermark))

    def _commit(self, entry: Entry, trained: frozenset[int], line: Line) -> None:
        if twice := trained & self.line.trained:
            raise Violation("exactly once", f"{entry['id']} trains {sorted(twice)} again")
        if unknown := trained - self._table.seen:
            raise Violation("exactly once", f"{entry['id']} was trained on {sorted(unknown)}, which never were there")
        self._check_files(entry)
        self.kept[entry["id"]] = Kept(entry, line, self._check_model(entry))
        self.head = entry["id"]
        self.runs.add(entry["by"]["run_id"])

    def _skip(self, entry: Entry) -> None:
        self._check_head(entry, entry.get("parent_id"))
        edge = self._table.moment(self._skipped[-1] + 1) if self._skipped else self.watermark or START
        if _time(entry["start"]) != edge:
            raise Violation("skips are holes", f"a skip starts at {entry['start']}, the chain ends at {edge}")
        self._skipped += sorted(tiles(_time(entry["start"]), _time(entry["end"])))

    def _prune(self, entry: Entry) -> None:
        for name in entry["checkpoint_ids"]:
            self.kept[name].pruned = True
            if name == self.head or name in self.promoted.values():
                raise Violation("retention keeps what is needed", f"{name} is the head or promoted, and is pruned")
            for kept in self._everybody.values():
                if kept.origin == name and not kept.pruned and kept.entry["parent_id"] is None:
                    what = f"{name} is pruned, {kept.entry['id']} began there"
                    raise Violation("retention keeps what is needed", what)

    def _rewind(self, entry: Entry) -> None:
        to = entry["to_checkpoint_id"]
        back_to_head = to == self.head and bool(self._skipped)
        if to is not None and not back_to_head and (to not in self.ancestors() or self.kept[to].pruned):
            raise Violation("fenced", f"rewound to {to}, which is no kept ancestor of {self.head}")
        self.head, self._skipped = to, []
        self.rewinds += 1
        line = [] if to is None else [to, *self.ancestors()]
        self.promoted = {alias: name for alias, name in self.promoted.items() if name in line}

    def _promotion(self, entry: Entry) -> None:
        name = entry["checkpoint_id"]
        if name not in (self.head, *self.ancestors()) or self.kept[name].pruned:
            raise Violation("promotion", f"{name} is promoted, and is no kept checkpoint of the line")
        self.promoted[entry["alias"]] = name

    def _begin(self, entry: Entry) -> None:
        if entry["sequence"] != 1:
            raise Violation("fenced", f"{self.key} begins a second time")
        self._beginning = Line(watermark=_time(entry["watermark"]))

    def _decision(self, entry: Entry) -> None:
        self._check_head(entry, entry.get("parent_id", self.head))

    # -- what is looked at -----------------------------------------------------------------------------------------

    def _check_parent(self, entry: Entry) -> None:
        self._check_head(entry, entry["parent_id"])
        if entry["id"] in self._everybody:
            raise Violation("exactly once", f"{entry['id']} was committed twice")

    def _check_head(self, entry: Entry, parent: str | None) -> None:
        if parent != self.head:
            what = entry.get("id", entry["kind"])
            raise Violation("fenced", f"{what} of {self.key} is a child of {parent}, the head is {self.head}")

    def _check_files(self, entry: Entry) -> None:
        for file in entry["artifacts"]["files"]:
            data = self._store.contents.get(f"{entry['artifacts']['path']}/{file['path']}")
            if data is None or f"sha256:{hashlib.sha256(data).hexdigest()}" != file["sha256"]:
                what = "gone" if data is None else "different"
                raise Violation("atomic", f"{file['path']} of {entry['id']} is {what}")

    def _check_tiles(self, entry: Entry) -> tuple[frozenset[int], frozenset[int]]:
        """Partitions and holes cover the split, each once. Returns their numbers."""
        split = entry["split"]
        edge = _time(split["start"])
        trained, holes = _numbers(split["partitions"]), _numbers(split.get("holes", []))
        if sorted([*trained, *holes]) != list(tiles(edge, _time(split["end"]))):
            what = f"{split['start']} to {split['end']} is not {sorted(trained)} and {sorted(holes)}"
            raise Violation("exactly once", f"{entry['id']}: {what}")
        return frozenset(trained), frozenset(holes)

    def _check_model(self, entry: Entry) -> list[str]:
        """The model knows what it began with, and the rows of its split, each once. Returns what it knows."""
        base = _origin(entry) or entry["parent_id"]
        if base is not None and base not in self._everybody:
            raise Violation("exactly once", f"{entry['id']} went on from {base}, which nobody has committed")
        before = self._everybody[base].rows if base is not None else []
        rows = [row for each in entry["split"]["partitions"] for row in rows_of(_time(each["start"]))]
        found: list[str] = json.loads(self._store.contents[f"{entry['artifacts']['path']}/{MODEL}"])
        expected = [*before, *rows]
        if found != expected:
            raise Violation("exactly once", f"the model {entry['id']} knows {found}, the ledger says {expected}")
        return found


_KINDS = {
    "checkpoint": ChainCheck._checkpoint,
    "hole filled": ChainCheck._hole_filled,
    "skip": ChainCheck._skip,
    "prune": ChainCheck._prune,
    "rewind": ChainCheck._rewind,
    "promotion": ChainCheck._promotion,
    "fork": ChainCheck._begin,
    "adoption": ChainCheck._begin,
}


@dataclass
class LedgerCheck:
    """Follows the ledgers of all chains of a store."""

    store: MemoryStore
    table: SampleTable
    keys: list[ChainKey]
    chains: dict[ChainKey, ChainCheck] = field(init=False)
    #: the checkpoints of all chains
    kept: dict[str, Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chains = {key: ChainCheck(key, self.store, self.table, self.kept) for key in self.keys}

    def follow(self) -> None:
        """Check the entries that are new."""
        for chain in self.chains.values():
            for name in chain.follow():
                self.kept[name] = chain.kept[name]

    def check_everything_is_there(self) -> None:
        """Every committed file is as it was committed, unless it was pruned."""
        for chain in self.chains.values():
            chain.check_everything_is_there()

    @property
    def runs(self) -> set[str]:
        """Runs that have committed."""
        return {run for chain in self.chains.values() for run in chain.runs}

    def is_committed(self, path: str) -> bool:
        """Is this file part of a checkpoint?"""
        return path.split("/")[-2] in self.kept


def _origin(entry: Entry) -> str | None:
    origin = entry.get("origin")
    return None if origin is None else str(origin["checkpoint_id"])


def _numbers(stretches: list[dict[str, str]]) -> list[int]:
    """The numbers of the partitions in them."""
    return [number for each in stretches for number in tiles(_time(each["start"]), _time(each["end"]))]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
