"""What a person may decide about a stopped chain: accept the checkpoint, skip its split, go back, or try again.

Each is one ledger entry and thereby the end of the stop; made twice, it is refused. `refused` is the checkpoint that
the person looked at: a chain that is stopped over another one meanwhile is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from trainflow.checkpoints.commit.commit_decision import accepted_checkpoint
from trainflow.checkpoints.ledger.entries import (
    Acceptance,
    Author,
    Checkpoint,
    GateRefusal,
    Resume,
    Rewind,
    Skip,
    Stop,
)
from trainflow.checkpoints.ledger.ledger_writer import Addition, Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.checkpoints.ledger_changes.rewind import rewound_checkpoints
from trainflow.checkpoints.stages.dependents import references
from trainflow.checkpoints.stages.upstream_rewinds import trained_from_rewound
from trainflow.checkpoints.verified_artifacts import seal_verified, verify_uploaded
from trainflow.errors import ArtifactCorrupt, ChainMoved, CheckpointError, InputError
from trainflow.humanize import counted


def accept(ledger: Ledger, refused: str, *, person: str, now: datetime, reason: str = "") -> Checkpoint:
    """Commit the checkpoint that gates refused; nothing is trained again.

    Raises ArtifactCorrupt when its files are not there as they were, ChainMoved when the stop is over, InputError when
    the upstream of its stage has undone what it was trained from: the next run would take it back.
    """
    stop = _current_stop(ledger, ledger.state(), refused)
    if stop.origin is not None and trained_from_rewound(ledger, stop):
        raise InputError(
            f"checkpoint {stop.id} of chain {ledger.chain} cannot be accepted: it was trained from "
            f"{stop.origin.checkpoint_id} of {stop.origin.chain}, which was undone since. Train it again: "
            f"'trainflow resume {ledger.chain.arguments}' without an option"
        )
    problems = verify_uploaded(ledger.store, stop.artifacts)
    if problems:
        raise ArtifactCorrupt(
            f"checkpoint {stop.id} of chain {ledger.chain} cannot be accepted: {'; '.join(problems)}. Train it again: "
            f"'trainflow resume {ledger.chain.arguments}' without an option",
            location=stop.artifacts.path,
        )
    made = _append(
        ledger,
        refused,
        lambda state, stop: accepted_checkpoint(
            stop, state, Acceptance(list(stop.reasons), person, reason, stop.misnamed), now
        ),
    )
    if not ledger.dry_run:
        seal_verified(ledger.store, made)
    return made


def skip_refused(ledger: Ledger, refused: str, *, by: Author, now: datetime, reason: str = "") -> Skip:
    """Step over the split that was refused. Raises ChainMoved; InputError for one that fills holes."""

    def make(state: ChainState, stop: Stop) -> Skip:
        if stop.fills:
            raise InputError(f"chain {ledger.chain}: {stop.id} fills a hole, which stays one without it: resume")
        return Skip(
            **state.header(by, now),
            parent_id=stop.parent_id,
            start=state.edge or stop.split.start,
            end=stop.split.end,
            reason=reason or "; ".join(stop.reasons),
            refused=_refusal(stop),
        )

    return _append(ledger, refused, make)


def rewind_refused(ledger: Ledger, refused: str, count: int, *, by: Author, now: datetime, reason: str = "") -> Rewind:
    """Go back `count` checkpoints and train forward again from there.

    Raises ChainMoved, InputError when there are not so many, or when another stage or branch went on from one of them.
    """
    _current_stop(ledger, ledger.state(), refused)
    target = _target(ledger, count)

    def make(state: ChainState, stop: Stop) -> Rewind:
        return Rewind(
            **state.header(by, now),
            to_checkpoint_id=target,
            reason=reason or "; ".join(stop.reasons),
            cause="person",
            refused=_refusal(stop),
            promoted=ledger.aliases_after_rewind(state, target),
        )

    return _append(ledger, refused, make)


def retry_refused(ledger: Ledger, refused: str, *, by: Author, now: datetime, reason: str = "") -> Resume:
    """Give up what was refused, and train the split again. Raises ChainMoved."""

    def make(state: ChainState, stop: Stop) -> Resume:
        return Resume(
            **state.header(by, now),
            parent_id=stop.parent_id,
            reason=reason,
        )

    return _append(ledger, refused, make)


def _append(ledger: Ledger, refused: str, make: Callable[[ChainState, Stop], Addition]) -> Addition:
    return ledger.append(lambda state: make(state, _current_stop(ledger, state, refused)))


def _current_stop(ledger: Ledger, state: ChainState, refused: str) -> Stop:
    stop = state.stopped
    if stop is None or stop.id != refused:
        now_there = f"stopped over {stop.id}" if stop else "not stopped any more"
        raise ChainMoved(
            f"chain {ledger.chain} is {now_there}: nothing was decided about {refused}. Look again",
            expected_sequence=state.head_sequence,
            head_sequence=state.head_sequence,
        )
    return stop


def _refusal(stop: Stop) -> GateRefusal:
    return GateRefusal(stop.id, stop.split.start, stop.split.end, list(stop.reasons))


def _target(ledger: Ledger, count: int) -> str | None:
    line = ledger.line()
    length = line[-1].place if line else 0
    if not 1 <= count <= length:
        raise InputError(
            f"chain {ledger.chain} cannot be rewound by {counted(count, 'checkpoint')}: its line has {length}"
        )
    target = next((summary for summary in line if summary.place == length - count), None)
    if target is None and count < length:
        raise CheckpointError(f"chain {ledger.chain}: the files of the checkpoint {count} back were pruned")
    used = rewound_checkpoints(ledger, target) & references(ledger.store, ledger.chain)
    if used:
        raise InputError(
            f"chain {ledger.chain} cannot be rewound by {counted(count, 'checkpoint')}: another stage or "
            f"branch went on from "
            f"{', '.join(sorted(used))}; 'trainflow checkpoints rewind {ledger.chain.arguments} "
            "--cascade' rewinds them as well"
        )
    return target.id if target else None
