"""How a chain begins when it does not begin with nothing: as a fork of another one, or with adopted files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from trainflow.checkpoints.ledger.entries import Adoption, ArtifactFile, Author, CheckpointRef, Fork, ForkedStage
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.stages.dependents_registry import register_origin
from trainflow.errors import CheckpointError
from trainflow.pluralize import counted

_Beginning = TypeVar("_Beginning", Fork, Adoption)
_NOT_SAID = ("sequence", "previous", "at", "by", "format", "seal", "stages", "asked")


def fork(
    ledger: Ledger,
    origin: CheckpointRef,
    watermark: datetime,
    *,
    overrides: Mapping[str, str] | None = None,
    stages: Sequence[ForkedStage] = (),
    asked: str = "",
    by: Author,
    now: datetime,
) -> Fork:
    """Begin a branch at a checkpoint of another chain of the same store, where that one was at `watermark`.

    `stages` are all that are forked together, `asked` how. Asking for the same fork again returns it. Raises
    CheckpointError when the branch has begun otherwise.
    """

    def first(state: ChainState) -> Fork:
        return Fork(
            **state.header(by, now),
            origin=origin,
            watermark=watermark,
            overrides=dict(overrides or {}),
            stages=list(stages),
            asked=asked,
        )

    register_origin(ledger.store, origin.chain, ledger.chain)
    return _begin(ledger, first)


def adopt(
    ledger: Ledger, uri: str, watermark: datetime, files: Sequence[ArtifactFile], *, by: Author, now: datetime
) -> Adoption:
    """Begin a chain with the files of a foreign folder, trained up to `watermark`.

    Asking for the same adoption again returns it. Raises CheckpointError when the chain has begun otherwise.
    """

    def first(state: ChainState) -> Adoption:
        return Adoption(**state.header(by, now), uri=uri, watermark=watermark, files=list(files))

    return _begin(ledger, first)


def _begin(ledger: Ledger, first: Callable[[ChainState], _Beginning]) -> _Beginning:
    begun: list[_Beginning] = []

    def make(state: ChainState) -> _Beginning | None:
        entry = first(state)
        if isinstance(state.start, type(entry)) and _says_the_same(state.start, entry):
            begun.append(state.start)
            return None
        if state.sequence:
            raise CheckpointError(
                f"chain {ledger.chain} in {ledger.store.url} has begun already "
                f"({counted(state.sequence, 'entry')}): only an "
                "empty chain can be forked or adopted into; name another branch"
            )
        return entry

    return ledger.append(make) or begun[0]


def _says_the_same(there: _Beginning, wanted: _Beginning) -> bool:
    """The author, the moment and what it was forked together with."""
    placed = {name: getattr(there, name) for name in _NOT_SAID if hasattr(there, name)}
    return msgspec.structs.replace(wanted, **placed) == there
