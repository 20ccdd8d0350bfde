"""Whether one partition may be taken now: a blocking question, cheap enough to be asked every second by thousands.

Triggers that wait for the same table share `SharedListings`: a folder is listed once for all of them, and once many ask
for different folders below one parent that are not there, the parent is listed instead.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from trainflow.clock import ensure_utc
from trainflow.errors import SampleGap
from trainflow.identifiers import canonical_json, digest
from trainflow.samples.files.truncation import first_unfinished
from trainflow.samples.partitions import label, limit, origin
from trainflow.samples.pattern import path_pattern
from trainflow.samples.spec import Samples
from trainflow.samples.splits.gap_policy import Waiting, judge_gap
from trainflow.samples.splits.split_content import Hole
from trainflow.samples.table.inventory import Inventory
from trainflow.samples.table.readiness import PartitionState, Readiness, folder_content
from trainflow.storage.store import Storage, StoreFile
from trainflow.storage.urls import open_storage

#: so many missing folders below one parent, and the parent is listed instead
_FOLDERS_A_PARENT = 8


class Probe(msgspec.Struct, frozen=True):
    """The answer."""

    ready: bool
    #: one sentence for people: what is waited for, or why the wait is over
    reason: str
    #: when time alone may change the answer
    check_again_at: datetime | None = None


def probe(
    samples: Samples,
    partition_start: datetime,
    root: Path | None,
    now: datetime,
    *,
    listings: SharedListings | None = None,
    look_later: bool = False,
    unfinished: str | None = None,
) -> Probe:
    """Whether a wait for this partition is over.

    `unfinished`: what its listing was when a file of it could not be read yet. Then the wait is over when that has
    changed and no file ends too early any more; that its time is up is for who asks to know.

    Costs one listing of the partition's folder. With `look_later` the gap policy is asked too, so that a partition that
    never comes ends the wait when later ones are ready and policy has waited long enough; that may list the parents,
    so ask it once a minute and not once a second. Raises SampleUnreadable, InputError.
    """
    start = ensure_utc(partition_start)
    origin(samples)
    shared = listings or SharedListings(max_age_seconds=0)
    storage = shared.storage(samples, root)
    inventory = Inventory(
        samples,
        storage,
        now,
        lambda folder: folder_content(samples, lambda below: shared.files(samples, root, folder, now, below)),
    )
    end = limit(samples)
    if end is not None and start >= end:
        return Probe(True, f"the table ends at {label(end)}")
    state = inventory.states([start])[0]
    if state.presence is Readiness.READY:
        waits_for = _unfinished(inventory, state, unfinished) if unfinished is not None else None
        return Probe(waits_for is None, f"the partition {label(start)} is {waits_for or 'ready'}")
    verb = "not there yet" if state.presence is Readiness.MISSING else f"not ready: {state.reason}"
    waiting = Probe(False, f"the partition {label(start)} is {verb}", state.check_again_at)
    if not look_later:
        return waiting
    gap = judge_gap(samples, state, inventory)
    if isinstance(gap, Hole):
        return Probe(True, f"the partition {label(start)} is {gap.reason} and policy says to step over it")
    if isinstance(gap, SampleGap):
        return Probe(True, str(gap))
    return Probe(False, gap.reason, gap.check_again_at) if isinstance(gap, Waiting) else waiting


def _unfinished(inventory: Inventory, state: PartitionState, listing: str) -> str | None:
    """Why a file that could not be read still cannot be; None: look again."""
    if state.listing == listing:
        return "not completely written: nothing in it has changed"
    name = first_unfinished(inventory.storage, inventory.pattern.folder(state.start), state.files)
    return None if name is None else f"not completely written: {name} still is being written"


class SharedListings:
    """Listings that are as old as `max_age_seconds` at most, for many watchers in many threads."""

    def __init__(self, max_age_seconds: float = 1.0) -> None:
        self._max_age = timedelta(seconds=max_age_seconds)
        self._lock = threading.Lock()
        self._tables: dict[Hashable, _SharedTable] = {}

    def storage(self, samples: Samples, root: Path | None) -> Storage:
        """The storage of a table, opened once."""
        return self._table(samples, root).storage

    def files(
        self, samples: Samples, root: Path | None, folder: str, now: datetime, recursive: bool
    ) -> list[StoreFile] | None:
        """Files as `Storage.files` gives them, perhaps remembered."""
        return self._table(samples, root).files(folder, now, self._max_age, recursive)

    def _table(self, samples: Samples, root: Path | None) -> _SharedTable:
        pattern = path_pattern(samples.path)
        key = (pattern.root, str(root), digest(canonical_json(_plain(samples.storage_options))))
        with self._lock:
            table = self._tables.get(key)
            if table is None:
                table = _SharedTable(open_storage(samples.path, samples.storage_options, root))
                self._tables[key] = table
            return table


class _SharedTable:
    """Listings below one root."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._lock = threading.Lock()  # held while listing: a second caller takes what the first one got
        self._since: datetime | None = None
        self._folders: dict[tuple[str, bool], list[StoreFile] | None] = {}
        self._parents: dict[str, frozenset[str]] = {}
        self._missing: dict[str, int] = {}

    def files(self, folder: str, now: datetime, max_age: timedelta, recursive: bool) -> list[StoreFile] | None:
        parent, _, name = folder.rpartition("/")
        with self._lock:
            self._forget(now, max_age)
            if (folder, recursive) in self._folders:
                return self._folders[folder, recursive]
            if self._missing.get(parent, 0) >= _FOLDERS_A_PARENT and parent not in self._parents:
                self._parents[parent] = frozenset(self.storage.names(parent) or ())
            if parent in self._parents and name not in self._parents[parent]:
                found = None
            else:
                found = self.storage.listing(folder, recursive=recursive)
            self._folders[folder, recursive] = found
            if found is None:
                self._missing[parent] = self._missing.get(parent, 0) + 1
            return found

    def _forget(self, now: datetime, max_age: timedelta) -> None:
        if self._since is None or now - self._since >= max_age or now < self._since:
            self._since = now
            self._folders.clear()
            self._parents.clear()
            self._missing.clear()


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=repr)
