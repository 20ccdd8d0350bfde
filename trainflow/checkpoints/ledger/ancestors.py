"""The line of a chain from its head back, as far as is asked for: costs that, and not the chain's length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import dropwhile, islice

import msgspec

from trainflow.checkpoints.ledger.entries import Checkpoint, LedgerEntry, Loss, Rewind
from trainflow.checkpoints.ledger.entry_files import decode_entry
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.clock import ensure_utc
from trainflow.samples.throughput import HISTORY, PastRun

_BATCH = 16
_LARGEST_BATCH = 256


class TrainedBy(msgspec.Struct, frozen=True):
    """What became of one partition."""

    start: datetime
    end: datetime
    #: of the content that was trained
    fingerprint: str
    checkpoint_id: str
    number: int
    at: datetime
    #: what the listing said of that content
    hint: str = ""


def line_from_head(ledger: Ledger, state: ChainState) -> Iterator[Checkpoint]:
    """The checkpoints from the head of `state` back to the root, those without files any more included.

    Raises LedgerCorrupt, StoreFailure.
    """
    entry, kept = state.head, {each.id: each.sequence for each in state.recent}
    reader = _Backwards(ledger)
    while entry is not None:
        yield entry
        entry = None if entry.parent_id is None else reader.find(entry, kept.get(entry.parent_id))


class KeptLine:
    """The line from a head back: what one reader of it has asked for, the next one does not read again."""

    def __init__(self, ledger: Ledger, state: ChainState) -> None:
        self._read: list[Checkpoint] = []
        self._rest = line_from_head(ledger, state)

    def __iter__(self) -> Iterator[Checkpoint]:
        place = 0
        while True:
            if place == len(self._read):
                further = next(self._rest, None)
                if further is None:
                    return
                self._read.append(further)
            yield self._read[place]
            place += 1


def trained_since(line: Iterable[Checkpoint], since: datetime) -> list[TrainedBy]:
    """What a line, from its head back, was trained on at or after `since`, oldest first."""
    found: list[TrainedBy] = []
    for entry in line:
        if ensure_utc(entry.watermark) <= since:
            break
        found += (each for each in trained_in(entry) if each.start >= since)
    return sorted(found, key=lambda each: each.start)


def trained_in(entry: Checkpoint) -> list[TrainedBy]:
    """The partitions of one checkpoint."""
    return [
        TrainedBy(
            ensure_utc(each.start),
            ensure_utc(each.end),
            each.fingerprint,
            entry.id,
            entry.number,
            entry.at,
            each.hint,
        )
        for each in entry.split.partitions
    ]


def past_runs(line: Iterable[Checkpoint], head_id: str | None = None) -> list[PastRun]:
    """The newest runs of a line, from its head back, that say how long they took, newest first; up to checkpoint
    `head_id`, whatever came after it."""
    if head_id is not None:
        line = dropwhile(lambda entry: entry.id != head_id, line)
    return [
        PastRun(entry.seconds, len(entry.split.partitions), entry.split.rows, entry.split.bytes)
        for entry in islice(line, HISTORY)
        if entry.seconds is not None
    ]


def rewinds_from_newest(ledger: Ledger, state: ChainState, most: int) -> Iterator[Rewind]:
    """The rewinds among the newest `most` entries, newest first."""
    reader, left = _Backwards(ledger), state.generation
    for number in range(state.sequence, max(0, state.sequence - most), -1):
        if left <= 0:
            return
        entry = reader.entry(number)
        if isinstance(entry, Rewind):
            left -= 1
            yield entry
        elif isinstance(entry, Loss):
            left -= entry.rewinds


class _Backwards:
    """Reads entries from the newest to the oldest, some at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read: dict[int, bytes | None] = {}
        #: of all checkpoints, by id, where they were asked for
        self._numbers: dict[str, int] = {}
        self._batch = _BATCH

    def find(self, child: Checkpoint, sequence: int | None) -> Checkpoint | None:
        """The parent of a checkpoint; where it lies is known as long as its files are kept."""
        for place in range(child.sequence - 1, 0, -1) if sequence is None else [sequence]:
            entry = self.entry(place)
            if isinstance(entry, Checkpoint) and entry.id == child.parent_id:
                return entry if entry.number else self._numbered(entry)
        return None

    def _numbered(self, entry: Checkpoint) -> Checkpoint:
        """A checkpoint whose entry does not say its number: the whole ledger says it, which is read once."""
        if not self._numbers:
            every = (each for each in self._ledger.entries() if isinstance(each, Checkpoint))
            self._numbers = {each.id: each.number for each in every}
        return msgspec.structs.replace(entry, number=self._numbers[entry.id])

    def entry(self, number: int) -> LedgerEntry | None:
        """An entry by its number."""
        remembered = self._ledger.remembered(number)
        if remembered is not None:
            return remembered
        if number not in self._read:
            self._fetch(number)
        data, path = self._read[number], self._ledger.chain.entry(number)
        return None if data is None else decode_entry(data, location=self._ledger.store.uri(path))

    def _fetch(self, last: int) -> None:
        numbers = range(max(1, last - self._batch + 1), last + 1)
        contents = self._ledger.read_entries(numbers)
        self._read = dict(zip(numbers, contents, strict=True))
        if self._ledger.store.remote:
            self._batch = min(2 * self._batch, _LARGEST_BATCH)
