"""Snapshots of the fold, so that reading the head costs the same with ten entries and with ten thousand.

Never the truth: a snapshot counts only when it is whole, of this format, and the entry it ends with still has the
digest it remembers. Anything else is ignored and the ledger is folded from its beginning.
"""

from __future__ import annotations

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.state import ChainState
from trainflow.checkpoints.store import Store
from trainflow.errors import StoreFailure
from trainflow.identifiers import digest

#: entries between two snapshots; reading the head replays at most about this many
INTERVAL = 32
#: raise it whenever the fold or its state changes: older snapshots are then ignored
FORMAT = 2
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


def save(store: Store, chain: ChainKey, state: ChainState) -> None:
    """Write a snapshot and drop all but the newest two. A store that refuses costs time later and nothing else."""
    data = msgspec.json.encode(state)
    snapshot = _Snapshot(FORMAT, digest(data), msgspec.Raw(data))
    try:
        store.replace(chain.snapshot(state.sequence), msgspec.json.encode(snapshot))
        for path in _paths(store, chain)[:-_KEPT]:
            store.delete(path)
    except StoreFailure:
        return


def _paths(store: Store, chain: ChainKey) -> list[str]:
    return [file.path for file in store.files(chain.snapshots) if file.path.endswith(".json")]


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
