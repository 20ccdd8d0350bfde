"""What a ledger entry says, in one line for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from trainflow.humanize import counted

if TYPE_CHECKING:
    from trainflow.checkpoints.ledger.entries import Checkpoint, Fork, LedgerEntry


def sentence(entry: LedgerEntry, numbers: Mapping[str, int]) -> str:
    """The line of `trainflow checkpoints ledger`, without its number and time. `numbers`: those of the checkpoints in
    the ledger, by id."""
    from trainflow.checkpoints.ledger import entries
    from trainflow.samples.partitions import label

    match entry:
        case entries.HoleFilled():
            return f"checkpoint {entry.number}  {entry.id}  hole filled: {_trained(entry)}"
        case entries.Checkpoint():
            return f"checkpoint {entry.number}  {entry.id}  {_trained(entry)}"
        case entries.Prune():
            return f"prune {_named(entry.checkpoint_ids, numbers)}{_reason(entry.reason)}"
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
            return f"promotion of {_named([entry.checkpoint_id], numbers)} to {entry.alias}{_reason(entry.reason)}"
        case entries.Fork():
            where = f"{entry.origin.chain}@{entry.number or entry.origin.checkpoint_id}"
            return f"fork of {where} at {label(entry.watermark)}{_set(entry)}"
        case entries.Adoption():
            return (
                f"adoption of {entry.uri}, trained up to {label(entry.watermark)}, {counted(len(entry.files), 'file')}"
            )
        case entries.Rewind():
            cause = f" by {entry.cause}" if entry.cause else ""
            to = _named([entry.to_checkpoint_id], numbers) if entry.to_checkpoint_id else "before the first checkpoint"
            return f"rewind{cause} to {to}{_reason(entry.reason)}"


def _named(checkpoint_ids: Iterable[str], numbers: Mapping[str, int]) -> str:
    names = [str(numbers.get(each, each)) for each in checkpoint_ids]
    return f"checkpoint{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _trained(entry: Checkpoint) -> str:
    from trainflow.samples.partitions import label

    split = entry.split
    holes = f", {counted(len(split.holes), 'hole')}" if split.holes else ""
    origin = f"  from {entry.origin.chain}@{entry.origin.checkpoint_id}" if entry.origin else ""
    accepted = entry.accepted
    by = f"  accepted by {accepted.person} although {'; '.join(accepted.refused)}" if accepted else ""
    return (
        f"{label(split.start)} to {label(split.end)}, {counted(len(split.partitions), 'partition')}{holes}{origin}  "
        f"{entry.by.run_id}{superseded(entry)}{by}"
    )


def superseded(entry: Checkpoint, between: str = ", after ") -> str:
    """The attempts that began before those that count; "" where there were none."""
    said = (
        f"{each.task_id} {each.attempt_id}"
        f"{f' ({each.outcome})' if each.outcome else ''}{f' on {each.hostname}' if each.hostname else ''}"
        for each in entry.superseded
    )
    listed = ", ".join(said)
    return f"{between}{listed}" if listed else ""


def _author(entry: LedgerEntry) -> str:
    return entry.by.person or entry.by.hostname


def _set(entry: Fork) -> str:
    return "".join(f", {name}={value}" for name, value in sorted(entry.overrides.items()))


def _reason(reason: str) -> str:
    return f" ({reason})" if reason else ""
