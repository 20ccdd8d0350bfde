"""A ledger as an audit reads it: its own loose view of the JSON. Nothing of the writer's types, rules or arithmetic is
trusted.

What is wrong is collected, not raised. Many entries are read at once, and little is kept of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import msgspec

from trainflow.checkpoints.audit.timeline import Interval
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.identifiers import digest

_AT_ONCE = 1024
_NEWS_AT_ONCE = 4
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class RawPiece(Interval, frozen=True, gc=False):
    """A partition or a hole."""

    fingerprint: str = ""
    hint: str = ""


class RawSplit(msgspec.Struct, frozen=True, gc=False):
    """What was trained, and what was stepped over."""

    start: _Time
    end: _Time
    partitions: list[RawPiece]
    holes: list[RawPiece] = []


class RawFile(msgspec.Struct, frozen=True, gc=False):
    """One file."""

    path: str
    size: int
    sha256: str
    source: str = ""


class RawFiles(msgspec.Struct, frozen=True, gc=False):
    """The files of a checkpoint."""

    path: str
    files: list[RawFile]


class RawOrigin(msgspec.Struct, frozen=True, gc=False):
    """A checkpoint of another chain."""

    chain: dict[str, str]
    checkpoint_id: str


class RawAuthor(msgspec.Struct, frozen=True, gc=False):
    """Author of an entry."""

    person: str = ""


class RawGrid(msgspec.Struct, frozen=True, gc=False):
    """Where a table was, and how it was cut."""

    path: str
    start: _Time
    length_seconds: int = 0
    length_months: int = 0
    zone: str = "UTC"


class RawEntry(msgspec.Struct, frozen=True, gc=False):
    """What an audit looks at, of every kind of entry."""

    kind: str
    sequence: int
    previous: str
    seal: str = ""
    id: str = ""
    parent_id: str | None = None
    watermark: _Time | None = None
    split: RawSplit | None = None
    artifacts: RawFiles | None = None
    origin: RawOrigin | None = None
    start: _Time | None = None
    end: _Time | None = None
    reason: str = ""
    checkpoint_id: str = ""
    alias: str = ""
    checkpoint_ids: list[str] = []
    to_checkpoint_id: str | None = None
    uri: str = ""
    files: list[RawFile] = []
    reasons: list[str] = []
    accepted: dict[str, object] | None = None
    promoted: dict[str, str] = {}
    refused: dict[str, object] | None = None
    by: RawAuthor = RawAuthor()
    grid: RawGrid | None = None
    holes: list[RawPiece] = []
    first: int = 0
    last: int = 0
    number: int = 0
    recovered: int = 0


class RawCheckpoint(msgspec.Struct, frozen=True, gc=False):
    """A checkpoint's entry, with what it must have."""

    sequence: int
    id: str
    parent_id: str | None
    watermark: datetime
    split: RawSplit
    artifacts: RawFiles
    origin: RawOrigin | None
    #: it trained what had been holes
    fills: bool
    #: gates refused it, a person did not
    accepted: bool
    grid: RawGrid | None = None
    number: int = 0
    #: it was committed again after its entry was lost
    recovered: bool = False


Raw = RawCheckpoint | RawEntry
_DECODER = msgspec.json.Decoder(RawEntry)
#: what must be there besides the kind and the numbers
_NEEDED = {
    "skip": ("start", "end"),
    "stop": ("id", "split", "artifacts", "reasons"),
    "regrid": ("grid", "watermark"),
    "resume": (),
    "promotion": ("checkpoint_id",),
    "prune": ("checkpoint_ids",),
    "rewind": (),
    "loss": ("first", "last"),
    "fork": ("origin", "watermark"),
    "adoption": ("uri", "watermark", "files"),
}


@dataclass
class RawLedger:
    """Every entry that can be read, in order, and what is wrong with the files."""

    ledger: Ledger
    entries: list[Raw] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    #: of the bytes of each entry's file, by number
    digests: dict[int, str] = field(default_factory=dict)


