"""What gates say of a request to commit. Pure; the rule about several gates is in `gates`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trainflow.checkpoints.commit.gates import (
    CommitCheckpoint,
    GateHistory,
    RewindBy,
    SkipSplit,
    StopChain,
    Verdict,
    judge,
)
from trainflow.checkpoints.commit.metric_names import known_metrics, misnamed, sentence_about
from trainflow.checkpoints.commit.request import CommitRequest
from trainflow.checkpoints.ledger.entries import Checkpoint
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary


def verdict_of(request: CommitRequest, state: ChainState, line: Callable[[], Sequence[CheckpointSummary]]) -> Verdict:
    """Commit it, or what else. `state` is that of the chain before; `line` is read when a gate refuses."""
    parent, evaluation = state.head, request.evaluation or {}
    current = {**request.metrics, **evaluation}
    gates, previous = request.gates, previous_of(request.metrics, evaluation, parent)
    if parent is None and request.evaluated and not evaluation:
        # nothing could score its split beforehand; which metrics that will give is not known before the second one
        gates = tuple(gate for gate in gates if gate.metric in current)
    elif wrong := misnamed(request.named, known := {*current, *known_metrics(state)}):
        names = {each.metric for each in wrong}
        verdict = judge([gate for gate in gates if gate.metric not in names], current, previous, GateHistory())
        refused = () if isinstance(verdict, CommitCheckpoint) else verdict.reasons
        return StopChain((*(sentence_about(each, known) for each in wrong), *refused), misnamed=not refused)
    if judge(gates, current, previous, GateHistory()) == CommitCheckpoint():
        return CommitCheckpoint()
    verdict = judge(gates, current, previous, _gate_history(request, state, line()))
    if request.fills and isinstance(verdict, SkipSplit | RewindBy):
        return StopChain((*verdict.reasons, "it fills a hole, so there is nothing to step over or to go back to"))
    return verdict


def previous_of(
    metrics: Mapping[str, float], evaluation: Mapping[str, float], parent: Checkpoint | None
) -> dict[str, float]:
    """An honest score is compared with the parent's honest score, never with what a trainer said of its own data."""
    if parent is None:
        return {}
    sources = dict.fromkeys(metrics, parent.metrics) | dict.fromkeys(evaluation, parent.evaluation)
    return {name: source[name] for name, source in sources.items() if name in source}


def _gate_history(request: CommitRequest, state: ChainState, line: Sequence[CheckpointSummary]) -> GateHistory:
    split = request.split
    return GateHistory(
        places=tuple(summary.number for summary in line),
        rewound=any(each.start < split.end and split.start < each.end for each in state.retried),
    )
