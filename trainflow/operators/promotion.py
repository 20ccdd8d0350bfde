"""Tell that a checkpoint was promoted, or that a rewind took its alias away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainflow.messages.notice import Event, Notice
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.ledger.entries import Checkpoint
    from trainflow.checkpoints.ledger.ledger import Ledger
    from trainflow.checkpoints.ledger.state import ChainState

#: what rewinds took from checkpoints of the chain, until a checkpoint is promoted again: for the mirror
XCOM_MOVED = "aliases_moved"


def push_moved_aliases(ledger: Ledger, state: ChainState, ti: TaskInstance) -> None:
    """Push XCom `aliases_moved`, if there is something to say. Every run says it: who told it first may have died."""
    if state.demoted:
        ti.xcom_push(XCOM_MOVED, moved_aliases(ledger, state))


def moved_aliases(ledger: Ledger, state: ChainState) -> list[dict[str, Any]]:
    """Which aliases rewinds took from which checkpoints, and who has them now: {alias, lost, now} as the mirror reads
    it."""
    found: list[dict[str, Any]] = []
    for alias, lost in sorted(state.demoted.items()):
        name = state.promoted.get(alias)
        found.append({"alias": alias, "lost": lost, "now": None if name is None else _named(ledger, name)})
    return found


def _named(ledger: Ledger, checkpoint_id: str) -> dict[str, Any]:
    checkpoint = ledger.checkpoint(checkpoint_id)
    return {
        "checkpoint_id": checkpoint.id,
        "sequence": checkpoint.sequence,
        "uri": ledger.store.uri(checkpoint.artifacts.path),
        "watermark": checkpoint.watermark.isoformat(),
    }


def promotion_notice(
    chain: ChainKey,
    checkpoint: Checkpoint,
    alias: str,
    uri: str,
    *,
    dag_id: str,
    run_id: str = "",
    entry: int | None = None,
) -> Notice:
    """The notice: the same for the same checkpoint and alias; and `entry`, where a person promoted it, since an alias
    may come back."""
    return Notice(
        event=Event.PROMOTED,
        key=f"{alias} {checkpoint.id}" + (f" {entry}" if entry is not None else ""),
        sentence=(
            f"{chain}: checkpoint {checkpoint.sequence}, trained up to {label(checkpoint.watermark)}, "
            f"is promoted to {alias!r}"
        ),
        **chain.names,
        dag_id=dag_id,
        run_id=run_id,
        facts={
            "alias": alias,
            "checkpoint_id": checkpoint.id,
            "sequence": checkpoint.sequence,
            "watermark": checkpoint.watermark.isoformat(),
            "uri": uri,
        },
    )