def read_raw(ledger: Ledger) -> RawLedger:
    """Every entry there is, the digest chain computed again. A bad one is reported and the next is looked at.

    A listing may be late: what it leaves out between two entries or after the last is asked for by its number.
    """
    found = RawLedger(ledger)
    reader = _Reader(found)
    numbers = _with_gaps(_listed(found))
    for first in range(0, len(numbers), _AT_ONCE):
        reader.read(numbers[first : first + _AT_ONCE])
    news = _NEWS_AT_ONCE
    while reader.read(range(reader.last + 1, reader.last + 1 + news)) == news:
        news = _AT_ONCE
    return found


@dataclass
class _Reader:
    """Where the reading of the entries is."""

    found: RawLedger
    last: int = 0
    previous: str = ""
    sealed: bool = False

    def read(self, numbers: Sequence[int]) -> int:
        """Take the entries of these numbers; returns how many there were."""
        ledger = self.found.ledger
        contents = ledger.store.read_many([ledger.chain.entry(number) for number in numbers])
        there = [(number, data) for number, data in zip(numbers, contents, strict=True) if data is not None]
        for number, data in there:
            self.take(number, data)
        return len(there)

    def take(self, number: int, data: bytes) -> None:
        place = self.found.ledger.store.uri(self.found.ledger.chain.entry(number))
        if number != self.last + 1:
            missing = f"{self.last + 1}" if number == self.last + 2 else f"{self.last + 1} to {number - 1}"
            self.found.problems.append(f"entry {missing} is missing, entry {number} is there ({place})")
        try:
            entry = _DECODER.decode(data)
            raw = _checked(entry)
        except (ValueError, msgspec.MsgspecError):
            self.found.problems.append(f"{place} is torn, edited or written by a newer trainflow")
        else:
            self._check(entry, number, place, data)
            self.found.entries.append(raw)
        self.previous, self.last = digest(data), number
        self.found.digests[number] = self.previous

    def _check(self, entry: RawEntry, number: int, place: str, data: bytes) -> None:
        if entry.previous != self.previous or entry.sequence != number:
            self.found.problems.append(f"{place} does not follow the bytes of the entry before it")
        if entry.seal and digest(data.replace(entry.seal.encode(), b"", 1)) != entry.seal:
            self.found.problems.append(f"{place} is not what was written: its own seal does not hold")
        elif self.sealed and not entry.seal:
            self.found.problems.append(f"{place} has lost its seal, which the entries before it have")
        self.sealed = self.sealed or bool(entry.seal)


def _listed(found: RawLedger) -> list[int]:
    ledger, numbers = found.ledger, []
    for file in ledger.store.files(ledger.chain.ledger):
        name = file.path.rsplit("/", 1)[-1].removesuffix(".json")
        if name.isdecimal() and file.path == ledger.chain.entry(int(name)):
            numbers.append(int(name))
        else:
            found.notices.append(f"{ledger.store.uri(file.path)} is no ledger entry")
    return sorted(numbers)


def _with_gaps(listed: list[int]) -> list[int]:
    """The numbers, and those of narrow gaps between them."""
    numbers: list[int] = []
    for number in listed:
        last = numbers[-1] if numbers else 0
        if number - last <= _AT_ONCE:
            numbers += range(last + 1, number)
        numbers.append(number)
    return numbers


def _checked(entry: RawEntry) -> Raw:
    """The entry with all that its kind must have. Raises ValueError."""
    if entry.kind in ("checkpoint", "hole filled"):
        return _checkpoint(entry)
    if entry.kind not in _NEEDED:
        raise ValueError(f"kind {entry.kind!r} is unknown here")
    missing = [name for name in _NEEDED[entry.kind] if not getattr(entry, name)]
    if missing:
        raise ValueError(f"{entry.kind} without {missing}")
    return entry


def _checkpoint(entry: RawEntry) -> RawCheckpoint:
    if not entry.id or entry.watermark is None or entry.split is None or entry.artifacts is None:
        raise ValueError("an incomplete checkpoint")
    return RawCheckpoint(
        sequence=entry.sequence,
        id=entry.id,
        parent_id=entry.parent_id,
        watermark=entry.watermark,
        split=entry.split,
        artifacts=entry.artifacts,
        origin=entry.origin,
        fills=entry.kind == "hole filled",
        accepted=entry.accepted is not None,
        grid=entry.grid,
        number=entry.number,
        recovered=bool(entry.recovered),
    )
