"""Judge the chains of a project from its files alone: the ledger's JSON, the checkpoints, the diaries.

Plain JSON and hashes. Nothing of trainflow is imported: its reader may have the fault that its writer has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.people.layout import FIRST_DAY, NAME, ROWS_A_DAY, rows_of

Entry = dict[str, Any]
Rows = list[list[float]]
_TRAINED = ("checkpoint", "hole filled")


class Chain:
    """The entries of one branch, and what follows from them."""

    def __init__(self, folder: Path) -> None:
        self.branch = folder.name
        self.entries: list[Entry] = []
        self.problems: list[str] = []
        before = b""
        for number, path in enumerate(sorted((folder / "ledger").glob("[0-9]*.json")), 1):
            raw = path.read_bytes()
            entry = json.loads(raw)
            if int(path.stem) != number or entry["sequence"] != number:
                self.problems.append(f"entry {number} is {path.name}, and says {entry['sequence']}")
            if entry["previous"] != (_digest(before) if before else ""):
                self.problems.append(f"entry {number} does not follow the one before")
            before = raw
            self.entries.append(entry)
        forks = [entry["origin"]["checkpoint_id"] for entry in self.entries[:1] if entry["kind"] == "fork"]
        #: the checkpoint that a branch goes on from
        self.forked_from: str | None = forks[0] if forks else None


class Judge:
    """Everything wrong with the chains of a project, in words."""

    def __init__(self, root: Path, *, days: int, shuffle: bool = False) -> None:
        self._root = root
        self._store = root / "checkpoints"
        self._days = days
        self._shuffle = shuffle
        folders = sorted((self._store / NAME / "main").glob("*/"))
        self.chains = {folder.name: Chain(folder) for folder in folders if (folder / "ledger").is_dir()}
        self._all = {
            entry["id"]: entry for chain in self.chains.values() for entry in chain.entries if entry["kind"] in _TRAINED
        }
        #: checkpoint → its branch, and how often that was rewound before: the order of the rows depends on both
        self._drawn_by: dict[str, tuple[str, int]] = {}
        for chain in self.chains.values():
            rewinds = 0
            for entry in chain.entries:
                rewinds += entry["kind"] == "rewind"
                self._drawn_by[entry.get("id", "")] = (chain.branch, rewinds)
        #: (start, fingerprint) → edition: the same content has the same fingerprint, other content another one
        self._bound: dict[tuple[str, str], int] = {}
        #: branch, rows before, fingerprints → the rows that were trained
        self._orders: dict[str, Rows] = {}
        self._diaries = read_diaries(root)

    def problems(self, *, complete: bool = True) -> list[str]:
        """What is wrong. `complete`: each chain has to be caught up, with no day left out."""
        return [
            f"{chain.branch}: {problem}"
            for chain in self.chains.values()
            for problem in [*chain.problems, *self._of(chain, complete)]
        ]

    def _of(self, chain: Chain, complete: bool) -> Iterator[str]:
        wrong, head = self._fold(chain)
        yield from wrong
        numbers = [entry["number"] for entry in chain.entries if entry["kind"] in _TRAINED]
        if numbers != sorted(set(numbers)):
            yield f"checkpoints are numbered {numbers}"
        if head is not None and head not in self._all:
            yield f"its head {head} is in no ledger"
            return
        line = self.line(head) or self.line(chain.forked_from)
        yield from _times_of(line)
        trained = [start for entry in line for start, _ in _partitions(entry)]
        if complete:
            missing = sorted({_name(day) for day in range(self._days)} - {start[:10] for start in trained})
            if missing:
                yield f"never trained: {', '.join(missing)}"
        pruned = {each for entry in chain.entries if entry["kind"] == "prune" for each in entry["checkpoint_ids"]}
        for entry in [each for each in chain.entries if each["kind"] in _TRAINED]:
            looks = [self._diary_of] if entry["id"] in pruned else [self._diary_of, self._of_checkpoint]
            for problem in [problem for look in looks for problem in look(entry)]:
                yield f"checkpoint {entry['number']}: {problem}"

    def _fold(self, chain: Chain) -> tuple[list[str], str | None]:
        """Follow the entries: what breaks the fence, and the head."""
        found: list[str] = []
        head: str | None = None
        for entry in chain.entries:
            kind = entry["kind"]
            if kind in _TRAINED:
                if entry["parent_id"] != head:
                    found.append(f"checkpoint {entry['number']} is no child of the head")
                head = entry["id"]
            elif kind == "rewind":
                to = entry["to_checkpoint_id"]
                if to is not None and to not in {each["id"] for each in self.line(head)}:
                    found.append(f"entry {entry['sequence']} rewinds to what the head does not descend from")
                head = to
            elif kind == "promotion" and entry["checkpoint_id"] not in self._all:
                found.append(f"entry {entry['sequence']} promotes what is no checkpoint")
        return found, head

    def line(self, head: str | None) -> list[Entry]:
        """The checkpoints from the root to a head, in the order they were trained."""
        found: list[Entry] = []
        while head is not None and head in self._all:
            found.append(self._all[head])
            head = self._all[head]["parent_id"] or self.chains[self._drawn_by[head][0]].forked_from
        return found[::-1]

    # -- one checkpoint ------------------------------------------------------------------------------------------------

    def _of_checkpoint(self, entry: Entry) -> Iterator[str]:
        files = {each["path"]: self._store / _place(entry, each) for each in entry["artifacts"]["files"]}
        gone = [path for path, place in files.items() if not place.is_file()]
        if gone or set(files) != {"rows.json", "weights.bin"}:
            yield f"has the files {sorted(files)}, of which these are not there: {gone}"
            return
        content = {path: place.read_bytes() for path, place in files.items()}
        for each in entry["artifacts"]["files"]:
            if (each["size"], each["sha256"]) != (len(content[each["path"]]), _digest(content[each["path"]])):
                yield f"{each['path']} is not what was committed"
        model: Rows = json.loads(content["rows.json"])
        line = self.line(entry["id"])
        wrong = [problem for each in self._walk(line, model) for problem in each]
        yield from wrong
        if not wrong and content != self._expected(line, model):
            yield "its bytes are not those of an undisturbed training of the same splits"
        mine = self._diaries.get(entry["id"])
        if mine is not None and model[mine.model :] != mine.rows:
            yield "its model has other rows than its attempt was given"

    def _walk(self, line: list[Entry], model: Rows) -> Iterator[list[str]]:
        """Go through the model beside the splits: each partition's rows once, all of one edition."""
        at = 0
        for entry in line:
            upto = at + _rows_in(entry)
            part = model[at:upto]
            if sorted(int(row[0]) for row in part) != sorted(_ids_of(entry)):
                yield [f"of split {_between(entry)} the model has the rows {_short(part)}"]
            else:
                yield self._bind(entry, part)
            at = upto
        if at != len(model):
            yield [f"the model has {len(model)} rows, its splits {at}"]

    def _bind(self, entry: Entry, part: Rows) -> list[str]:
        """Each partition is of one edition, and that edition goes with its fingerprint wherever it was trained."""
        found = []
        for start, fingerprint in _partitions(entry):
            editions = {int(row[1]) for row in part if row[0] // ROWS_A_DAY == _day(start)}
            if len(editions) > 1:
                found.append(f"{start[:10]} is of editions {sorted(editions)}")
            for edition in editions:
                known = self._bound.setdefault((start, fingerprint), edition)
                others = {key[1] for key, value in self._bound.items() if key[0] == start and value == edition}
                if known != edition or len(others) > 1:
                    found.append(f"{start[:10]}: the fingerprint is not of edition {edition}, which was trained")
        return found

    def _expected(self, line: list[Entry], model: Rows) -> dict[str, bytes]:
        """What an undisturbed training of the same splits writes, of the editions that are in the model."""
        rows: Rows = []
        for entry in line:
            part = model[len(rows) : len(rows) + _rows_in(entry)]
            editions = {int(row[0]) // ROWS_A_DAY: int(row[1]) for row in part}
            plain = [row for day in _days(entry) for row in rows_of(day, editions[day])]
            if self._shuffle:  # any order, and the same one each time
                key = json.dumps([self._drawn_by[entry["id"]], rows, _partitions(entry)])
                plain = self._orders.setdefault(key, part if sorted(part) == plain else plain)
            rows += plain
        return {"rows.json": json.dumps(rows).encode(), "weights.bin": _weights(rows)}

    def _diary_of(self, entry: Entry) -> Iterator[str]:
        """The attempt that is committed trained to its end; what it took over was trained by earlier ones."""
        line = self.line(entry["id"])
        parent, upto = (sum(_rows_in(each) for each in part) for part in (line[:-1], line))
        mine = self._diaries.get(entry["id"])
        if mine is None or mine.done is None:
            yield "the attempt that is committed did not train to its end"
            return
        yield from self._bind(entry, mine.rows)
        if mine.times != 1 or mine.model < parent or mine.model + len(mine.rows) != upto or mine.done != upto:
            yield f"its attempt began {mine.times} times, with {mine.model} rows, and trained {len(mine.rows)}"
        taken_over = set(_ids_of(entry)) - {int(row[0]) for row in mine.rows}
        # a save has nothing of the run in its name: where the home was deleted, the run is another one
        same = [each for each in self._diaries.values() if each.run == mine.run or each.training == mine.training]
        others = [each for each in same if each is not mine]
        if not taken_over <= {int(row[0]) for each in others for row in each.rows}:
            yield "it took over rows that no earlier attempt at the same training had trained"


class Diary:
    """What an attempt wrote down: what it began with, and the rows it was given."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.run = next((line["run"] for line in lines if "run" in line), "")
        #: parent, start and end of the split
        self.training = next((line["training"] for line in lines if "training" in line), None)
        self.times = sum("run" in line for line in lines)
        self.model: int = next((line["model"] for line in lines if "model" in line), 0)
        self.rows: Rows = [row for line in lines for row in line.get("rows", [])]
        self.done: int | None = next((line["done"] for line in lines if "done" in line), None)


def read_diaries(root: Path) -> dict[str, Diary]:
    """By attempt."""
    return {
        path.stem: Diary([json.loads(line) for line in path.read_text().splitlines()])
        for path in (root / "diary").glob("*.jsonl")
    }


def _times_of(line: list[Entry]) -> Iterator[str]:
    """Along a line the splits follow each other, tiled by partitions and holes; what fills a hole lies in one."""
    at = f"{FIRST_DAY:%Y-%m-%dT%H:%M:%SZ}"
    holes: set[str] = set()
    seen: set[str] = set()
    for entry in line:
        split = entry["split"]
        own = [start for start, _ in _partitions(entry)]
        pieces = sorted(own + [day for hole in split.get("holes", []) for day in _each_day(hole)])
        if pieces != list(_each_day(split)):
            yield f"checkpoint {entry['number']}: its partitions and holes do not tile its split"
        if entry["kind"] == "hole filled":
            if not set(own) <= holes:
                yield f"checkpoint {entry['number']} fills what was no hole"
            holes -= set(own)
        else:
            if split["start"] != at:
                yield f"checkpoint {entry['number']}: its split begins at {split['start']}, and not at {at}"
            at = split["end"]
            holes |= {day for hole in split.get("holes", []) for day in _each_day(hole)}
        again = seen & set(own)
        if again:
            yield f"checkpoint {entry['number']} trains {', '.join(sorted(again))} again"
        seen |= set(own)


def _partitions(entry: Entry) -> list[tuple[str, str]]:
    return [(each["start"], each["fingerprint"]) for each in entry["split"]["partitions"]]


def _days(entry: Entry) -> list[int]:
    return [_day(start) for start, _ in _partitions(entry)]


def _ids_of(entry: Entry) -> list[int]:
    return [day * ROWS_A_DAY + row for day in _days(entry) for row in range(ROWS_A_DAY)]


def _rows_in(entry: Entry) -> int:
    return len(entry["split"]["partitions"]) * ROWS_A_DAY


def _between(entry: Entry) -> str:
    return f"{entry['split']['start'][:10]} to {entry['split']['end'][:10]}"


def _day(start: str) -> int:
    return (datetime.fromisoformat(start) - FIRST_DAY).days


def _name(day: int) -> str:
    return f"{FIRST_DAY + timedelta(days=day):%Y-%m-%d}"


def _each_day(piece: dict[str, Any]) -> Iterator[str]:
    for day in range(_day(piece["start"]), _day(piece["end"])):
        yield f"{_name(day)}T00:00:00Z"


def _place(entry: Entry, file: dict[str, Any]) -> str:
    return str(file.get("source") or f"{entry['artifacts']['path']}/{file['path']}")


def _short(part: Rows) -> str:
    ids = [int(row[0]) for row in part]
    return f"{ids[:10]}{'…' if len(ids) > 10 else ''}"


def _weights(rows: Rows) -> bytes:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row).encode())
    return digest.digest()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
