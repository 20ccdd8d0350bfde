"""Look at one chain's ledger with eyes of its own: the bytes of the entries, and what they make of the chain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import dropwhile

from tests.simulation.committed import CommittedCheckpoint, Entry, Lineage, digest, numbers_in, time_of
from tests.simulation.expected import Expected
from tests.simulation.memory_store import MemoryStore
from tests.simulation.model_check import ModelCheck
from tests.simulation.table import EMPTY, START, SampleTable, tiles
from tests.simulation.upstream_check import UpstreamCheck
from tests.simulation.violation import Violation
from trainflow.checkpoints.chain import ChainKey

#: the clocks of the control plane differ by less
_CLOCKS_DIFFER = timedelta(days=30)


class ChainCheck:
    """Follows one chain's ledger. Raises Violation for the first entry that must not be there."""

    def __init__(
        self,
        key: ChainKey,
        store: MemoryStore,
        table: SampleTable,
        all_committed: Mapping[str, CommittedCheckpoint],
        expected: Expected,
    ) -> None:
        self.key = key
        self._expected = expected
        self._store = store
        self._table = table
        #: the checkpoints of all chains
        self._all_committed = all_committed
        self._base = UpstreamCheck(all_committed, expected)
        self._models = ModelCheck(store, table, all_committed)
        self._previous = ""
        self.sequence = 0
        self.head: str | None = None
        self.kept: dict[str, CommittedCheckpoint] = {}
        #: where the chain goes on when it has no head
        self._beginning = Lineage()
        #: holes before the beginning that a regrid after the head has recorded
        self._regridded: frozenset[int] = frozenset()
        #: partitions that a skip after the head stepped over
        self._skipped: list[int] = []
        self.promoted: dict[str, str] = {}
        #: the checkpoint that gates refused, which is not decided about yet
        self.stopped: str | None = None
        #: runs that have committed last, and those that have come to a conclusion: a cleared one comes to another
        self.runs: set[str] = set()
        self.concluded: set[str] = set()
        #: entries that are lost for now
        self.lost: dict[int, bytes] = {}

    @property
    def line(self) -> Lineage:
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
        return {tiles(time_of(each["start"]), time_of(each["end"]))[0]: each["fingerprint"] for each in trained}

    def follow(self) -> list[str]:
        """Check the entries that are new. Returns the ids of checkpoints that are."""
        new: list[str] = []
        if self.lost:
            self._check_that_nothing_is_done()
            return new
        if self.sequence and digest(self._store.contents.get(self.key.entry(self.sequence), b"")) != self._previous:
            raise Violation("fenced", f"entry {self.sequence} of {self.key} was written over")
        while (data := self._store.contents.get(self.key.entry(self.sequence + 1))) is not None:
            entry = json.loads(data)
            if entry["sequence"] != self.sequence + 1 or entry["previous"] != self._previous:
                raise Violation("fenced", f"entry {entry['sequence']} of {self.key} does not follow the one before it")
            _KINDS[entry["kind"]](self, entry)
            if abs(time_of(entry["at"]) - self._table.clock.now()) > _CLOCKS_DIFFER:
                raise Violation("the control plane's clock counts", f"entry {entry['sequence']}: at {entry['at']}")
            if entry["kind"] in ("rewind", "skip", "stop"):
                self.runs.discard(entry["by"].get("run_id", ""))
            self.concluded.add(entry["by"].get("run_id", ""))
            self._previous = digest(data)
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
                self._models.check_files(kept.entry)

    # -- entries ---------------------------------------------------------------------------------------------------

    def _checkpoint(self, entry: Entry) -> None:
        self._check_parent(entry)
        split, before = entry["split"], self.line
        trained, holes = self._check_tiles(entry)
        if time_of(split["start"]) not in self._edges(before.watermark):
            ends = before.watermark
            raise Violation("exactly once", f"{entry['id']} starts at {split['start']}, the chain ends at {ends}")
        if time_of(entry["watermark"]) != time_of(split["end"]):
            raise Violation("exactly once", f"{entry['id']} says it ends at {entry['watermark']}, not {split['end']}")
        if unrecorded := set(self._skipped) - holes:
            raise Violation("skips are holes", f"{entry['id']} does not record {sorted(unrecorded)}, which was skipped")
        if unreasonable := (holes & self._expected.no_holes) - self._table.vanished:
            raise Violation("holes have a reason", f"{entry['id']} steps over {sorted(unreasonable)}")
        self._base.check(self.key, entry, self.watermark)
        line = Lineage(before.trained | trained, before.holes | holes, time_of(entry["watermark"]))
        self._commit(entry, trained, line)
        self._skipped = []

    def _hole_filled(self, entry: Entry) -> None:
        self._check_parent(entry)
        before = self.line
        trained, holes = self._check_tiles(entry)
        if before.watermark != time_of(entry["watermark"]):
            raise Violation("repair", f"{entry['id']} fills a hole and moves the watermark to {entry['watermark']}")
        if stray := (trained | holes) - before.holes:
            raise Violation("repair", f"{entry['id']} fills {sorted(stray)}, which are no holes")
        self._commit(entry, trained, Lineage(before.trained | trained, before.holes - trained, before.watermark))

    def _commit(self, entry: Entry, trained: frozenset[int], line: Lineage) -> None:
        if twice := trained & self.line.trained:
            raise Violation("exactly once", f"{entry['id']} trains {sorted(twice)} again")
        if unknown := trained - self._table.seen:
            raise Violation("exactly once", f"{entry['id']} was trained on {sorted(unknown)}, which never were there")
        self._check_limit(entry)
        self._check_gates(entry)
        self._models.check_files(entry)
        self.kept[entry["id"]] = CommittedCheckpoint(entry, line, self._models.check_model(entry))
        self.head, self._regridded = entry["id"], frozenset()
        self.runs.add(entry["by"]["run_id"])

    def _skip(self, entry: Entry) -> None:
        self._check_head(entry, entry.get("parent_id"))
        self._check_decided(entry)
        if time_of(entry["start"]) not in self._edges(self.edge):
            raise Violation("skips are holes", f"a skip starts at {entry['start']}, the chain ends at {self.edge}")
        self._skipped += sorted(tiles(time_of(entry["start"]), time_of(entry["end"])))

    def _prune(self, entry: Entry) -> None:
        for name in entry["checkpoint_ids"]:
            self.kept[name].pruned = True
            if name == self.head or name in self.promoted.values():
                raise Violation("retention keeps what is needed", f"{name} is the head or promoted, and is pruned")
            if self.kept[name].forked:
                raise Violation("retention keeps what is needed", f"{name} is pruned, a branch begins there")
            for kept in self._all_committed.values():
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
        if time_of(entry["watermark"]) != self.edge:
            raise Violation("exactly once", f"{self.key} is regridded at {entry['watermark']}, it ends at {self.edge}")
        earlier = frozenset(numbers_in(entry.get("holes", [])))
        if known := earlier & (self.line.trained | self.line.holes):
            raise Violation("exactly once", f"{self.key} is regridded, and {sorted(known)} was trained or is a hole")
        self._regridded = self._regridded | earlier

    def _resume(self, entry: Entry) -> None:
        self._check_head(entry, entry.get("parent_id"))
        if self.stopped is None:
            raise Violation("gates", f"{self.key} is resumed, and nothing had stopped it")
        self.stopped = None

    def _check_limit(self, entry: Entry) -> None:
        """As many partitions as its pipeline says; empty ones before the first that has rows are in it as well."""
        fingerprints = [each["fingerprint"] for each in entry["split"]["partitions"]]
        counted = list(dropwhile(lambda each: each == EMPTY, fingerprints))
        if not counted:
            raise Violation("something is trained on", f"{entry['id']} is trained on no row")
        if len(fingerprints) > max(self._expected.limit, 1 + len(fingerprints) - len(counted)):
            most = self._expected.limit
            raise Violation("splits are limited", f"{entry['id']}: {len(fingerprints)} partitions of at most {most}")

    def _check_gates(self, entry: Entry) -> None:
        """What gates refuse, a person has accepted."""
        accepted = entry.get("accepted") is not None
        if self.stopped is not None and not (accepted and entry["id"] == self.stopped):
            raise Violation("gates", f"{entry['id']} is committed to {self.key}, which is stopped over {self.stopped}")
        least = self._expected.least_quality
        if least is not None and entry["metrics"]["quality"] < least and not accepted:
            raise Violation("gates", f"{entry['id']} is committed with quality {entry['metrics']['quality']}")
        self.stopped = None

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
        self._beginning = Lineage(watermark=time_of(entry["watermark"]))

    def _fork(self, entry: Entry) -> None:
        """It goes on with all that the checkpoint was trained on, which is kept for it."""
        self._begin(entry)
        origin = self._all_committed[entry["origin"]["checkpoint_id"]]
        if origin.pruned:
            raise Violation("retention keeps what is needed", f"{self.key} is forked from {origin.entry['id']}, pruned")
        ends = origin.line.watermark
        if ends != self._beginning.watermark:
            raise Violation("exactly once", f"{self.key} begins at {entry['watermark']}, not at {ends}")
        self._beginning = origin.line
        self._base.forked_from = origin.entry["id"]
        origin.forked = True

    # -- what is looked at -----------------------------------------------------------------------------------------

    def _check_parent(self, entry: Entry) -> None:
        self._check_head(entry, entry["parent_id"])
        if entry["id"] in self._all_committed:
            raise Violation("exactly once", f"{entry['id']} was committed twice")

    def _check_head(self, entry: Entry, parent: str | None) -> None:
        if parent != self.head:
            what = entry.get("id", entry["kind"])
            raise Violation("fenced", f"{what} of {self.key} is a child of {parent}, the head is {self.head}")

    def _check_tiles(self, entry: Entry) -> tuple[frozenset[int], frozenset[int]]:
        """Partitions and holes cover the split, each once. Returns their numbers."""
        split = entry["split"]
        edge = time_of(split["start"])
        trained, holes = numbers_in(split["partitions"]), numbers_in(split.get("holes", []))
        if sorted([*trained, *holes]) != list(tiles(edge, time_of(split["end"]))):
            what = f"{split['start']} to {split['end']} is not {sorted(trained)} and {sorted(holes)}"
            raise Violation("exactly once", f"{entry['id']}: {what}")
        return frozenset(trained), frozenset(holes)


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
    "fork": ChainCheck._fork,
    "adoption": ChainCheck._begin,
}
