"""The rules every ledger entry must obey: why one may not follow a state, or a split does not tile its time. Pure.

The same rules refuse an entry before it is written and call a ledger corrupt when it is read.
"""

from __future__ import annotations

from datetime import datetime

from trainflow.checkpoints.ledger.entries import (
    Adoption,
    Artifacts,
    Checkpoint,
    Fork,
    HoleFilled,
    HoleRecord,
    LedgerEntry,
    Loss,
    Promotion,
    Prune,
    Regrid,
    Resume,
    Rewind,
    Skip,
    SplitSummary,
    Stop,
    TrainedPartition,
)
from trainflow.checkpoints.ledger.state import ChainState, KeptCheckpoints, PageSource, number_problem, without
from trainflow.samples.grid import Grid
from trainflow.samples.grid_change import GridChange, grid_change, what_changed
from trainflow.samples.partitions import label


def refusal(state: ChainState, entry: LedgerEntry, page_source: PageSource) -> str | None:
    """Why `entry` may not follow `state`; None when it may."""
    return refuses(state, KeptCheckpoints(state, page_source), entry)


def refuses(state: ChainState, kept: KeptCheckpoints, entry: LedgerEntry) -> str | None:
    """Why `entry` may not follow `state`; None when it may. `kept` stands for the state's checkpoints."""
    if entry.sequence != state.sequence + 1:
        return f"it calls itself number {entry.sequence}, number {state.sequence + 1} is due"
    if entry.previous != state.digest:
        return "it does not hold the digest of the entry before it"
    match entry:
        case Fork() | Adoption():
            return _start(entry)
        case Promotion():
            return _promotion(kept, entry)
        case Prune():
            return _prune(state, kept, entry)
        case HoleFilled():
            return _fill(state, entry) or _any_checkpoint(state, kept, entry)
        case Checkpoint():
            return _checkpoint(state, entry) or _any_checkpoint(state, kept, entry)
        case Skip():
            return _skip(state, entry)
        case Stop():
            return _stop(state, kept, entry)
        case Regrid():
            return _regrid(state, entry)
        case Resume():
            return _resume(state, entry)
        case Loss():
            return _loss(state, entry)
        case Rewind():
            return _rewind(state, kept, entry)


def _any_checkpoint(state: ChainState, kept: KeptCheckpoints, entry: Checkpoint) -> str | None:
    if kept.recently(entry.id):
        return f"checkpoint {entry.id} is in the ledger already"
    if not entry.artifacts.files:
        return "it has no artifacts"
    return (
        number_problem(entry, state.head_number, state.last_number)
        or _stop_problem(state, entry)
        or split_problem(entry.split)
        or _grid_problem(state, entry.grid)
        or sources_problem(state.head, entry.artifacts)
    )


def sources_problem(head: Checkpoint | None, artifacts: Artifacts) -> str | None:
    """Why files that are in other checkpoints' folders cannot be there. Of the same chain it is the head's files, or
    what these are themselves in: so each source leads to who wrote the bytes, and what is in use is known by the
    kept checkpoints alone."""
    if not any(file.source for file in artifacts.files):
        return None
    own = f"{artifacts.path.rpartition('/')[0]}/"
    files = head.artifacts.files if head else ()
    there = {(head.artifacts.place(each), each.size, each.sha256) for each in files if head}
    for file in artifacts.files:
        if not file.source:
            continue
        parts = file.source.split("/")
        if len(parts) < 6 or parts[3] != "artifacts" or {"", ".", ".."} & {*parts}:
            return f"its file {file.path} is in {file.source}, which is no file of a checkpoint"
        if file.source.startswith(own) and (file.source, file.size, file.sha256) not in there:
            return f"its file {file.path} is in {file.source}, which is no file of the checkpoint it was trained from"
    return None


def _stop_problem(state: ChainState, entry: Checkpoint) -> str | None:
    """Past a stop only what was refused can be committed, and only by a person's decision."""
    refused = state.stopped.id if state.stopped else None
    if refused and (entry.accepted is None or entry.id != refused):
        return f"the chain is stopped: gates refused {refused} and no person has decided about it"
    if entry.accepted and refused is None:
        return "it was accepted, yet the chain is not stopped"
    return None


def _checkpoint(state: ChainState, entry: Checkpoint) -> str | None:
    return (
        _parent_problem(state, entry.parent_id)
        or _begin_problem(state, entry)
        or _skips_problem(state, entry)
        or (_origin_problem(state, entry) if state.head is None else None)
    )


