"""Which chains go on from checkpoints of which, and which of these they still need.

A file below the upstream's folder, made before the first entry that speaks of it, so that an upstream need not look
through every chain of the store to know what it must keep. The file is empty, or says how a stage of another pipeline
follows: its upstream's own file does not know of it, and what it has not passed yet is to be kept all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary
from trainflow.checkpoints.stages.init_from import Dependent
from trainflow.deadlines import TOLERANCE
from trainflow.errors import InputError
from trainflow.storage.store import Store, StoreFile


def still_needed(dependent: Dependent, state: ChainState, kept: Sequence[CheckpointSummary]) -> set[str]:
    """Find those of the `kept` checkpoints of a chain that a run of the follower, whose chain is in `state`, may start
    from.

    One that has trained nothing may need every one. At the same watermark it is those that the follower has not passed
    yet; in a circle the one before, too: what came after that may have been stepped over. Otherwise its run began after
    its head was committed, with what was the newest then or has come since.
    """
    line = [each for each in kept if each.on_line]
    if state.head is None:
        return {each.id for each in line}
    if dependent.once:
        return set()
    if dependent.at == "same_watermark":
        ahead = {each.id for each in line if each.watermark >= state.head.watermark}
        behind = [each.id for each in line if each.watermark <= state.head.watermark]
        return ahead.union(behind[-1:] if dependent.feedback else [])
    return _newest_since(line, state.head.at)


def _newest_since(line: Sequence[CheckpointSummary], at: datetime) -> set[str]:
    """What was committed since then, by hosts whose clocks may differ, and the newest before."""
    at -= TOLERANCE
    since = [each.id for each in line if each.at >= at]
    before = [each.id for each in line if each.at < at]
    return {*since, *before[-1:]}


def register_origin(store: Store, upstream: ChainKey, dependent: ChainKey) -> None:
    """`dependent` is about to go on from a checkpoint of `upstream`. May be said again. Raises StoreFailure."""
    with suppress(FileExistsError):
        store.create_exclusive(_place(upstream, dependent), b"")


def add_dependent(store: Store, upstream: ChainKey, dependent: Dependent) -> None:
    """Record that runs of `dependent` start from checkpoints of `upstream`. May be said again. Raises StoreFailure."""
    place, said = _place(upstream, dependent.chain), msgspec.json.encode(dependent)
    if store.read_many([place]) != [said]:
        store.replace(place, said)


def remove_dependent(store: Store, upstream: ChainKey, dependent: ChainKey) -> bool:
    """Remove a follower: only what its chain went on from is kept. Returns whether there was one. Raises
    StoreFailure."""
    if dependent not in {each.chain for each in declared_dependents(store, upstream)}:
        return False
    store.replace(_place(upstream, dependent), b"")
    return True


def declared_dependents(store: Store, upstream: ChainKey, listed: Collection[str] | None = None) -> list[Dependent]:
    """The chains of other pipelines that said they follow. `listed`: as `registered_chains` takes it. Raises
    StoreFailure."""
    keys = registered_chains(store, upstream, listed)
    contents = store.read_many([_place(upstream, key) for key in keys])
    return [_dependent(key, said) for key, said in zip(keys, contents, strict=True) if said]


def _dependent(chain: ChainKey, said: bytes) -> Dependent:
    """What a newer trainflow has said and this one does not understand: as one that needs much."""
    try:
        return msgspec.structs.replace(msgspec.json.decode(said, type=Dependent), chain=chain)
    except msgspec.MsgspecError:
        return Dependent(chain, "same_watermark", feedback=True)


def _place(upstream: ChainKey, dependent: ChainKey) -> str:
    return f"{upstream.dependents}/{dependent.prefix}"


def registered_chains(store: Store, upstream: ChainKey, listed: Collection[str] | None = None) -> list[ChainKey]:
    """The chains that went on, or meant to, from a checkpoint of `upstream`. `listed`: the paths of the files in its
    folder of dependents, where it was listed just now."""
    found = []
    if listed is None:
        listed = [file.path.removeprefix(f"{upstream.dependents}/") for file in store.files(upstream.dependents)]
    for path in listed:
        try:
            pipeline, stage, branch = path.split("/")
            found.append(ChainKey(pipeline, stage, branch))
        except (InputError, ValueError):
            # nothing that was registered here
            continue
    return found


#: a chain that was registered this long ago, and has added nothing since, was killed before it could
_UNDER_WAY = timedelta(days=1)


def is_awaited(upstream: ChainKey, ledgers: Sequence[Ledger], files: Sequence[StoreFile], now: datetime) -> bool:
    """Whether a chain was registered lately with `upstream` and has no entry yet that says what of it that goes on
    from: it is about to name files that nothing else may keep. `ledgers`: of the registered chains, `files`: what is in
    the folder of dependents. Raises LedgerCorrupt, StoreFailure."""
    lately = {file.path for file in files if file.modified is None or file.modified > now - _UNDER_WAY}
    new = [each for each in ledgers if _place(upstream, each.chain) in lately]
    return any(not _names(each.state(), upstream) for each in new)


def _names(state: ChainState, upstream: ChainKey) -> bool:
    owned = any(owner.startswith(f"{upstream.artifacts}/") for owner in state.shared)
    return owned or any(each.chain == upstream for each in state.upstreams)


def references(
    store: Store,
    upstream: ChainKey,
    listed: Collection[str] | None = None,
    ledger_of: Callable[[ChainKey], Ledger] | None = None,
) -> set[str]:
    """Checkpoints of `upstream` that another chain of the store began with or last went on from. `listed`: as
    `registered_chains` takes it; `ledger_of`: where ledgers of other chains are open already."""
    ledger_of = ledger_of or (lambda chain: Ledger(store, chain))
    return {
        each.checkpoint_id
        for other in registered_chains(store, upstream, listed)
        for each in ledger_of(other).state().upstreams
        if each.chain == upstream
    }
