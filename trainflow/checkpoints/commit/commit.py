"""Commit a checkpoint: a list of named steps, of which one creates the ledger entry.

Everything before that step may be repeated and changes nothing; what comes after it may be left out, and is made up for
by the attempt that commits again. A run that was killed anywhere and commits again gets what it has concluded already.

The fence: only what comes next on a chain may be added to it. Gates may have it that another entry is created in place
of the checkpoint: one that stops the chain until a person decides, one that skips the split, or one that rewinds the
chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.commit_decision import (
    CommitRequest,
    Conclusion,
    has_moved,
    ledger_entry_of,
    raise_unless_next,
    stopped_error,
    verdict_of,
)
from trainflow.checkpoints.commit.gates import (
    CommitCheckpoint,
    RewindBy,
    Verdict,
    limit_rewind,
    rewind_floor,
)
from trainflow.checkpoints.commit.gates import StopChain as Stops
from trainflow.checkpoints.ledger.entries import Artifacts, Checkpoint, GateRefusal, Rewind, Skip, Stop
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.missing_checkpoints import raise_if_unrecorded
from trainflow.checkpoints.ledger.rules import split_problem
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.ledger_changes.promote import promote_head
from trainflow.checkpoints.ledger_changes.rewind import rewound_checkpoints
from trainflow.checkpoints.stages.dependents import references, register_origin
from trainflow.checkpoints.verified_artifacts import is_here, raise_if_damaged, seal_verified, verify_uploaded
from trainflow.errors import ArtifactCorrupt, ChainMoved, CheckpointNotFound, InputError, LedgerCorrupt
from trainflow.failpoint import hit
from trainflow.storage.store import Store

#: how a commit ends: committed, or what gates had it do in place of that
Done = Checkpoint | Skip | Rewind


@dataclass
class Commit:
    """A commit on its way. `done` is set as soon as its entry is in the ledger."""

    ledger: Ledger
    request: CommitRequest
    now: datetime
    #: raises where the samples are no longer those that were trained on
    check_samples: Callable[[], None] = lambda: None
    state: ChainState = field(default_factory=ChainState)
    verdict: Verdict = field(default_factory=CommitCheckpoint)
    #: where the verdict goes back to; None: to before the first checkpoint
    target: str | None = None
    done: Done | None = None


def commit(
    place: Store | Ledger, request: CommitRequest, now: datetime, *, check_samples: Callable[[], None] = lambda: None
) -> Done:
    """Commit to the chain in a store, or to one whose ledger is open, or return what this run concluded before.
    `check_samples` raises where the samples are no longer those
    that were trained on; it is asked last of all, and not about what was concluded before.

    Raises what it raises, ChainMoved when the parent is no longer the head, ChainStopped, ArtifactCorrupt, InputError
    for what can never be committed, StoreFailure. After a StoreFailure it may have been committed: commit again and
    see.
    """
    ledger = Ledger(place, request.chain) if isinstance(place, Store) else place
    work = Commit(ledger, request, now, check_samples)
    for name, step in STEPS:
        take_step(work, name, step)
    assert work.done is not None
    return work.done


Step = Callable[[Commit], None]


def take_step(work: Commit, name: str, step: Step) -> None:
    """Take one of `STEPS`; where it is known how the commit ends, only those that come after the entry."""
    if work.done is None or name in _AFTER_ENTRY:
        step(work)
    hit(f"commit: {name}")


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
    if has_moved(work.state, request):
        work.done = _given_up(work)


def _given_up(work: Commit) -> Done | None:
    """The skip or the rewind that was written in place of this very checkpoint."""
    parent_id = work.request.parent_id
    parent = work.ledger.find(parent_id) if parent_id else None
    for entry in work.ledger.since(parent.sequence if parent else 0):
        match entry:
            case Skip(refused=GateRefusal(refused)) | Rewind(refused=GateRefusal(refused)):
                if refused == work.request.checkpoint_id:
                    return entry
    return None


def _check_fence(work: Commit) -> None:
    _check_parent_is_there(work)
    raise_unless_next(work.ledger, work.state, work.request)


def _check_parent_is_there(work: Commit) -> None:
    """Raise where the parent is gone. It was the head when the run began: if no entry speaks of it now, its entry is
    lost."""
    parent_id, ledger = work.request.parent_id, work.ledger
    if not has_moved(work.state, work.request) or parent_id is None or ledger.find(parent_id) is not None:
        return
    raise_if_unrecorded(ledger, {summary.id for summary in ledger.kept()}, {parent_id})


def _judge(work: Commit) -> None:
    work.verdict = verdict_of(work.request, work.state, work.ledger.line)
    if isinstance(work.verdict, RewindBy):
        work.verdict = _with_target(work, work.verdict)


def _with_target(work: Commit, verdict: RewindBy) -> Verdict:
    """Find where it goes back to. What a person has decided stays, and so does what other chains were trained from: a
    person has to say what becomes of that."""
    line = work.ledger.line()
    since = next((summary.sequence for summary in line if summary.place == verdict.place), 0)
    floor = rewind_floor(line, since, work.ledger.since(since))
    allowed = limit_rewind(verdict, floor, [summary.place for summary in line])
    if not isinstance(allowed, RewindBy):
        return allowed
    target = next((summary for summary in line if summary.place == allowed.place), None)
    going = rewound_checkpoints(work.ledger, target)
    try:
        used = sorted(going & references(work.ledger.store, work.request.chain))
    except LedgerCorrupt as error:
        # of a chain that may have gone on from there
        return Stops((*allowed.reasons, f"it cannot be rewound: {error}"))
    if used:
        why = f"it cannot be rewound: another stage or branch went on from {', '.join(used)}"
        return Stops((*allowed.reasons, why))
    work.target = target.id if target else None
    return allowed


def _verify_parent(work: Commit) -> None:
    """What it was trained from is as it was committed, or was changed meanwhile, by the trainer perhaps: on this
    machine."""
    if not isinstance(work.verdict, CommitCheckpoint | Stops) or not is_here(work.ledger.store, work.request.artifacts):
        return
    for ledger, entry in _parents(work):
        raise_if_damaged(ledger.store, entry)


def _parents(work: Commit) -> Iterator[tuple[Ledger, Checkpoint]]:
    if work.state.head is not None:
        yield work.ledger, work.state.head
    origin = work.request.origin
    if origin is not None:
        upstream = Ledger(work.ledger.store, origin.chain)
        with suppress(CheckpointNotFound):  # pruned since: nothing is trained from it again
            yield upstream, upstream.checkpoint(origin.checkpoint_id)


def _verify_artifacts(work: Commit) -> None:
    request = work.request
    if not isinstance(work.verdict, CommitCheckpoint | Stops):
        return
    problems = verify_uploaded(work.ledger.store, request.artifacts, work.ledger.artifact_files())
    if problems:
        raise ArtifactCorrupt(
            f"cannot commit {request.checkpoint_id} to chain {request.chain}: {'; '.join(problems)}. They changed "
            "after the trainer ended; train this split again",
            location=request.artifacts.path,
        )


def _register(work: Commit) -> None:
    """Register the chain with its upstream, which keeps what this chain last went on from, and with the chains that
    have files of its checkpoints, before those could be pruned."""
    state, request = work.state, work.request
    needed = {request.origin.chain} if request.origin else set[ChainKey]()
    needed |= _owning_chains(request.artifacts)
    known = {request.chain, *(upstream.chain for upstream in state.upstreams)}
    if state.head is not None:
        known |= _owning_chains(state.head.artifacts)
    for chain in sorted(needed - known):
        register_origin(work.ledger.store, chain, request.chain)


def _owning_chains(artifacts: Artifacts) -> set[ChainKey]:
    return {ChainKey(*owner.split("/")[:3]) for owner in artifacts.owners}


def _check_origin(work: Commit) -> None:
    """Raise ArtifactCorrupt where files of another chain's checkpoint are named that its chain has pruned meanwhile. A
    chain that prunes it from now on finds that this one is registered, and leaves the files."""
    origin, own = work.request.origin, f"{work.request.chain.artifacts}/"
    known = () if work.state.head is None else work.state.head.artifacts.owners
    foreign = [each for each in work.request.artifacts.owners if not each.startswith(own) and each not in known]
    if not isinstance(work.verdict, CommitCheckpoint | Stops) or not foreign or origin is None:
        return
    if Ledger(work.ledger.store, origin.chain).find(origin.checkpoint_id) is None:
        raise ArtifactCorrupt(
            f"cannot commit {work.request.checkpoint_id} to chain {work.request.chain}: it shares files with "
            f"checkpoint {origin.checkpoint_id} of {origin.chain}, which was pruned meanwhile; train this split again",
            location=work.request.artifacts.path,
        )


def _append(work: Commit) -> None:
    """The commit. The loser of the race looks once more: the winner may have been itself, an attempt earlier."""
    try:
        entry = work.ledger.append(lambda state: _entry(work, state))
    except ChainMoved:
        _read_head(work)
        _recognise(work)
        if work.done is None:
            raise
        return
    if isinstance(entry, Stop):
        raise stopped_error(work.ledger, entry)
    work.done = entry


def _entry(work: Commit, state: ChainState) -> Conclusion:
    raise_unless_next(work.ledger, state, work.request)
    promoted = work.ledger.aliases_after_rewind(state, work.target) if isinstance(work.verdict, RewindBy) else {}
    return ledger_entry_of(work.request, work.verdict, state, work.now, work.target, promoted)


def _seal(work: Commit) -> None:
    """The head's files are committed and stay as they are. Not of who commits again much later: that may be pruned."""
    head = work.ledger.state().head
    if isinstance(work.done, Checkpoint) and head is not None and head.id == work.done.id:
        seal_verified(work.ledger.store, work.done)


def _promote(work: Commit) -> None:
    """Promote the head, and only it: an attempt that commits again much later names nothing that is passed."""
    done, request = work.done, work.request
    if not request.promotes or not isinstance(done, Checkpoint):
        return
    state = work.ledger.state()
    if state.head is None or state.head.id != done.id:
        return
    promote_head(work.ledger, done, request.promotes, request.by, work.now)


#: in this order; a test may stop after any prefix and commit again
STEPS: list[tuple[str, Step]] = [
    ("check_request", _check_request),
    ("read_head", _read_head),
    ("recognise", _recognise),
    ("check_fence", _check_fence),
    ("judge", _judge),
    ("verify_parent", _verify_parent),
    ("register", _register),
    ("verify_artifacts", _verify_artifacts),
    ("check_samples", lambda work: work.check_samples()),
    ("check_origin", _check_origin),
    ("append", _append),
    ("seal", _seal),
    ("promote", _promote),
]
_AFTER_ENTRY = ("seal", "promote")