def _begin_problem(state: ChainState, entry: Checkpoint) -> str | None:
    due = state.watermark or (state.skips[0].start if state.skips else None)
    if due is not None and entry.split.start != due:
        whose = "the head's watermark" if state.head else "the chain's beginning"
        return f"its split starts at {label(entry.split.start)}, {whose} is {label(due)}"
    if entry.watermark != entry.split.end:
        return f"its watermark {label(entry.watermark)} is not the end of its split {label(entry.split.end)}"
    return None


def _skips_problem(state: ChainState, entry: Checkpoint) -> str | None:
    holes = [(hole.start, hole.end) for hole in entry.split.holes]
    for skip in state.skips:
        left = without((skip.start, skip.end), holes)
        if left:
            return f"its split does not record {span(*left[0])} as a hole, which a skip stepped over"
    return None


def _origin_problem(state: ChainState, entry: Checkpoint) -> str | None:
    """The first checkpoint's weights came from where the chain began, or from a stage that feeds it."""
    match state.start:
        case Fork(origin=fork) if entry.origin is None or (entry.origin.chain == fork.chain and entry.origin != fork):
            return f"its origin is {entry.origin and entry.origin.checkpoint_id}, the fork's is {fork.checkpoint_id}"
    return None


def _fill(state: ChainState, entry: HoleFilled) -> str | None:
    if state.head is None:
        return "it fills a hole of a chain that has no checkpoint"
    problem = _parent_problem(state, entry.parent_id)
    if problem:
        return problem
    if entry.watermark != state.head.watermark:
        own, due = label(entry.watermark), label(state.head.watermark)
        return f"it fills a hole, yet its watermark {own} is not the head's {due}"
    holes = [(each.hole.start, each.hole.end) for each in state.holes]
    left = without((entry.split.start, entry.split.end), holes)
    return f"it fills {span(*left[0])}, which is no hole of the line" if left else None


def _parent_problem(state: ChainState, parent_id: str | None) -> str | None:
    head = state.head.id if state.head else None
    return None if parent_id == head else f"its parent is {parent_id or 'none'}, the head is {head or 'none yet'}"


def _skip(state: ChainState, entry: Skip) -> str | None:
    problem = _parent_problem(state, entry.parent_id)
    if problem:
        return problem
    if entry.start >= entry.end:
        return f"{span(entry.start, entry.end)} is empty or ends before it starts"
    if state.edge is not None and entry.start != state.edge:
        edge = label(state.edge) if state.edge else "nothing"
        return f"it skips from {label(entry.start)}, the chain ends at {edge}"
    return None


def _stop(state: ChainState, kept: KeptCheckpoints, entry: Stop) -> str | None:
    if state.stopped:
        return f"the chain is stopped already, over {state.stopped.id}"
    if not entry.reasons:
        return "it stops for no reason"
    if not entry.artifacts.files:
        return "it has no artifacts"
    if kept.recently(entry.id):
        return f"it refuses checkpoint {entry.id}, which is in the ledger already"
    return (
        _parent_problem(state, entry.parent_id)
        or split_problem(entry.split)
        or sources_problem(state.head, entry.artifacts)
    )


def _regrid(state: ChainState, entry: Regrid) -> str | None:
    if state.stopped:
        return f"it changes the grid of a chain that is stopped over {state.stopped.id}"
    problem = _parent_problem(state, entry.parent_id)
    if problem or state.grid is None or state.edge is None:
        return problem or "it changes the grid of a chain of which none is recorded"
    if entry.watermark != state.edge:
        return f"it changes the grid at {label(entry.watermark)}, the chain ends at {label(state.edge)}"
    change = grid_change(state.grid, entry.grid, state.edge, state.first)
    if not change.fits:
        return f"it changes the grid to {entry.grid}, of which no partition begins at {label(state.edge)}"
    untrained = [(change.untrained.start, change.untrained.end)] if change.untrained else []
    recorded = [(hole.start, hole.end) for hole in entry.holes]
    return None if recorded == untrained else "it does not record as a hole what lies before where the chain began"


def _grid_problem(state: ChainState, grid: Grid | None) -> str | None:
    """A checkpoint that knows its grid has the chain's, or one that differs in nothing that matters."""
    change = None if grid is None or grid == state.grid else change_of(state, grid)
    return f"{what_changed(change)}, and no entry says so" if change else None


