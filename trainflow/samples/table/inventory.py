"""What is in a table: the state of each partition, which later ones exist, what a ready one holds.

Everything is looked up when asked and remembered, so an answer costs what is new and not what is old: a folder is
listed once, the parents of folders once and only after something is missing, footers are read of partitions that are
taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Protocol

import msgspec

from trainflow.clock import ensure_utc
from trainflow.concurrent_map import Item, Result, concurrent_map
from trainflow.errors import InputError, SampleUnreadable
from trainflow.samples.columns.partition_columns import PartitionColumns, check_failed, problems_of
from trainflow.samples.columns.path_columns import path_columns
from trainflow.samples.files.file_binding import content_now
from trainflow.samples.files.fingerprint import Content, file_hint, partition_fingerprint, partition_hint
from trainflow.samples.files.footers import Footer, is_parquet, read_footer
from trainflow.samples.files.truncation import is_recent, refuse_truncated
from trainflow.samples.partitions import (
    Partition,
    end_of,
    is_boundary,
    limit,
    origin,
    partitions_between,
    shift,
)
from trainflow.samples.pattern import PathPattern, path_pattern, render_marker
from trainflow.samples.spec import Ready, Samples
from trainflow.samples.splits.split_content import Columns, Hole, SampleFile, SplitPartition, partition_of
from trainflow.samples.table.checks import problems
from trainflow.samples.table.readiness import PartitionState, Readiness, folder_content, judge
from trainflow.storage.errors import SampleFailures
from trainflow.storage.store import Storage, StoreFile
from trainflow.storage.urls import open_storage

_LARGEST_WINDOW = 64
#: how many of the last partitions may not be ready: what lies before so many is not looked for
_LOOK_BACK = 1024

#: the numbers in a name, see `Segment.key`
Key = tuple[int | str, ...]
_CHANGE_CHECKS = "Have it written again, change samples.checks"

#: lists the files of a partition's folder; `Storage.files` unless listings are shared
ListFolder = Callable[[str], list[StoreFile] | None]


class KnownContent(Protocol):
    """A content that a partition had, and what its listing said then (empty: nothing that could be relied on)."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the content."""
        ...

    @property
    def hint(self) -> str:
        """What the listing said."""
        ...


