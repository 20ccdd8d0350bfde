"""What a run wants to commit, what its gates say of that, and the ledger entry that it comes to. Pure.

One rule for all metrics that a pipeline names in gates, promotions and the retention: a name that neither the run nor
any checkpoint of the chain has is misspelt, or its function does not report it. Nothing is committed then, and nothing
is lost: the chain stops over what was trained, and once the name is mended a person accepts it without training again.
Before the first evaluation it is not known which metrics that will give, so nothing is said until then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.gates import (
    CommitCheckpoint,
    Gate,
    GateHistory,
    RewindBy,
    SkipSplit,
    StopChain,
    Verdict,
    judge,
    parse_condition,
    previous_of,
)
from trainflow.checkpoints.ledger.entries import (
    Acceptance,
    Artifacts,
    Author,
    Checkpoint,
    CheckpointRef,
    GateRefusal,
    HoleFilled,
    HoleRecord,
    Rewind,
    Skip,
    SplitSummary,
    Stop,
    SupersededAttempt,
    TrainedPartition,
    UpstreamSeen,
)
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary
from trainflow.checkpoints.ledger_changes.promote import Promote
from trainflow.checkpoints.upkeep.retention import KeepBest, Policy
from trainflow.observability.redaction import redact
from trainflow.samples.grid import Grid
from trainflow.samples.splits.split import Split


class NamedMetric(msgspec.Struct, frozen=True):
    """A metric, the key that names it (`gates[0]`) and where that is written (`pipelines/clicks.yaml:12`)."""

    key: str
    metric: str
    place: str = ""


def named_metrics(
    gates: Iterable[Gate], promotes: Iterable[Promote], retention: Iterable[Policy]
) -> tuple[NamedMetric, ...]:
    """Every metric that is named, in the order of the keys."""
    found = [NamedMetric(f"gates[{number}]", gate.metric) for number, gate in enumerate(gates)]
    for number, each in enumerate(promotes):
        names = (parse_condition(condition).metric for condition in each.when)
        found += [NamedMetric(f"promote[{number}].when[{at}]", name) for at, name in enumerate(names)]
    found += [NamedMetric(KEEP_BEST, policy.metric) for policy in retention if isinstance(policy, KeepBest)]
    return tuple(found)


KEEP_BEST = "retention.keep_best.metric"


def known_metrics(state: ChainState) -> set[str]:
    """Names of what the newest checkpoints of a chain have reported, and of what they were scored with."""
    known = {name for each in state.recent for name in (*each.metrics, *each.scores)}
    if state.head is not None:
        known.update(state.head.metrics, state.head.evaluation, state.head.not_finite)
    return known


def misnamed(named: Sequence[NamedMetric], known: Collection[str]) -> list[NamedMetric]:
    """Names that no metric has."""
    return [each for each in named if each.metric not in known]


def sentence_about(each: NamedMetric, known: Collection[str]) -> str:
    """What is wrong with a name, and which there are."""
    import difflib

    place = f" ({each.place})" if each.place else ""
    close = difflib.get_close_matches(each.metric, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    there = ", ".join(sorted(known)) or "none"
    return (
        f"{each.key}{place}: there is no metric {each.metric!r}, in this run or in the chain (there are: {there}){hint}"
    )


class CommitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`parent_id` is the head it trained from (None: the chain was empty). `evaluation` is the parent's score on this
    split; None when there was nothing to evaluate. `evaluated`: the run has a task that evaluates, although that has
    nothing to score before the first checkpoint. `fills`: the split trains holes of the line that have arrived, the
    watermark stays where it is. `origin`: the weights came from that checkpoint of another chain, not from the parent.
    `upstream`: of a stage that starts from another one, what was known of that.
    `generation`: how often the chain had been rewound when the run began; after one more, what it trained is out of
    date although its parent is the head again. None: not known. `grid`: of the table that was trained on. `named`: the
    metrics that gates, promotions and the retention name. `superseded`: attempts that began before those that count.
    """

    chain: ChainKey
    parent_id: str | None
    split: SplitSummary
    artifacts: Artifacts
    by: Author
    metrics: Mapping[str, float] = {}
    evaluation: Mapping[str, float] | None = None
    evaluated: bool = False
    params: dict[str, Any] = {}
    gates: tuple[Gate, ...] = ()
    promotes: tuple[Promote, ...] = ()
    named: tuple[NamedMetric, ...] = ()
    origin: CheckpointRef | None = None
    upstream: UpstreamSeen | None = None
    fills: bool = False
    #: from when the split was handed over
    seconds: float | None = None
    generation: int | None = None
    grid: Grid | None = None
    superseded: tuple[SupersededAttempt, ...] = ()

    @property
    def checkpoint_id(self) -> str:
        """The id of the attempt that wrote the artifacts."""
        return self.artifacts.path.rsplit("/", 1)[-1]

    def due(self, state: ChainState) -> datetime | None:
        """Where its split has to start on a chain in this state; None: anywhere."""
        return None if self.fills else state.watermark


def summary_of(split: Split) -> SplitSummary:
    """What the ledger records of a split. Its digest still names every file."""
    return SplitSummary(
        start=split.start,
        end=split.end,
        partitions=[
            TrainedPartition(partition.start, partition.end, partition.fingerprint, partition.rows, partition.hint)
            for partition in split.partitions
        ],
        holes=[HoleRecord(hole.start, hole.end, hole.reason) for hole in split.holes],
        rows=split.rows,
        bytes=split.bytes,
        digest=split.digest,
        columns=split.columns,
    )


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


def _gate_history(request: CommitRequest, state: ChainState, line: Sequence[CheckpointSummary]) -> GateHistory:
    split = request.split
    return GateHistory(
        places=tuple(summary.place for summary in line),
        rewound=any(each.start < split.end and split.start < each.end for each in state.gate_rewinds),
    )


Conclusion = Checkpoint | Skip | Rewind | Stop
#: what a stop records of the checkpoint that it refuses
_FACTS = (
    *("id", "parent_id", "split", "artifacts", "metrics", "evaluation"),
    *("not_finite", "params", "origin", "upstream", "seconds", "grid", "superseded"),
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
        number=state.last_number + 1,
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
        "upstream": request.upstream,
        "seconds": request.seconds,
        "grid": request.grid,
        "superseded": list(request.superseded),
    }


def _refusal(request: CommitRequest, reasons: tuple[str, ...]) -> GateRefusal:
    return GateRefusal(request.checkpoint_id, request.split.start, request.split.end, list(reasons))


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
