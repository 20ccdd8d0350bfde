"""The ledger entry that a verdict comes to. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trainflow.checkpoints.commit.gates import CommitCheckpoint, RewindBy, SkipSplit, Verdict
from trainflow.checkpoints.commit.request import CommitRequest
from trainflow.checkpoints.ledger.entries import (
    Acceptance,
    Author,
    Checkpoint,
    GateRefusal,
    HoleFilled,
    Rewind,
    Skip,
    Stop,
)
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.observability.redaction import redact

Conclusion = Checkpoint | Skip | Rewind | Stop
#: what a stop records of the checkpoint that it refuses
_FACTS = (
    *("id", "parent_id", "split", "artifacts", "metrics", "evaluation"),
    *("not_finite", "params", "origin", "base", "seconds", "grid"),
)


def ledger_entry_of(
    request: CommitRequest,
    verdict: Verdict,
    state: ChainState,
    now: datetime,
    target: str | None,
    promoted: Mapping[str, str],
) -> Conclusion:
    """What is appended to a chain in this state. `target`: where a rewind goes to, `promoted`: who has an alias again
    then."""
    match verdict:
        case CommitCheckpoint():
            return checkpoint_of(_facts(request), state, request.fills, by=request.by, now=now)
        case SkipSplit(reasons):
            return Skip(
                **state.header(request.by, now),
                parent_id=request.parent_id,
                start=state.edge or request.split.start,
                end=request.split.end,
                reason="; ".join(reasons),
                refused=_refusal(request, reasons),
            )
        case RewindBy(_, reasons):
            return Rewind(
                **state.header(request.by, now),
                to_checkpoint_id=target,
                reason="; ".join(reasons),
                cause="gate",
                refused=_refusal(request, reasons),
                promoted=dict(promoted),
            )
    facts = _facts(request)
    return Stop(
        **state.header(request.by, now),
        reasons=list(verdict.reasons),
        misnamed=verdict.misnamed,
        fills=request.fills,
        **facts,
    )


def accepted_checkpoint(stop: Stop, state: ChainState, acceptance: Acceptance, now: datetime) -> Checkpoint:
    """The checkpoint that gates refused, as a person accepts it. Who trained it wrote it."""
    facts = {name: getattr(stop, name) for name in _FACTS}
    return checkpoint_of(facts, state, stop.fills, by=stop.by, now=now, accepted=acceptance)


def checkpoint_of(
    facts: Mapping[str, Any],
    state: ChainState,
    fills: bool,
    *,
    by: Author,
    now: datetime,
    accepted: Acceptance | None = None,
) -> Checkpoint:
    """A checkpoint on top of the head."""
    filled = state.head if fills else None
    kind = HoleFilled if filled else Checkpoint
    return kind(
        **state.header(by, now),
        watermark=filled.watermark if filled else facts["split"].end,
        accepted=accepted,
        **facts,
    )


def _facts(request: CommitRequest) -> dict[str, Any]:
    metrics, evaluation = request.metrics, request.evaluation or {}
    return {
        "id": request.checkpoint_id,
        "parent_id": request.parent_id,
        "split": request.split,
        "artifacts": request.artifacts,
        "metrics": _finite(metrics),
        "evaluation": _finite(evaluation),
        "not_finite": {
            name: str(value) for name, value in {**metrics, **evaluation}.items() if not math.isfinite(value)
        },
        "params": redact(dict(request.params)),  # an entry is for ever, and for every reader of the store
        "origin": request.origin,
        "base": request.base,
        "seconds": request.seconds,
        "grid": request.grid,
    }


def _refusal(request: CommitRequest, reasons: tuple[str, ...]) -> GateRefusal:
    return GateRefusal(request.checkpoint_id, request.split.start, request.split.end, list(reasons))


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
