"""What a ledger entry says, in one line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainflow.humanize import counted

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.entries import Checkpoint, Fork, LedgerEntry


def sentence(entry: LedgerEntry) -> str:
    """The line of `trainflow checkpoints ledger`, without its number and time."""
    from trainflow.checkpoints.ledger import entries
    from trainflow.samples.partitions import label

    match entry:
        case entries.HoleFilled():
            return f"hole filled {entry.id}  {_trained(entry)}"
        case entries.Checkpoint():
            return f"checkpoint {entry.id}  {_trained(entry)}"
        case entries.Prune():
            return (
                f"prune {counted(len(entry.checkpoint_ids), 'checkpoint')} ({entry.reason}): "
                f"{', '.join(entry.checkpoint_ids)}"
            )
        case entries.Skip():
            return f"skip {label(entry.start)} to {label(entry.end)}{_reason(entry.reason)}"
        case entries.Stop():
            split = f"{label(entry.split.start)} to {label(entry.split.end)}"
            return f"stop: gates refused {entry.id}  {split}{_reason('; '.join(entry.reasons))}"
        case entries.Regrid():
            earlier = f", {counted(len(entry.holes), 'hole')} before it" if entry.holes else ""
            return f"regrid at {label(entry.watermark)} to {entry.grid}{earlier}{_reason(entry.reason)}"
        case entries.Resume():
            return f"resume by {_author(entry)}, to train it again{_reason(entry.reason)}"
        case entries.Loss():
            gone = f", {counted(len(entry.checkpoint_ids), 'checkpoint')} with them" if entry.checkpoint_ids else ""
            lost = f"loss of entries {entry.first} to {entry.last} accepted by {_author(entry)}"
            return f"{lost}{gone}{_reason(entry.reason)}"
        case entries.Promotion():
            return f"promotion of {entry.checkpoint_id} to {entry.alias}{_reason(entry.reason)}"
        case entries.Fork():
            return f"fork of {entry.origin.chain}@{entry.origin.checkpoint_id} at {label(entry.watermark)}{_set(entry)}"
        case entries.Adoption():
            return (
                f"adoption of {entry.uri}, trained up to {label(entry.watermark)}, {counted(len(entry.files), 'file')}"
            )
        case entries.Rewind():
            cause = f" by {entry.cause}" if entry.cause else ""
            return f"rewind{cause} to {entry.to_checkpoint_id or 'before the first checkpoint'}{_reason(entry.reason)}"


def _trained(entry: Checkpoint) -> str:
    from trainflow.samples.partitions import label

    split = entry.split
    holes = f", {counted(len(split.holes), 'hole')}" if split.holes else ""
    origin = f"  from {entry.origin.chain}@{entry.origin.checkpoint_id}" if entry.origin else ""
    accepted = entry.accepted
    by = f"  accepted by {accepted.person} although {'; '.join(accepted.refused)}" if accepted else ""
    return (
        f"{label(split.start)} to {label(split.end)}, {counted(len(split.partitions), 'partition')}{holes}{origin}  "
        f"{entry.by.run_id}{by}"
    )


def _author(entry: LedgerEntry) -> str:
    return entry.by.person or entry.by.hostname


def _set(entry: Fork) -> str:
    return "".join(f", {name}={value}" for name, value in sorted(entry.overrides.items()))


def _reason(reason: str) -> str:
    return f" ({reason})" if reason else ""