class Inventory:
    """A table as it is at one moment. Not for two threads at once."""

    def __init__(
        self, samples: Samples, storage: Storage, now: datetime, list_folder: ListFolder | None = None
    ) -> None:
        self.samples = samples
        self.storage = storage
        self.now = ensure_utc(now)
        self.pattern: PathPattern = path_pattern(samples.path)
        self._list_folder = list_folder or self._files
        self._states: dict[datetime, PartitionState] = {}
        self._footers: dict[str, Footer | None] = {}
        self._window = 1
        self._exists: bool | None = None
        #: of a table whose partitions are files: what is in their folders, by name
        self._folders: dict[str, dict[str | None, StoreFile] | None] = {}

    def state(self, start: datetime) -> PartitionState:
        """The partition as it is. Where a listing costs a round trip, the ones after it are looked at together with it,
        twice as many each time."""
        found = self._states.get(start)
        if found is None:
            starts = [start]
            if self.storage.remote:
                starts = [shift(self.samples, start, number) for number in range(self._window)]
                self._window = min(2 * self._window, _LARGEST_WINDOW)
            self._look([moment for moment in starts if moment not in self._states])
            found = self._states[start]
        return found

    def states(self, starts: Sequence[datetime]) -> list[PartitionState]:
        """Many partitions at once."""
        self._look([start for start in starts if start not in self._states])
        return [self._states[start] for start in starts]

    def later(self, start: datetime) -> Iterator[datetime]:
        """Starts after `start` of partitions that have a folder, ascending. Lists each parent at most once."""
        end = limit(self.samples)
        for moment in self._existing(start):
            if end is not None and moment >= end:
                return
            if moment > start:
                yield moment

    def between(self, start: datetime) -> datetime | None:
        """The earliest moment from `start` on that a folder (or file) is named for, although no partition begins then:
        it would never be trained on. None: there is none."""
        end = limit(self.samples)
        found = (each for each in self._walk((), ()) if each >= start and (end is None or each < end))
        return min((each for each in found if not self._begins(each)), default=None)

    def last(self) -> datetime | None:
        """Start of the last partition that has a folder, None for an empty table: the natural end of a listing."""
        return next(self._backwards(), None)

    def table_exists(self) -> bool:
        """Whether the folder above all partitions is there."""
        if self._exists is None:
            self._exists = self.storage.names(self.pattern.root) is not None
        return self._exists

    def content(self, start: datetime) -> SplitPartition:
        """What a ready partition holds. Raises SampleUnreadable, SampleCheckFailed, which name it."""
        try:
            return self._content(start)
        except SampleUnreadable as error:
            error.partition = start
            raise

    def _content(self, start: datetime) -> SplitPartition:
        files, folder = self._states[start].files, self.pattern.folder(start)
        checks = self.samples.checks
        footers = self._read_footers(folder, files)
        if checks is not None:
            unknown = [file.path for file in files if file.path not in footers]
            if unknown:
                raise InputError(f"checks need Parquet files; {folder}/{unknown[0]} is none")
            found = (*problems_of(footers), *problems(checks, list(footers.items())))
            if found:
                raise check_failed(start, folder, found, _CHANGE_CHECKS)
        others = [file for file in files if file.path not in footers]
        self._ask(partial(self._refuse_cut, folder), others)
        contents = {name: footer.content for name, footer in footers.items()} | self._read_contents(folder, others)
        described = [self._sample_file(folder, file, contents[file.path], footers.get(file.path)) for file in files]
        fingerprint = partition_fingerprint((file.path, contents[file.path].fingerprint) for file in files)
        end = end_of(self.samples, start)
        return partition_of(start, end, tuple(described), fingerprint=fingerprint, hint=self._hint(files))

    def _refuse_cut(self, folder: str, file: StoreFile) -> None:
        recent = is_recent(file, self.now, self.samples.ready.unfinished_seconds)
        refuse_truncated(self.storage, _join(folder, file.path), file, recent)

    def unified(self, chain: Columns) -> PartitionColumns:
        """Where the columns of partitions come together; of those whose `content` was asked for."""
        return PartitionColumns(self.samples, self.storage, chain, self._footers_of, self.pattern.folder)

    def _footers_of(self, start: datetime) -> dict[str, Footer]:
        """Path → footer of the Parquet files of a partition, in their order."""
        folder = self.pattern.folder(start)
        found = self._read_footers(folder, self._states[start].files)
        return {_join(folder, name): footer for name, footer in found.items()}

    def is_ready(self, start: datetime) -> bool:
        """Whether a partition is ready: one listing, whatever comes after it."""
        return self.states([start])[0].presence is Readiness.READY

    def fingerprint(self, start: datetime, known: KnownContent | None = None) -> str | None:
        """Fingerprint of what a partition holds now; None when it is not ready. Where the listing is that of a content
        that is `known`, no file is opened. Raises SampleUnreadable."""
        state = self.state(start)
        if state.presence is not Readiness.READY:
            return None
        if known is not None and known.hint and known.hint == self._hint(state.files):
            return known.fingerprint
        contents = self._read_contents(self.pattern.folder(start), state.files)
        return partition_fingerprint((name, content.fingerprint) for name, content in contents.items())

    def newest(self, after: datetime, upto: datetime | None = None) -> datetime | None:
        """See `TableView.newest`."""
        end = limit(self.samples)
        starts = takewhile(lambda start: start >= after, self._backwards())
        inside = (each for each in starts if (end is None or each < end) and (upto is None or each <= upto))
        unready, size = 0, 1
        while unready < _LOOK_BACK and (block := list(islice(inside, size))):
            found = self.states(block)
            for state in filter(lambda state: state.has_samples, found):
                return state.start
            unready += sum(state.presence is not Readiness.READY for state in found)
            size = min(2 * size, _LARGEST_WINDOW)
        return None

    def _look(self, starts: list[datetime]) -> None:
        folders = list(dict.fromkeys(self.pattern.folder(start) for start in starts))
        if self.pattern.names_a_file:
            folders = [folder for folder in folders if folder not in self._folders]
        found = dict(zip(folders, self._ask(self._list_folder, folders), strict=True))
        if self.pattern.names_a_file:
            self._folders.update({folder: _by_name(stored) for folder, stored in found.items()})
        for start in starts:
            samples = samples_at(self.samples, self.pattern, start)
            if self.pattern.names_a_file:
                stored = self._of_file(samples, self.pattern.folder(start))
            else:
                stored = found[self.pattern.folder(start)]
            self._states[start] = judge(samples, start, stored, self.now, partial(self._rows, start))

    def _of_file(self, samples: Samples, folder: str) -> list[StoreFile] | None:
        """What of a folder belongs to one of the partitions that have their files in it: that file, and its marker."""
        there, names = self._folders[folder], [samples.files, samples.ready.marker]
        found = [there[name] for name in names if name in there] if there is not None else []
        return found or None

    def _ask(self, function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
        return list(concurrent_map(self.storage.requests_at_once, function, items))

    def _files(self, folder: str) -> list[StoreFile] | None:
        return folder_content(self.samples, lambda below: self.storage.listing(folder, recursive=below))

    def _rows(self, start: datetime, files: tuple[StoreFile, ...]) -> int:
        folder = self.pattern.folder(start)
        footers = self._read_footers(folder, files)
        if len(footers) < len(files):
            raise InputError(f"ready.min_rows needs Parquet files; {folder} has others that match {self.samples.files}")
        return sum(footer.rows for footer in footers.values())

    def _read_footers(self, folder: str, files: tuple[StoreFile, ...]) -> dict[str, Footer]:
        """Name → footer of the Parquet files, in their order."""
        names = [file.path for file in files]
        unread = [name for name in names if _join(folder, name) not in self._footers]
        read = self._ask(partial(self._read_footer, folder), unread)
        self._footers.update({_join(folder, name): footer for name, footer in zip(unread, read, strict=True)})
        found = ((name, self._footers[_join(folder, name)]) for name in names)
        return {name: footer for name, footer in found if footer is not None}

    def _read_footer(self, folder: str, name: str) -> Footer | None:
        """None for a file that is not Parquet."""
        path = _join(folder, name)
        if not is_parquet(self.storage, path):
            return None
        return read_footer(self.storage, path, self.samples.checks, path_columns(name))

    def _read_contents(self, folder: str, files: Sequence[StoreFile]) -> dict[str, Content]:
        """Name → content, in their order."""

        def look(file: StoreFile) -> Content:
            return content_now(self.storage, _join(folder, file.path), file.version)

        try:
            return {file.path: found for file, found in zip(files, self._ask(look, list(files)), strict=True)}
        except FileNotFoundError as error:
            raise SampleFailures(self.samples.storage_options).failure("read", folder, error) from error

    def _hint(self, files: Sequence[StoreFile]) -> str:
        return partition_hint((file.path, file.size_bytes, file_hint(file.version, self.now)) for file in files)

    def _sample_file(self, folder: str, file: StoreFile, content: Content, footer: Footer | None) -> SampleFile:
        return SampleFile(
            path=_join(folder, file.path),
            size_bytes=content.size_bytes,
            rows=None if footer is None else footer.rows,
            fingerprint=content.fingerprint,
            row_groups=() if footer is None else footer.row_groups,
            path_columns=() if footer is None else footer.path_columns,
            hint=file_hint(file.version, self.now),
        )

    def _existing(self, after: datetime) -> Iterator[datetime]:
        """Starts of partitions that have a folder, from about `after`, ascending."""
        names = self.pattern.names(after)
        bound = [(segment.key(name) or (), name) for segment, name in zip(self.pattern.segments, names, strict=True)]
        found = self._walk((), bound)
        return filter(self._begins, found if self.pattern.sortable else sorted(found))

    def _backwards(self) -> Iterator[datetime]:
        """Starts of partitions that have a folder, the last one first."""
        if not self.pattern.sortable:
            return filter(self._begins, sorted(self._walk((), ()), reverse=True))
        return filter(self._begins, self._walk((), (), reverse=True))

    def _walk(
        self, above: tuple[str, ...], bound: Sequence[tuple[Key, str]], reverse: bool = False
    ) -> Iterator[datetime]:
        """What names that are not before `bound` (of each segment, empty: none) mean, in their order."""
        segments = self.pattern.segments
        depth = len(above)
        folder = "/".join((self.pattern.root.rstrip("/"), *above)) if above else self.pattern.root
        listed = self.storage.names(folder)
        self._exists = self._exists or listed is not None
        if bound and listed and self.pattern.sorted_as_text:
            # most names lie before the bound, and are not looked at any closer
            listed = [name for name in listed if name >= bound[0][1]]
        keyed = [(key, name) for name in listed or () if (key := segments[depth].key(name)) is not None]
        if self.pattern.sortable:
            keyed = sorted((each for each in keyed if not bound or each[0] >= bound[0][0]), reverse=reverse)
        for key, name in keyed:
            if depth + 1 < len(segments):
                yield from self._walk((*above, name), bound[1:] if bound and key == bound[0][0] else (), reverse)
            else:
                moment = self.pattern.start_of((*above, name))
                if moment is not None:
                    yield moment

    def _begins(self, moment: datetime) -> bool:
        """Whether a partition of the table begins at the moment that a name means."""
        return moment >= origin(self.samples) and is_boundary(self.samples, moment)


def samples_at(samples: Samples, pattern: PathPattern, start: datetime) -> Samples:
    """The table as one of its partitions sees it: with the name of its own file, and of its marker."""
    ready = samples.ready
    if pattern.names_a_file and ready == Ready():
        ready = Ready(min_files=1)
    if ready.marker is not None and "{" in ready.marker:
        ready = msgspec.structs.replace(ready, marker=render_marker(ready.marker, start))
    files = pattern.render(start).rpartition("/")[2] if pattern.names_a_file else samples.files
    if ready is samples.ready and files is samples.files:
        return samples
    return msgspec.structs.replace(samples, files=files, ready=ready)


def open_inventory(
    samples: Samples, root: Path | None, now: datetime, list_folder: ListFolder | None = None
) -> Inventory:
    """The table of `samples` at `now`; relative paths belong to `root`."""
    origin(samples), limit(samples)
    return Inventory(samples, open_storage(samples.path, samples.storage_options, root), now, list_folder)


class InventoryLine(msgspec.Struct, frozen=True):
    """One partition in a listing for people and audits."""

    start: datetime
    end: datetime
    #: ready | not_ready | missing | hole (missing, not ready or empty, and the ledger says it was stepped over)
    state: str
    reason: str = ""
    files: int = 0
    bytes: int = 0


def list_partitions(
    samples: Samples,
    since: datetime,
    until: datetime,
    root: Path | None,
    now: datetime,
    holes: Sequence[Hole] = (),
) -> list[InventoryLine]:
    """Every partition that starts in `[since, until)`, in order, with its state. `holes` come from a ledger.

    A partition in a hole that is ready now and not empty is shown as ready: it can be repaired.
    """
    inventory = open_inventory(samples, root, now)
    partitions = list(partitions_between(samples, since, until))
    if not partitions:
        return []
    existing = set()
    for start in inventory.later(shift(samples, partitions[0].start, -1)):
        if start >= partitions[-1].end:
            break
        existing.add(start)
    inventory.states(sorted(existing))
    return [_line(partition, inventory, partition.start in existing, holes) for partition in partitions]


def _line(partition: Partition, inventory: Inventory, exists: bool, holes: Sequence[Hole]) -> InventoryLine:
    if exists:
        state = inventory.state(partition.start)
    else:
        state = PartitionState(partition.start, Readiness.MISSING, "nothing is there")
    hole = next((hole for hole in holes if hole.start <= partition.start < hole.end), None)
    in_hole = hole is not None and not state.has_samples
    return InventoryLine(
        start=partition.start,
        end=partition.end,
        state="hole" if in_hole else state.presence.value,
        files=len(state.files),
        bytes=sum(file.size_bytes for file in state.files),
        reason=hole.reason if hole is not None and in_hole else state.reason,
    )


def _by_name(stored: list[StoreFile] | None) -> dict[str | None, StoreFile] | None:
    return None if stored is None else {file.path: file for file in stored}


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}"
