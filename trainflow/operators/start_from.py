"""Which checkpoint of another chain a new chain goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.entries import CheckpointRef
from trainflow.errors import FailException

if TYPE_CHECKING:
    from trainflow.checkpoints.entries import Checkpoint
    from trainflow.checkpoints.store import Store


class StartFrom(msgspec.Struct, frozen=True):
    """A chain, and one of its checkpoints (None: its head)."""

    chain: ChainKey
    id: str | None = None


def parse_start_from(value: Any) -> StartFrom:
    """What a person or another pipeline wrote: `pipeline/stage/branch` or `pipeline/stage/branch@checkpoint` (stage and
    branch may be left out: `main`), or what a CheckpointOperator or CommitCheckpointOperator hands over.

    Raises FailException for anything else.
    """
    if isinstance(value, str) and value:
        path, _, checkpoint_id = value.partition("@")
        parts = path.split("/")
        if len(parts) <= 3 and all(parts):
            return StartFrom(ChainKey(*parts), checkpoint_id or None)
    elif isinstance(value, Mapping) and "pipeline" in value:
        names = {name: value[name] for name in ("pipeline", "stage", "branch") if name in value}
        return StartFrom(ChainKey(**names), value.get("id"))
    raise FailException(
        f"start_from={value!r} names no checkpoint: write 'pipeline/stage/branch' or "
        "'pipeline/stage/branch@checkpoint', or give the output of a CheckpointOperator or CommitCheckpointOperator"
    )


def origin_of(start: StartFrom, store: Store, chain: ChainKey) -> tuple[CheckpointRef, Checkpoint]:
    """The checkpoint to start `chain` from; both chains are in `store`.

    Raises FailException when it is the same chain, CheckpointNotFound when there is no such checkpoint (yet).
    """
    from trainflow.checkpoints.ledger import Ledger

    if start.chain == chain:
        raise FailException(f"start_from names {chain} itself: a chain goes on from its own head without being told")
    checkpoint = Ledger(store, start.chain).checkpoint(start.id)
    return CheckpointRef(start.chain, checkpoint.id), checkpoint


def is_fork(origin: CheckpointRef, chain: ChainKey) -> bool:
    """Whether `chain` is another branch of the origin's stage: over the same samples, so it goes on at the origin's
    watermark. Another stage has samples of its own and begins with the first of them."""
    return (origin.chain.pipeline, origin.chain.stage) == (chain.pipeline, chain.stage)
