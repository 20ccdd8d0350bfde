"""What becomes of aliases in a rewind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from trainflow.checkpoints.ledger.entries import LedgerEntry, Promotion
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary


def restored_aliases(
    state: ChainState,
    line: Sequence[CheckpointSummary],
    to_checkpoint_id: str | None,
    entries: Callable[[], Iterable[LedgerEntry]],
) -> dict[str, str]:
    """Aliases whose checkpoint a rewind to there leaves behind, and who has each again: the one that was promoted to it
    before, of those that stay and have files. An alias that no checkpoint has again is not among them.

    `line`: the checkpoints from the root to the head. `entries` is called only where an alias is lost at all.
    """
    last = next((each.sequence for each in line if each.id == to_checkpoint_id), 0)
    staying = {each.id for each in line if each.sequence <= last}
    lost = {alias for alias, name in state.promoted.items() if name not in staying}
    if not lost or not staying:
        return {}
    promotions = [entry for entry in entries() if isinstance(entry, Promotion)]
    return {
        each.alias: each.checkpoint_id for each in promotions if each.alias in lost and each.checkpoint_id in staying
    }