def change_of(state: ChainState, grid: Grid) -> GridChange | None:
    """How a table differs from what the chain was trained on; None: not in any way that matters, or nothing is
    recorded of that."""
    if state.grid is None or state.edge is None:
        return None
    change = grid_change(state.grid, grid, state.edge, state.first)
    return change if change.refused else None


def _resume(state: ChainState, entry: Resume) -> str | None:
    return _parent_problem(state, entry.parent_id) if state.stopped else "it resumes a chain that is not stopped"


def _loss(state: ChainState, entry: Loss) -> str | None:
    if entry.first != entry.sequence or entry.last < entry.first:
        return f"it accepts the loss of entries {entry.first} to {entry.last}, which are not those after it"
    return _parent_problem(state, entry.parent_id)


def _promotion(kept: KeptCheckpoints, entry: Promotion) -> str | None:
    if not entry.alias:
        return "it promotes to no name"
    found = kept.get(entry.checkpoint_id)
    if found is None:
        return f"it promotes {entry.checkpoint_id}, which is not a kept checkpoint of this chain"
    return None if found.on_line else f"it promotes {entry.checkpoint_id}, which a rewind left behind"


def _prune(state: ChainState, kept: KeptCheckpoints, entry: Prune) -> str | None:
    if not entry.checkpoint_ids:
        return "it prunes nothing"
    going = set(entry.checkpoint_ids)
    if len(going) != len(entry.checkpoint_ids):
        return "it prunes a checkpoint twice"
    if state.head and state.head.id in going:
        return f"it prunes the head {state.head.id}"
    for alias, name in state.promoted.items():
        if name in going:
            return f"it prunes {name}, which is promoted to {alias!r}"
    unknown = [name for name in entry.checkpoint_ids if kept.get(name) is None]
    return f"it prunes checkpoints that are not kept: {', '.join(unknown)}" if unknown else None


def _rewind(state: ChainState, kept: KeptCheckpoints, entry: Rewind) -> str | None:
    target, head = entry.to_checkpoint_id, state.head.id if state.head else None
    if target == head and state.skips:
        # to where the head is: takes back the skips after it
        return None
    if head is None:
        return "it rewinds a chain that has no head"
    if target == head:
        return f"it rewinds to {target}, which is the head and not an ancestor of it"
    found = kept.get(target) if target else None
    if target and found is None:
        return f"it rewinds to {target}, which is not a kept checkpoint of this chain"
    if found and not found.on_line:
        return f"it rewinds to {target}, which is not an ancestor of the head {head}"
    return _falls_back(kept, entry, found.sequence if found else 0)


def _falls_back(kept: KeptCheckpoints, entry: Rewind, last: int) -> str | None:
    """Reason against a rewind that gives an alias back to a checkpoint that is not on the line then."""
    for alias, name in entry.promoted.items():
        found = kept.get(name)
        if found is None or not found.on_line or found.sequence > last:
            return f"it gives {alias!r} back to {name}, which is no kept checkpoint of what is left of the line"
    return None


def _start(entry: Fork | Adoption) -> str | None:
    if entry.sequence != 1:
        return "a fork or an adoption is the first entry of a ledger or none"
    if isinstance(entry, Adoption) and not entry.files:
        return "it adopts no file"
    return None


def split_problem(split: SplitSummary) -> str | None:
    """Why a split does not tile its time; None when it does."""
    if not split.partitions:
        return "the split has no partition"
    tiles: list[TrainedPartition | HoleRecord] = sorted(
        [*split.partitions, *split.holes], key=lambda tile: (tile.start, tile.end)
    )
    edge = split.start
    for tile in tiles:
        if tile.start >= tile.end:
            return f"{span(tile.start, tile.end)} in the split is empty or ends before it starts"
        if tile.start != edge:
            what = "overlaps what comes before" if tile.start < edge else "leaves a gap that no hole records"
            return f"{span(tile.start, tile.end)} in the split {what} (expected start {label(edge)})"
        edge = tile.end
    if edge != split.end:
        return f"the split says it ends at {label(split.end)}, its last piece ends at {label(edge)}"
    if tiles[-1] in split.holes:
        return "the split ends with a hole: a watermark may only pass a hole together with a partition after it"
    return None


def span(start: datetime, end: datetime) -> str:
    """A stretch for people."""
    return f"[{label(start)}, {label(end)})"
