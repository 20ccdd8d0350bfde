"""Snapshots of the fold, so that reading the head costs the same with ten entries and with a hundred thousand.

Never the truth: a snapshot counts only when it is whole, of this format, and the entry it ends with still has the
digest it remembers; a page only when it is what its name says. Anything else is ignored and the ledger is folded from
its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.state import ChainState
from trainflow.checkpoints.store import Store
from trainflow.errors import StoreFailure
from trainflow.identifiers import digest

#: entries between two snapshots; reading the head replays at most about this many
INTERVAL = 32
#: raise it whenever the fold or its state changes: older snapshots are then ignored
FORMAT = 6
_KEPT = 2


class _Snapshot(msgspec.Struct, frozen=True):
    format: int
    state_digest: str
    state: msgspec.Raw


_DECODER = msgspec.json.Decoder(_Snapshot)
_STATE = msgspec.json.Decoder(ChainState)


def load(store: Store, chain: ChainKey) -> ChainState | None:
    """The state of the newest usable snapshot; None when there is none."""
    for path in reversed(_paths(store, chain)):
        state = _read(store, path)
        if state and _still_true(store, chain, state):
            return state
    return None


def save(store: Store, chain: ChainKey, state: ChainState, pages: Mapping[str, bytes]) -> bool:
    """Write a snapshot and drop all but the newest two. False when the store refuses: that costs time and nothing else.

    `pages` are those made since the ledger was opened, by name: they are written first.
    """
    data = msgspec.json.encode(state)
    snapshot = _Snapshot(FORMAT, digest(data), msgspec.Raw(data))
    try:
        for page in state.pages:
            if page.name in pages:
                store.replace(chain.page(page.name), pages[page.name])
        store.replace(chain.snapshot(state.sequence), msgspec.json.encode(snapshot))
        for path in _paths(store, chain)[:-_KEPT]:
            store.delete(path)
        if pages:
            _drop_pages(store, chain, state)
    except StoreFailure:
        return False
    return True


def _paths(store: Store, chain: ChainKey) -> list[str]:
    return [file.path for file in store.files(chain.snapshots) if file.path.endswith(".json")]


def _drop_pages(store: Store, chain: ChainKey, state: ChainState) -> None:
    """Pages that newer ones replace; never one that a faster writer made. Who still wants one begins again."""
    current = {page.name for page in state.pages}
    for file in store.files(chain.pages):
        name = file.path.rpartition("/")[2].removesuffix(".json")
        last = name.split("-")[1] if name.count("-") == 2 else ""
        if name not in current and last.isdecimal() and int(last) <= state.sequence:
            store.delete(file.path)


def _read(store: Store, path: str) -> ChainState | None:
    try:
        snapshot = _DECODER.decode(store.read(path))
        if snapshot.format != FORMAT or digest(bytes(snapshot.state)) != snapshot.state_digest:
            return None
        return _STATE.decode(snapshot.state)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _still_true(store: Store, chain: ChainKey, state: ChainState) -> bool:
    try:
        return digest(store.read(chain.entry(state.sequence))) == state.digest
    except FileNotFoundError:
        return False
