"""Snapshots of the fold, which keep reading the head at the same cost with ten entries and with a hundred thousand.

They are never the truth: a snapshot counts only when it is whole and of this format, a page only when it is what its
name says. Anything else is ignored and the ledger is folded from its beginning. But a snapshot that is whole is a
witness: an entry that it ends with and that is missing, or has another digest, is proof that the ledger is not what it
was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entry_files import ChainListing
from trainflow.checkpoints.ledger.missing_entries import EntryEvidence, evidence_of_snapshot, missing_entries_error
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.errors import LedgerCorrupt, StoreFailure
from trainflow.identifiers import digest
from trainflow.storage.store import Store, StoreFile

#: entries between two snapshots; reading the head replays at most about this many
SNAPSHOT_INTERVAL = 32
#: raise it whenever the fold or its state changes: older snapshots are then ignored
SNAPSHOT_FORMAT = 9
_KEPT_SNAPSHOTS = 2
_NONE = EntryEvidence(0, "")


class _Snapshot(msgspec.Struct, frozen=True):
    format: int
    state_digest: str
    state: msgspec.Raw


_SNAPSHOT_DECODER = msgspec.json.Decoder(_Snapshot)
_STATE_DECODER = msgspec.json.Decoder(ChainState)


def load_snapshot(
    store: Store, chain: ChainKey, listing: ChainListing | None = None
) -> tuple[ChainState | None, EntryEvidence]:
    """The state of the newest usable snapshot (None: there is none), and what the newest one knows by its name; as a
    `listing` shows them, where there is one.

    Raises LedgerCorrupt when a snapshot that is whole ends with an entry that is not there or is another one: it was
    written after that entry, and entries do not change.
    """
    files = _snapshot_files(store, chain) if listing is None else _whole_snapshots(listing.snapshots)
    entries = {} if listing is None else listing.entries
    newest = max(
        (evidence_of_snapshot(store, file.path) for file in files), key=lambda each: each.sequence, default=_NONE
    )
    for file in reversed(files):
        state = _read_snapshot(store, file)
        if state is not None:
            _check_snapshot(store, chain, state, file.path, entries.get(state.sequence))
            return state, newest
    return None, newest


def save_snapshot(store: Store, chain: ChainKey, state: ChainState, pages: Mapping[str, bytes]) -> bool:
    """Write a snapshot and drop all but the newest two. False when the store refuses: that costs time and nothing else.

    `pages` are those made since the ledger was opened, by name: they are written first.
    """
    data = msgspec.json.encode(state)
    snapshot = _Snapshot(SNAPSHOT_FORMAT, digest(data), msgspec.Raw(data))
    try:
        for page in state.pages:
            if page.name in pages:
                store.replace(chain.page(page.name), pages[page.name])
        store.replace(chain.snapshot(state.sequence), msgspec.json.encode(snapshot))
        for file in _snapshot_files(store, chain)[:-_KEPT_SNAPSHOTS]:
            store.delete(file.path)
        if pages:
            _drop_pages(store, chain, state)
    except StoreFailure:
        return False
    return True


def _snapshot_files(store: Store, chain: ChainKey) -> list[StoreFile]:
    return _whole_snapshots(store.files(chain.snapshots))


def _whole_snapshots(files: Iterable[StoreFile]) -> list[StoreFile]:
    return [file for file in files if file.path.endswith(".json")]


def _drop_pages(store: Store, chain: ChainKey, state: ChainState) -> None:
    """Pages that newer ones replace; never one that a faster writer made. Who still wants one begins again."""
    current = {page.name for page in state.pages}
    for file in store.files(chain.pages):
        name = file.path.rpartition("/")[2].removesuffix(".json")
        last = name.split("-")[1] if name.count("-") == 2 else ""
        if name not in current and last.isdecimal() and int(last) <= state.sequence:
            store.delete(file.path)


def _read_snapshot(store: Store, file: StoreFile) -> ChainState | None:
    [data] = store.read_listed([file])
    if data is None:
        return None
    try:
        snapshot = _SNAPSHOT_DECODER.decode(data)
        if snapshot.format != SNAPSHOT_FORMAT or digest(bytes(snapshot.state)) != snapshot.state_digest:
            return None
        return _STATE_DECODER.decode(snapshot.state)
    except msgspec.MsgspecError:
        return None


def snapshot_digests(store: Store, chain: ChainKey) -> dict[str, tuple[int, str]]:
    """Number and digest of the entry that each snapshot ends with, by its path; only of those that are whole."""
    states = {file.path: _read_snapshot(store, file) for file in _snapshot_files(store, chain)}
    return {path: (state.sequence, state.digest) for path, state in states.items() if state is not None}


def _check_snapshot(store: Store, chain: ChainKey, state: ChainState, path: str, entry: StoreFile | None) -> None:
    [data] = store.read_listed([entry]) if entry is not None else store.read_many([chain.entry(state.sequence)])
    if data is None:
        raise missing_entries_error(store, chain, [state.sequence], evidence_of_snapshot(store, path))
    found = digest(data)
    if found != state.digest:
        location = store.uri(chain.entry(state.sequence))
        raise LedgerCorrupt(
            f"ledger entry {location} is not the one that the snapshot {store.uri(path)} was made of: it says "
            f"{state.digest}, found {found}. The entry was edited, or entries of another copy were put over newer "
            "ones. Restore the newest copy of the ledger, then run 'trainflow audit PIPELINE'",
            location=location,
        )
