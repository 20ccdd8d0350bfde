"""What a run wants to commit, what its gates say of that, whether it comes next on its chain, and the ledger entry that
it comes to. Pure.

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
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.rules import change_of
from trainflow.checkpoints.ledger.state import ChainState, CheckpointSummary
from trainflow.checkpoints.ledger_changes.promote import Promote
from trainflow.checkpoints.upkeep.retention import KeepBest, Policy
from trainflow.errors import ChainMoved, ChainStopped, CheckpointError
from trainflow.observability.redaction import redact
from trainflow.samples.grid import Grid
from trainflow.samples.partitions import label
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


def has_moved(state: ChainState, request: CommitRequest) -> bool:
    """Whether the chain is elsewhere than when the request was made."""
    return (
        request.parent_id != (state.head.id if state.head else None)
        or request.generation not in (None, state.generation)
        or _stepped_over(state, request)
        or _regridded(state, request)
    )


def _regridded(state: ChainState, request: CommitRequest) -> bool:
    """Whether the chain has another grid than what was trained on."""
    return request.grid is not None and change_of(state, request.grid) is not None


def _stepped_over(state: ChainState, request: CommitRequest) -> bool:
    """Whether a partition that was trained on was skipped meanwhile."""
    return not request.fills and any(
        skip.start < each.end and each.start < skip.end for skip in state.skips for each in request.split.partitions
    )


def raise_unless_next(ledger: Ledger, state: ChainState, request: CommitRequest) -> None:
    """Raises ChainMoved when another run was faster, ChainStopped when a person has to decide first, CheckpointError
    for what was rewound or does not begin where the chain ends."""
    rewound = state.recently(request.checkpoint_id)
    if rewound and not rewound.on_line:
        raise CheckpointError(
            f"checkpoint {rewound.number} ({rewound.id}) was committed to chain {request.chain} and then "
            "the chain was rewound to before it; nothing was committed. Train the split again"
        )
    if has_moved(state, request):
        raise _moved(ledger, state, request)
    head, due = state.head, request.due(state)
    if due and request.split.start != due:
        trained = f"head {head.id} has trained up to" if head else "chain goes on from"
        raise CheckpointError(
            f"chain {request.chain}: the split starts at {label(request.split.start)} but the {trained} "
            f"{label(due)}; nothing was committed"
        )
    if request.fills and head is None:
        raise CheckpointError(f"chain {request.chain}: nothing is trained yet, so there is no hole to fill")
    if state.stopped:
        raise stopped_error(ledger, state.stopped)


_ANOTHER_HOME = (
    ". Where 'trainflow runs list' does not show that run, another home trains this chain, too: leave it to one of them"
)


def _moved(ledger: Ledger, state: ChainState, request: CommitRequest) -> ChainMoved:
    parent = state.recently(request.parent_id) if request.parent_id else None
    number = f"{parent.number} ({parent.id})" if parent else request.parent_id
    trained_from = f"checkpoint {number}" if request.parent_id else "an empty chain"
    other = "" if state.head is None or request.parent_id == state.head.id else _ANOTHER_HOME
    return ChainMoved(
        f"this attempt trained from {trained_from}, but chain {request.chain} in {ledger.store.url} "
        f"{_now_there(state, request)}. Nothing was changed; the run that owns the head goes on{other}",
        expected_sequence=parent.sequence if parent else 0,
        head_sequence=state.head_sequence,
    )


def _now_there(state: ChainState, request: CommitRequest) -> str:
    head = state.head
    if request.parent_id == (head.id if head else None):
        if request.generation not in (None, state.generation):
            return "was rewound since this run began, and is to be trained anew from there"
        if _regridded(state, request):
            return f"goes on with another grid of its samples ({state.grid}) than it was trained on ({request.grid})"
        return f"has stepped over what it trained on, up to {label(state.skips[-1].end)}"
    if head is None:
        return "was rewound to before its first checkpoint"
    host = f" on {head.by.hostname}" if head.by.hostname else ""
    by = f"run {head.by.run_id or 'unknown'}{host}, {label(head.at)}"
    return f"has head {head.id} (checkpoint {head.number}, {by})"


def stopped_error(ledger: Ledger, stop: Stop) -> ChainStopped:
    """The error of a run that goes on with a stopped chain."""
    resume = f"trainflow resume {ledger.chain.arguments}"
    way_out = f"What becomes of it is for a person to say: '{resume}'"
    if stop.misnamed:
        way_out = f"It is trained and kept: mend the name, then '{resume} --accept' commits it as it is"
    return ChainStopped(
        f"chain {ledger.chain} is stopped: gates refused {stop.id} ({'; '.join(stop.reasons)}). Nothing was committed, "
        f"the head is unchanged. {way_out}",
        reasons=tuple(stop.reasons),
        checkpoint_id=stop.id,
        sequence=stop.sequence,
    )
