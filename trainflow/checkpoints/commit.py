"""Commit a checkpoint: a list of named steps, of which one creates the ledger entry.

Everything before that step may be repeated and changes nothing; everything after it may be left out. A run that was
killed anywhere and commits again gets the checkpoint it has committed already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from trainflow.chaos import passed
from trainflow.checkpoints.artifacts import verify_uploaded
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.entries import Artifacts, Author, Checkpoint, CheckpointRef, HoleFilled, SplitSummary
from trainflow.checkpoints.gates import Gate, check_gates
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.state import ChainState
from trainflow.checkpoints.store import Store
from trainflow.checkpoints.tiling import split_problem
from trainflow.errors import ArtifactCorrupt, ChainMoved, CheckpointError, GateFailed, InputError


class CommitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a run wants to commit.

    `parent_id` is the head it trained from (None: the chain was empty). `evaluation` is the parent's score on this
    split; None when there was nothing to evaluate. `fills`: the split trains holes of the line that have arrived, the
    watermark stays where it is. `origin`: the weights came from that checkpoint of another chain, not from the parent.
    """

    chain: ChainKey
    parent_id: str | None
    split: SplitSummary
    artifacts: Artifacts
    by: Author
    metrics: Mapping[str, float] = {}
    evaluation: Mapping[str, float] | None = None
    params: dict[str, Any] = {}
    gates: tuple[Gate, ...] = ()
    origin: CheckpointRef | None = None
    fills: bool = False
    #: from when the split was handed over
    seconds: float | None = None

    @property
    def checkpoint_id(self) -> str:
        """The id of the attempt that wrote the artifacts."""
        return self.artifacts.path.rsplit("/", 1)[-1]


@dataclass
class Commit:
    """A commit on its way. `done` is set as soon as the checkpoint is in the ledger."""

    ledger: Ledger
    request: CommitRequest
    now: datetime
    state: ChainState = field(default_factory=ChainState)
    done: Checkpoint | None = None


def commit(store: Store, request: CommitRequest, now: datetime) -> Checkpoint:
    """Commit, or return what this run committed before.

    Raises ChainMoved when the parent is no longer the head, GateFailed, ArtifactCorrupt, InputError for what can never
    be committed, StoreFailure. After a StoreFailure the checkpoint may have been committed: commit again and see.
    """
    work = Commit(Ledger(store, request.chain), request, now)
    for name, step in STEPS:
        if work.done is None:
            step(work)
            passed(f"commit: {name}")
    assert work.done is not None
    return work.done


def _check_request(work: Commit) -> None:
    problem = split_problem(work.request.split)
    if problem:
        raise InputError(f"cannot commit to chain {work.request.chain}: {problem}")
    expected = work.request.chain.attempt(work.request.checkpoint_id)
    if work.request.artifacts.path != expected:
        raise InputError(f"cannot commit to chain {work.request.chain}: artifacts are in {work.request.artifacts.path}")
    if work.request.origin and work.request.origin.chain == work.request.chain:
        raise InputError(f"cannot commit to chain {work.request.chain}: its origin is in the same chain")


def _read_head(work: Commit) -> None:
    work.state = work.ledger.state()


def _recognise(work: Commit) -> None:
    """A retry of the same work: the same run from the same parent, or the very same artifacts."""
    request = work.request
    for summary in reversed(work.state.recent):
        same_work = summary.run_id == request.by.run_id and summary.parent_id == request.parent_id
        if not summary.on_line:
            continue
        if (request.by.run_id and same_work) or summary.id == request.checkpoint_id:
            work.done = work.ledger.checkpoint(summary.id)
            return


def _check_fence(work: Commit) -> None:
    _raise_if_moved(work.ledger, work.state, work.request)


def _check_gates(work: Commit) -> None:
    request, parent = work.request, work.state.head
    evaluation = request.evaluation or {}
    current = {**request.metrics, **evaluation}
    gates = request.gates
    if parent is None and not evaluation:
        # the first checkpoint has nobody who could have scored its split beforehand
        gates = tuple(gate for gate in gates if gate.metric in current)
    failures = check_gates(gates, current, _previous(current, evaluation, parent))
    if failures:
        raise GateFailed(
            f"chain {request.chain}: the metrics of {request.checkpoint_id} did not pass: {'; '.join(failures)}. "
            "Nothing was committed, the head is unchanged",
            failures=failures,
        )


