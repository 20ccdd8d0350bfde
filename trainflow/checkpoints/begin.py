"""How a chain begins when it does not begin with nothing: as a fork of another one, or with adopted files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from trainflow.checkpoints.entries import Adoption, ArtifactFile, Author, CheckpointRef, Fork
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.registry import register
from trainflow.checkpoints.state import ChainState
from trainflow.errors import CheckpointError


def fork(
    ledger: Ledger,
    origin: CheckpointRef,
    watermark: datetime,
    *,
    overrides: Mapping[str, str] | None = None,
    by: Author,
    now: datetime,
) -> Fork:
    """Begin a branch at a checkpoint of another chain of the same store, where that one was at `watermark`.

    Asking for the same fork again returns it. Raises CheckpointError when the branch has begun otherwise.
    """

    def make(state: ChainState) -> Fork:
        return Fork(
            sequence=state.sequence + 1,
            previous=state.digest,
            at=now,
            by=by,
            origin=origin,
            watermark=watermark,
            overrides=dict(overrides or {}),
        )

    def same(start: Fork | Adoption | None) -> bool:
        return isinstance(start, Fork) and (start.origin, start.watermark, start.overrides) == (
            origin,
            watermark,
            dict(overrides or {}),
        )

    register(ledger.store, origin.chain, ledger.chain)
    entry = _begin(ledger, make, same)
    assert isinstance(entry, Fork)
    return entry


def adopt(
    ledger: Ledger, uri: str, watermark: datetime, files: Sequence[ArtifactFile], *, by: Author, now: datetime
) -> Adoption:
    """Begin a chain with the files of a foreign folder, trained up to `watermark`.

    Asking for the same adoption again returns it. Raises CheckpointError when the chain has begun otherwise.
    """

    def make(state: ChainState) -> Adoption:
        return Adoption(
            sequence=state.sequence + 1,
            previous=state.digest,
            at=now,
            by=by,
            uri=uri,
            watermark=watermark,
            files=list(files),
        )

    def same(start: Fork | Adoption | None) -> bool:
        return isinstance(start, Adoption) and (start.uri, start.watermark, start.files) == (
            uri,
            watermark,
            list(files),
        )

    entry = _begin(ledger, make, same)
    assert isinstance(entry, Adoption)
    return entry


def _begin(
    ledger: Ledger,
    make: Callable[[ChainState], Fork | Adoption],
    same: Callable[[Fork | Adoption | None], bool],
) -> Fork | Adoption:
    begun: list[Fork | Adoption] = []

    def first(state: ChainState) -> Fork | Adoption:
        if state.start and same(state.start):
            begun.append(state.start)
            raise _Begun
        if state.sequence:
            raise CheckpointError(
                f"chain {ledger.chain} in {ledger.store.url} has begun already ({state.sequence} entries): only an "
                "empty chain can be forked or adopted into; name another branch"
            )
        return make(state)

    try:
        entry = ledger.append(first)
    except _Begun:
        return begun[0]
    assert isinstance(entry, Fork | Adoption)
    return entry


class _Begun(Exception):
    pass
