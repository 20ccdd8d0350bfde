"""What to train on next: the partitions after the watermark that are ready, up to the limits.

`decide` is the rule, over what an inventory says; it reads no clock and keeps no state, so every caller gets the same
answer, and every wait is measured from facts of the storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import msgspec

from trainflow.clock import ensure_utc
from trainflow.errors import SampleCheckFailed, SampleDamaged, SampleError, SampleUnreadable
from trainflow.humanize import counted
from trainflow.samples.partitions import after_watermark, at_or_after, containing, end_of, label, limit, shift
from trainflow.samples.spec import Samples, SplitLimits
from trainflow.samples.splits.gap_policy import LOOK_AHEAD, TableView, Waiting, judge_gap, ready_later
from trainflow.samples.splits.split import Split, SplitBuilder
from trainflow.samples.splits.split_content import Columns, Hole
from trainflow.samples.table.empty_table import describe_folders, unmarked
from trainflow.samples.table.inventory import Inventory, open_inventory
from trainflow.samples.table.readiness import PartitionState, Readiness
from trainflow.samples.table.table_formats import refuse_above, refuse_at


class SplitFound(msgspec.Struct, frozen=True):
    """A split to train on."""

    split: Split


class CaughtUp(msgspec.Struct, frozen=True):
    """Answer that there is nothing after the watermark."""

    watermark: datetime | None
    #: one sentence for people
    reason: str
    #: the table has an end and it is reached: nothing will ever come
    finished: bool = False
    #: no sample that comes changes that, a new bound does
    bounded: bool = False
    #: nothing was ever trained, and there is not a single partition
    nothing: bool = False
    #: the partition whose arrival changes that, where it is not the next one
    wait_for: datetime | None = None
    #: with `bounded`: what policy steps over up to the bound; the split that comes after it records it
    holes: tuple[Hole, ...] = ()


NextSplit = SplitFound | Waiting | CaughtUp


def next_split(
    samples: Samples,
    watermark: datetime | None,
    limits: SplitLimits | None,
    now: datetime,
    root: Path | None,
    *,
    bounds: Sequence[datetime] = (),
    columns: Columns = (),
) -> NextSplit:
    """The split that comes after `watermark` (None: nothing was trained yet). Relative paths belong to `root`.

    `bounds`, in order: the split ends at or before the first of them that its first partition fits before, so it never
    crosses one, and nothing is taken that ends after the last. `columns` are those of the split before it.

    Raises SampleGap (policy says fail), SampleCheckFailed, SampleUnreadable, SamplesRefused, InputError.
    """
    seen = open_inventory(samples, root, now)
    # a look at a disk costs nothing; elsewhere it is taken when the chain begins, and by each start
    look = watermark is None or not seen.storage.remote
    if look:
        refuse_above(seen.storage, seen.pattern)
    found = decide(samples, watermark, limits or SplitLimits(), seen, bounds, columns)
    if isinstance(found, CaughtUp) and (found.nothing or _has_gone(found, seen)):
        what = describe_folders(samples, seen.storage, seen.pattern)
        yet = "yet" if watermark is None else "any more"
        return msgspec.structs.replace(found, nothing=True, reason=f"nothing is there {yet} for {samples.path}: {what}")
    if watermark is None and isinstance(found, Waiting):
        return _never_marked(samples, found, seen)
    if look and isinstance(found, SplitFound):
        refuse_at(seen.storage, seen.pattern, found.split.files[0].path)
    return found


def _never_marked(samples: Samples, found: Waiting, seen: Inventory) -> Waiting | CaughtUp:
    """Before anything was trained: say where no partition that is over has its marker, and that there is nothing where
    it is too late for that (as long as a partition lasts, and ready.unfinished)."""
    before = shift(samples, after_watermark(samples, None), -1)
    starts = [each for each in islice(seen.later(before), LOOK_AHEAD) if end_of(samples, each) <= seen.now]
    states = seen.states(starts)
    reason = unmarked(samples, states, seen.storage, seen.pattern)
    if reason is None:
        return found
    lasts = max((end_of(samples, each) - each).total_seconds() for each in starts)
    late = seen.now - timedelta(seconds=max(lasts, samples.ready.unfinished_seconds))
    if all(each.changed is not None and each.changed <= late for each in states):
        return CaughtUp(None, reason, nothing=True)
    return msgspec.structs.replace(found, reason=f"{found.reason}; {reason}")


def _has_gone(found: CaughtUp, seen: Inventory) -> bool:
    """Whether the folder of a table that was trained on is gone: a disk that is not mounted, say. An object store has
    no folders; there the last partition may simply have expired."""
    return not (found.finished or found.bounded or seen.storage.remote or seen.table_exists())


def decide(
    samples: Samples,
    watermark: datetime | None,
    limits: SplitLimits,
    seen: TableView,
    bounds: Sequence[datetime] = (),
    columns: Columns = (),
) -> NextSplit:
    """The rule. A split ends at the first limit, and before the first partition that is not ready or not good, or whose
    columns do not go together with those before it.

    A partition without a file belongs to the split of what comes after it: nothing is trained on no rows alone.
    """
    watermark = None if watermark is None else ensure_utc(watermark)
    first, end = after_watermark(samples, watermark), _limit_with_lag(samples)
    building = SplitBuilder(
        samples, watermark if watermark is not None and watermark < first else first, seen.unified(columns)
    )
    if building.start < first:
        building.step_over(building.start, first, f"before the table's start {label(first)}")
    cursor = _caught_up_to(samples, first, seen, bounds)
    if cursor > first:
        bound = timedelta(seconds=samples.catch_up_seconds or 0)
        building.step_over(first, cursor, f"older than {bound} when newer samples were ready (catch_up)")
    while (end is None or cursor < end) and not building.full(limits):
        found = _step(samples, cursor, watermark, limits, seen, bounds, building)
        if isinstance(found, datetime):
            cursor = found
            continue
        if building.has_files:  # train on what is there; the next split starts here, and says what is wrong
            break
        if isinstance(found, SampleError):
            raise found
        if isinstance(found, CaughtUp) and building.taken:
            found = msgspec.structs.replace(_after_empty(found, building), wait_for=found.wait_for or cursor)
        return _with_holes(found, building, bounds) if isinstance(found, CaughtUp) and found.bounded else found
    if not building.has_files:
        end_reached = CaughtUp(watermark, "the end of the samples (samples.end) is reached", finished=True)
        return _after_empty(end_reached, building)
    return SplitFound(building.split())


def _step(
    samples: Samples,
    cursor: datetime,
    watermark: datetime | None,
    limits: SplitLimits,
    seen: TableView,
    bounds: Sequence[datetime],
    building: SplitBuilder,
) -> datetime | Waiting | CaughtUp | SampleError:
    """Take or step over the partition at `cursor`: where it goes on, or why it does not."""
    if bounds and not building.fits(end_of(samples, cursor), bounds):
        reason = f"the upstream has come to {label(bounds[-1])}, and there is nothing more to train on before that"
        return CaughtUp(watermark, reason, bounded=True)
    state = seen.state(cursor)
    if state.damaged is not None:
        state.damaged.partition = cursor
        return _unfinished(samples, state, state.damaged, seen.now) or state.damaged
    if state.presence is not Readiness.READY:
        gap = judge_gap(samples, state, seen)
        if isinstance(gap, Hole):
            building.step_over(gap.start, gap.end, gap.reason)
            return gap.end
        nothing = watermark is None and not building.taken
        return CaughtUp(watermark, gap, nothing=nothing) if isinstance(gap, str) else gap
    early = _too_early(samples, cursor, watermark, seen)
    if early is not None:
        return early
    try:
        content = seen.content(cursor)
        taken = building.take(content, limits)
    except SampleDamaged as error:
        return _unfinished(samples, state, error, seen.now) or error
    except (SampleCheckFailed, SampleUnreadable) as error:
        return error
    return content.end if taken else CaughtUp(watermark, "a limit is reached")


def _unfinished(samples: Samples, state: PartitionState, error: SampleDamaged, now: datetime) -> Waiting | None:
    """A file that cannot be read is being written, whatever the marker says, until the partition has stayed the same
    for long enough; None: it has, and the file is damaged."""
    if state.changed is None:
        return None
    give_up_at = state.changed + timedelta(seconds=samples.ready.unfinished_seconds)
    if now >= give_up_at:
        return None
    reason = (
        f"the partition {label(state.start)} is not completely written, reading it failed: {error.problem}; refused "
        f"at {label(give_up_at)} if nothing changes until then (ready.unfinished)"
    )
    return Waiting(state.start, reason, give_up_at, state.listing)


def _after_empty(found: CaughtUp, building: SplitBuilder) -> CaughtUp:
    """Say that the last partitions hold no row: they are not trained although they are there."""
    if not building.taken or found.bounded:
        return found
    first, count = label(building.taken[0].start), len(building.taken)
    empty = f"the {counted(count, 'partition')} from {first} on are" if count > 1 else f"{first} is"
    files = f"a marker and no file that matches {building.samples.files}"
    return msgspec.structs.replace(found, reason=f"{found.reason}; {empty} empty ({files}): no row to train on")


def _with_holes(found: CaughtUp, building: SplitBuilder, bounds: Sequence[datetime]) -> CaughtUp:
    """A gap may go on beyond the bound: what comes then is for later."""
    # what is stepped over ends where a partition does
    last = containing(building.samples, bounds[-1]) or building.start
    empty = [Hole(each.start, each.end, "empty: it has its marker and no file") for each in building.taken]
    stepped_over = sorted((*building.holes, *empty, *building.pending), key=lambda hole: hole.start)
    holes = [Hole(each.start, min(each.end, last), each.reason) for each in stepped_over if each.start < last]
    return msgspec.structs.replace(found, holes=tuple(holes))


def _limit_with_lag(samples: Samples) -> datetime | None:
    """The end of what can ever be taken: the last ones of a table have no later ones that they could wait for."""
    end = limit(samples)
    return end if end is None or not samples.lag else shift(samples, at_or_after(samples, end), -samples.lag)


def _too_early(
    samples: Samples, start: datetime, watermark: datetime | None, seen: TableView
) -> Waiting | CaughtUp | None:
    """Reason, for a table with a lag, why a ready partition does not count yet. What comes later than the one that is
    due counts as well: a gap there is no reason to wait for ever."""
    if not samples.lag:
        return None
    due = shift(samples, start, samples.lag)
    first, ready = ready_later(shift(samples, due, -1), seen)
    if ready is not None:
        return None
    reason = f"the partition {label(start)} counts when {label(due)} is ready too (lag {samples.lag})"
    return Waiting(first, reason) if first is not None else CaughtUp(watermark, reason, wait_for=due)


def _caught_up_to(samples: Samples, first: datetime, seen: TableView, bounds: Sequence[datetime]) -> datetime:
    """Where training goes on after an outage. Counted from the newest samples and not from the present: how late
    it is asked must not decide what is trained on. Counted from the newest that has rows and may be taken, where there
    is a lag or a bound: else all that may be could be too old, and nothing would ever be trained."""
    if samples.catch_up_seconds is None:
        return first
    upto = _last_before(samples, bounds[-1]) if bounds else None
    newest = seen.newest(first, None if samples.lag else upto)
    if newest is not None and samples.lag:
        taken_up_to = shift(samples, newest, -samples.lag)
        newest = seen.newest(first, taken_up_to if upto is None else min(taken_up_to, upto))
    if newest is None:
        return first
    bound = end_of(samples, newest) - timedelta(seconds=samples.catch_up_seconds)
    return min(newest, max(first, at_or_after(samples, bound)))


def _last_before(samples: Samples, bound: datetime) -> datetime:
    """Start of the last partition that ends at or before `bound`."""
    inside = shift(samples, at_or_after(samples, bound), -1)
    return inside if end_of(samples, inside) <= bound else shift(samples, inside, -1)