def _previous(
    current: Mapping[str, float], evaluation: Mapping[str, float], parent: Checkpoint | None
) -> dict[str, float]:
    """An honest score is compared with the parent's honest score, never with what a trainer said of its own data."""
    if parent is None:
        return {}
    sources = {name: parent.evaluation if name in evaluation else parent.metrics for name in current}
    return {name: source[name] for name, source in sources.items() if name in source}


def _verify_artifacts(work: Commit) -> None:
    request = work.request
    problems = verify_uploaded(work.ledger.store, request.artifacts)
    if problems:
        raise ArtifactCorrupt(
            f"cannot commit {request.checkpoint_id} to chain {request.chain}: {'; '.join(problems)}. They changed "
            "after the trainer ended; train this split again",
            location=request.artifacts.path,
        )


def _append(work: Commit) -> None:
    """The commit. Whoever loses the race looks once more: the winner may have been itself, an attempt earlier."""
    try:
        entry = work.ledger.append(lambda state: _entry(work, state))
    except ChainMoved:
        _read_head(work)
        _recognise(work)
        if work.done is None:
            raise
        return
    assert isinstance(entry, Checkpoint)
    work.done = entry


def _entry(work: Commit, state: ChainState) -> Checkpoint:
    request = work.request
    _raise_if_moved(work.ledger, state, request)
    metrics, evaluation = request.metrics, request.evaluation or {}
    filled = state.head if request.fills else None
    kind = HoleFilled if filled else Checkpoint
    return kind(
        sequence=state.sequence + 1,
        previous=state.digest,
        at=work.now,
        by=request.by,
        id=request.checkpoint_id,
        parent_id=request.parent_id,
        watermark=filled.watermark if filled else request.split.end,
        split=request.split,
        artifacts=request.artifacts,
        metrics=_finite(metrics),
        evaluation=_finite(evaluation),
        not_finite={name: str(value) for name, value in {**metrics, **evaluation}.items() if not math.isfinite(value)},
        params=request.params,
        origin=request.origin,
        seconds=request.seconds,
    )


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _raise_if_moved(ledger: Ledger, state: ChainState, request: CommitRequest) -> None:
    head = state.head
    rewound = state.recently(request.checkpoint_id)
    if rewound and not rewound.on_line:
        raise CheckpointError(
            f"checkpoint {rewound.id} was committed to chain {request.chain} (sequence {rewound.sequence}) and then "
            "the chain was rewound to before it; nothing was committed. Train the split again"
        )
    if request.parent_id == (head.id if head else None):
        due = None if request.fills else state.watermark
        if due and request.split.start != due:
            trained = f"head {head.id} has trained up to" if head else "chain goes on from"
            raise CheckpointError(
                f"chain {request.chain}: the split starts at {request.split.start.isoformat()} but the {trained} "
                f"{due.isoformat()}; nothing was committed"
            )
        if request.fills and head is None:
            raise CheckpointError(f"chain {request.chain}: nothing is trained yet, so there is no hole to fill")
        return
    trained_from = f"checkpoint {request.parent_id}" if request.parent_id else "an empty chain"
    parent = state.recently(request.parent_id) if request.parent_id else None
    if head is None:
        now_there = "was rewound to before its first checkpoint"
    else:
        run = head.by.run_id or "unknown"
        now_there = f"has head {head.id} (sequence {head.sequence}, run {run}, {head.at.isoformat()})"
    raise ChainMoved(
        f"this attempt trained from {trained_from}, but chain {request.chain} in {ledger.store.url} {now_there}. "
        "Nothing was changed; the run that owns the head goes on",
        expected_sequence=parent.sequence if parent else 0,
        head_sequence=state.head_sequence,
    )


#: in this order; a test may stop after any prefix and commit again
STEPS: list[tuple[str, Callable[[Commit], None]]] = [
    ("check_request", _check_request),
    ("read_head", _read_head),
    ("recognise", _recognise),
    ("check_fence", _check_fence),
    ("check_gates", _check_gates),
    ("verify_artifacts", _verify_artifacts),
    ("append", _append),
]
