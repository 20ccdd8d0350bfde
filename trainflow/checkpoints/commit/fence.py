"""The fence: only what comes next on a chain may be added to it, and a commit that lost is told to which."""

from __future__ import annotations

from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.ledger.entries import Stop
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.ledger.rules import change_of
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.errors import ChainMoved, ChainStopped, CheckpointError
from trainflow.samples.partitions import label


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
