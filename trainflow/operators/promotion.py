"""Tell that a checkpoint was promoted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainflow.messages.notice import Event, Notice
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from trainflow.checkpoints.chain import ChainKey
    from trainflow.checkpoints.entries import Checkpoint


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
        pipeline=chain.pipeline,
        stage=chain.stage,
        branch=chain.branch,
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
