"""Look at one chain's ledger with eyes of its own: the bytes of the entries, and what is inside of the models.

A simulated model remembers every row it was ever trained on. What the ledger says must be what the models know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tests.simulation.expected import BaseRule, Expected
from tests.simulation.memory_store import MemoryStore
from tests.simulation.table import START, SampleTable, fingerprint_of, rows_of, tiles
from tests.simulation.training import MODEL
from tests.simulation.violation import Violation
from trainflow.checkpoints.chain import ChainKey

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
    promoted: bool = False
    #: a rewind took it off the line
    undone: bool = False

    @property
    def origin(self) -> str | None:
        """The checkpoint of another chain whose weights it went on from."""
        return _origin(self.entry)


class ChainCheck:
    """Follows one chain's ledger. Raises Violation for the first entry that must not be there."""

    def __init__(
        self,
        key: ChainKey,
        store: MemoryStore,
        table: SampleTable,
        everybody: Mapping[str, Kept],
        expected: Expected,
    ) -> None:
        self.key = key
        self._expected = expected
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
        #: holes before the beginning that a regrid after the head has recorded
        self._regridded: frozenset[int] = frozenset()
        #: partitions that a skip after the head stepped over
        self._skipped: list[int] = []
        self.promoted: dict[str, str] = {}
        #: the checkpoint that gates refused, about which nobody has decided yet
        self.stopped: str | None = None
        #: runs that have committed, and those that have come to another conclusion
        self.runs: set[str] = set()
        self.concluded: set[str] = set()
        #: entries that are lost for now
        self.lost: dict[int, bytes] = {}

    @property
    def line(self) -> Line:
        """What was trained from the root to the head."""
        line = self.kept[self.head].line if self.head else self._beginning
        return replace(line, holes=line.holes | self._regridded) if self._regridded else line

    @property
    def watermark(self) -> datetime | None:
        """The exclusive end of what the head was trained on."""
        return self.line.watermark

    @property
    def edge(self) -> datetime | None:
        """The exclusive end of what was trained or stepped over."""
        return self._table.moment(self._skipped[-1] + 1) if self._skipped else self.watermark

    def _edges(self, edge: datetime | None) -> set[datetime]:
        """Where a chain that ends at `edge` goes on. Before it has begun that is where its samples start: what is under
        way keeps the start that it began with."""
        return {START, self._table.begin} if edge is None else {edge}

    def ancestors(self) -> list[str]:
        """Checkpoints from the head's parent back to the root."""
        found, each = [], self.head
        while each is not None and (each := self.kept[each].entry["parent_id"]) is not None:
            found.append(each)
        return found

    def fingerprints(self) -> dict[int, str]:
        """Partition → the fingerprint of what the line was trained on."""
        line = [self.kept[name].entry for name in (self.head, *self.ancestors()) if name is not None]
        trained = [each for entry in line for each in entry["split"]["partitions"]]
        return {tiles(_time(each["start"]), _time(each["end"]))[0]: each["fingerprint"] for each in trained}

    def follow(self) -> list[str]:
        """Check the entries that are new. Returns the ids of checkpoints that are."""
        new: list[str] = []
        if self.lost:
            self._check_that_nothing_is_done()
            return new
        if self.sequence and _digest(self._store.contents.get(self.key.entry(self.sequence), b"")) != self._previous:
            raise Violation("fenced", f"entry {self.sequence} of {self.key} was written over")
        while (data := self._store.contents.get(self.key.entry(self.sequence + 1))) is not None:
            entry = json.loads(data)
            if entry["sequence"] != self.sequence + 1 or entry["previous"] != self._previous:
                raise Violation("fenced", f"entry {entry['sequence']} of {self.key} does not follow the one before it")
            _KINDS[entry["kind"]](self, entry)
            self.concluded.add(entry["by"].get("run_id", ""))
            self._previous = _digest(data)
            self.sequence += 1
            if entry.get("id") in self.kept:
                new.append(entry["id"])
        return new

    def lose(self, first: int, last: int) -> None:
        """Take entries away for a while."""
        self.lost = {number: self._store.contents[self.key.entry(number)] for number in range(first, last + 1)}
        for number in self.lost:
            self._store.delete(self.key.entry(number))

    def put_back(self) -> None:
        """Restore what was lost."""
        self._check_that_nothing_is_done()
        for number, data in self.lost.items():
            self._store.create_exclusive(self.key.entry(number), data)
        self.lost = {}

    def _check_that_nothing_is_done(self) -> None:
        for number in (*self.lost, self.sequence + 1):
            if self.key.entry(number) in self._store.contents:
                lost = f"{min(self.lost)} to {max(self.lost)}"
                raise Violation(
                    "a short ledger is corrupt", f"{self.key} has lost {lost}, and entry {number} is written"
                )
        self.check_everything_is_there()

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
        if _time(split["start"]) not in self._edges(before.watermark):
            ends = before.watermark
            raise Violation("exactly once", f"{entry['id']} starts at {split['start']}, the chain ends at {ends}")
        if _time(entry["watermark"]) != _time(split["end"]):
            raise Violation("exactly once", f"{entry['id']} says it ends at {entry['watermark']}, not {split['end']}")
        if unrecorded := set(self._skipped) - holes:
            raise Violation("skips are holes", f"{entry['id']} does not record {sorted(unrecorded)}, which was skipped")
        if unreasonable := (holes & self._expected.no_holes) - self._table.vanished:
            raise Violation("holes have a reason", f"{entry['id']} steps over {sorted(unreasonable)}")
        self._check_base(entry)
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
        self._check_gates(entry)
        self._check_files(entry)
        self.kept[entry["id"]] = Kept(entry, line, self._check_model(entry))
        self.head, self._regridded = entry["id"], frozenset()
        self.runs.add(entry["by"]["run_id"])

    def _skip(self, entry: Entry) -> None:
        self._check_head(entry, entry.get("parent_id"))
        self._check_decided(entry)
        if _time(entry["start"]) not in self._edges(self.edge):
            raise Violation("skips are holes", f"a skip starts at {entry['start']}, the chain ends at {self.edge}")
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

    def _stop(self, entry: Entry) -> None:
        self._check_head(entry, entry["parent_id"])
        if self.stopped is not None:
            raise Violation("gates", f"{self.key} is stopped over {entry['id']}, and already was over {self.stopped}")
        self.stopped = entry["id"]

    def _regrid(self, entry: Entry) -> None:
        """What was trained stays; what the table has before it becomes holes."""
        self._check_head(entry, entry["parent_id"])
        if _time(entry["watermark"]) != self.edge:
            raise Violation("exactly once", f"{self.key} is regridded at {entry['watermark']}, it ends at {self.edge}")
        earlier = frozenset(_numbers(entry.get("holes", [])))
        if known := earlier & (self.line.trained | self.line.holes):
            raise Violation("exactly once", f"{self.key} is regridded, and {sorted(known)} was trained or is a hole")
        self._regridded = self._regridded | earlier

    def _resume(self, entry: Entry) -> None:
        self._check_head(entry, entry.get("parent_id"))
        if self.stopped is None:
            raise Violation("gates", f"{self.key} is resumed, and nothing had stopped it")
        self.stopped = None

    def _check_gates(self, entry: Entry) -> None:
        """What gates refuse, a person has accepted."""
        accepted = entry.get("accepted") is not None
        if self.stopped is not None and not (accepted and entry["id"] == self.stopped):
            raise Violation("gates", f"{entry['id']} is committed to {self.key}, which is stopped over {self.stopped}")
        least = self._expected.least_quality
        if least is not None and entry["metrics"]["quality"] < least and not accepted:
            raise Violation("gates", f"{entry['id']} is committed with quality {entry['metrics']['quality']}")
        self.stopped = None

    def _check_base(self, entry: Entry) -> None:
        """The weights come from where the pipeline says."""
        origin, rule = _origin(entry), self._expected.base
        base = self._everybody.get(origin) if origin is not None else None
        start, end = _time(entry["split"]["start"]), _time(entry["split"]["end"])
        match rule:
            case None:
                right = origin is None
            case BaseRule.FIRST_ONLY:
                right = (origin is None) == (entry["parent_id"] is not None)
            case BaseRule.AT_BEGINNING:
                right = self._is_last_before(start, base)
            case BaseRule.REACHES_END:
                right = base is not None and base.line.watermark is not None and base.line.watermark >= end
                before = self._one_watermark_before(base) if base is not None else None
                right = right and (before is None or before.line.watermark is None or before.line.watermark < end)
            case BaseRule.PROMOTED:
                right = base is not None and base.promoted
            case BaseRule.ANY:
                right = base is not None
        if not right:
            raise Violation("the base is the right one", f"{entry['id']} of {self.key}: {origin} is not '{rule}'")

    def _one_watermark_before(self, kept: Kept) -> Kept | None:
        """The checkpoint that it went on from; what has only filled a hole stands where the one before it stood."""
        before: Kept | None = kept
        while before is not None and before.line.watermark == kept.line.watermark:
            before = self._everybody.get(before.entry["parent_id"] or "")
        return before

    def _is_last_before(self, start: datetime, base: Kept | None) -> bool:
        """Whether the base's chain went on from `base` (None: from nothing) to beyond `start`, or did not go on."""
        if base is not None and (base.line.watermark is None or base.line.watermark > start):
            return False
        parent = base.entry["id"] if base is not None else None
        everybody = [each for each in self._everybody.values() if not each.undone]
        others = [each for each in everybody if each.entry["artifacts"]["path"].startswith(self._expected.follows)]
        after = [each.line.watermark for each in others if each.entry["parent_id"] == parent]
        return self.watermark is None or all(moment is not None and moment > start for moment in after)

    def _check_decided(self, entry: Entry) -> None:
        refused = (entry.get("refused") or {}).get("checkpoint_id")
        if self.stopped is not None and refused != self.stopped:
            raise Violation("gates", f"{entry['kind']} of {refused}, and {self.key} is stopped over {self.stopped}")
        self.stopped = None

    def _rewind(self, entry: Entry) -> None:
        if entry.get("cause") == "replay" and not self._expected.replays:
            raise Violation("replay", f"{self.key} is rewound because of {entry.get('reason')}, policy says no")
        to = entry["to_checkpoint_id"]
        back_to_head = to == self.head and bool(self._skipped)
        if to is not None and not back_to_head and (to not in self.ancestors() or self.kept[to].pruned):
            raise Violation("fenced", f"rewound to {to}, which is no kept ancestor of {self.head}")
        before = [] if self.head is None else [self.head, *self.ancestors()]
        self.head, self._skipped, self.stopped = to, [], None
        self._regridded = frozenset()
        line = [] if to is None else [to, *self.ancestors()]
        for name in before:
            self.kept[name].undone = name not in line
        self.promoted = {alias: name for alias, name in self.promoted.items() if name in line}
        for alias, name in entry.get("promoted", {}).items():
            if name not in line or self.kept[name].pruned or not self.kept[name].promoted or alias in self.promoted:
                raise Violation("promotion", f"{alias} is given back to {name}, which cannot have it")
            self.promoted[alias] = name

    def _promotion(self, entry: Entry) -> None:
        name = entry["checkpoint_id"]
        if name not in (self.head, *self.ancestors()) or self.kept[name].pruned:
            raise Violation("promotion", f"{name} is promoted, and is no kept checkpoint of the line")
        self.promoted[entry["alias"]] = name
        self.kept[name].promoted = True

    def _begin(self, entry: Entry) -> None:
        if entry["sequence"] != 1:
            raise Violation("fenced", f"{self.key} begins a second time")
        self._beginning = Line(watermark=_time(entry["watermark"]))

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
            if data is None or _digest(data) != file["sha256"]:
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
        rows = [row for each in entry["split"]["partitions"] for row in self._rows(each)]
        found: list[str] = json.loads(self._store.contents[f"{entry['artifacts']['path']}/{MODEL}"])
        expected = [*before, *rows]
        if found != expected:
            raise Violation("exactly once", f"the model {entry['id']} knows {found}, the ledger says {expected}")
        return found

    def _rows(self, trained: Entry) -> list[str]:
        """The rows of a partition as the ledger names it."""
        number, start = _numbers([trained])[0], _time(trained["start"])
        times = self._table.written[number][1] if number in self._table.written else 0
        for edition in range(1, times + 1):
            if fingerprint_of(edition) == trained["fingerprint"]:
                return rows_of(start, edition)
        raise Violation("exactly once", f"partition {number} never was what the ledger calls {trained['fingerprint']}")


_KINDS = {
    "checkpoint": ChainCheck._checkpoint,
    "hole filled": ChainCheck._hole_filled,
    "skip": ChainCheck._skip,
    "stop": ChainCheck._stop,
    "regrid": ChainCheck._regrid,
    "resume": ChainCheck._resume,
    "prune": ChainCheck._prune,
    "rewind": ChainCheck._rewind,
    "promotion": ChainCheck._promotion,
    "fork": ChainCheck._begin,
    "adoption": ChainCheck._begin,
}


def _origin(entry: Entry) -> str | None:
    origin = entry.get("origin")
    return None if origin is None else str(origin["checkpoint_id"])


def _numbers(stretches: list[dict[str, str]]) -> list[int]:
    """The numbers of the partitions in them."""
    return [number for each in stretches for number in tiles(_time(each["start"]), _time(each["end"]))]


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
