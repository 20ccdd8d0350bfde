"""What a run says when gates refused what it trained: that the chain is stopped, or what was done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainflow.messages.notice import XCOM_STOPPED, Cause
from trainflow.samples.partitions import label

if TYPE_CHECKING:
    from trainflow.authoring.context import TaskInstance
    from trainflow.checkpoints.ledger.entries import Rewind, Skip, Stop

#: what the commit task pushes when gates had it do something else: {action, reasons, start, end, …}
XCOM_GATE = "gate"


def note_gate_stop(ti: TaskInstance, stop: Stop) -> None:
    """Leave the notice of a stopped chain: of the same stop the same notice, whichever attempt finds it."""
    split = f"{label(stop.split.start)} to {label(stop.split.end)}"
    reasons = "; ".join(stop.reasons)
    told = {
        "cause": Cause.GATE.value,
        "key": f"stop {stop.sequence}",
        "sentence": f"{_refused(stop, split)}: {reasons}; {_way_out(stop)}",
        "facts": {
            "reasons": stop.reasons,
            "checkpoint_id": stop.id,
            "start": stop.split.start.isoformat(),
            "end": stop.split.end.isoformat(),
            "metrics": stop.metrics,
            "evaluation": stop.evaluation,
        },
    }
    ti.xcom_push(XCOM_STOPPED, told)


def _refused(stop: Stop, split: str) -> str:
    if stop.misnamed:
        return f"what was trained on {split} is not committed yet"
    return f"a gate refused what was trained on {split}"


def _way_out(stop: Stop) -> str:
    if stop.misnamed:
        return "mend the name, then 'trainflow resume --accept' commits it, and nothing is trained again"
    return "'trainflow resume' decides"


def note_split_given_up(ti: TaskInstance, entry: Skip | Rewind) -> None:
    """Note what became of the split, and push it as XCom `gate`."""
    from trainflow.checkpoints.ledger.entries import Skip

    refused = entry.refused
    assert refused is not None
    reasons = "; ".join(refused.reasons)
    if isinstance(entry, Skip):
        start, end = entry.start, entry.end
        ti.set_note(f"skipped {label(start)} to {label(end)}: {reasons}")
        facts: dict[str, Any] = {"action": "skip"}
    else:
        start, end, target = refused.start, refused.end, entry.to_checkpoint_id
        ti.set_note(f"rewound to {f'checkpoint {target}' if target else 'before the first checkpoint'}: {reasons}")
        facts = {"action": "rewind", "to": target}
    ti.xcom_push(XCOM_GATE, {**facts, "reasons": refused.reasons, "start": start.isoformat(), "end": end.isoformat()})
