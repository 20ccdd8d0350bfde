"""What it means for a chain that the grid of its samples is another one than it was trained on. Pure.

- `end`, `files`, readiness, checks, policies: none of the grid's business.
- The path is only spelt differently: nothing.
- `start` later, on a start of the old grid: nothing; what was trained stays, what is stepped over becomes a hole.
- `start` earlier than where the chain began: what lies before was never trained.
- `length`, time zone, or a `start` between the old ones: partitions would be left out, or come twice.
- `path`: it is another table, or the same one somewhere else.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from trainflow.clock import ensure_utc
from trainflow.samples.grid import Grid
from trainflow.samples.partitions import containing, is_boundary, label, length_label, origin
from trainflow.samples.pattern import path_pattern
from trainflow.samples.splits.split_content import Hole

#: of the hole that lies before where a chain began
EARLIER = "before where the chain began: the samples start earlier now"


class GridChange(msgspec.Struct, frozen=True):
    """What is another one, and whether a chain that ends at `edge` can go on with it from there."""

    old: Grid
    new: Grid
    edge: datetime
    #: another path
    elsewhere: bool = False
    #: partitions begin or end at other times
    recut: bool = False
    #: what the table has now before where the chain began
    untrained: Hole | None = None
    #: a partition of the new grid begins where the chain ends
    fits: bool = True

    @property
    def refused(self) -> bool:
        """Whether nothing may be trained until a person has decided what this means."""
        return self.elsewhere or self.recut or self.untrained is not None


def grid_change(old: Grid, new: Grid, edge: datetime, first: datetime | None = None) -> GridChange:
    """Compare the grid a chain was trained on with another one. `edge`: the exclusive end of what it has trained or
    stepped over; `first`: where it began, when that was with its table's first partition (None: it went on from
    somewhere else, so what lies before is not its business)."""
    edge, start = ensure_utc(edge), origin(new)
    return GridChange(
        old,
        new,
        edge,
        elsewhere=not _same_place(old.path, new.path),
        recut=_steps(old) != _steps(new) or not is_boundary(old, start),
        untrained=Hole(start, ensure_utc(first), EARLIER) if first is not None and start < ensure_utc(first) else None,
        fits=edge <= start or is_boundary(new, edge),
    )


def sentence_about(change: GridChange, name: str, fork: str) -> str:
    """What changed, and the ways out; `name`: what commands call the chain, `fork`: what the one that forks it does."""
    return f"{what_changed(change)}. Put that back, or: {'; '.join(ways_out(change, name, fork))}"


def what_changed(change: GridChange) -> str:
    """Clauses for people."""
    old, new = change.old, change.new
    said = []
    if change.elsewhere:
        said.append(f"their path was {old.path} and is {new.path}")
    if _steps(old) != _steps(new):
        said.append(f"a partition was {_length(old)} long and is {_length(new)}")
    elif change.recut:
        said.append(f"partitions of {length_label(old)} began at {label(old.start)} and begin at {label(new.start)}")
    if change.untrained is not None:
        begun = label(change.untrained.end)
        said.append(
            f"they start at {label(change.untrained.start)}, the chain began at {begun}, and what lies between was "
            "never trained"
        )
    return f"the samples are not those that the chain was trained on: {'; '.join(said)}"


def ways_out(change: GridChange, name: str, fork: str) -> list[str]:
    """What a person can do, as commands."""
    ways = []
    if not change.fits:
        inside = containing(change.new, change.edge)
        ways.append(
            f"'trainflow checkpoints rewind {name} --before DATE' to where a partition begins in both (the chain ends "
            f"at {label(change.edge)}, inside of {label(inside or change.new.start)}), then 'trainflow regrid {name}'"
        )
    elif change.elsewhere:
        ways.append(
            f"'trainflow regrid {name}' where it is the same table on another disk or store: it compares the content "
            "of what was trained"
        )
    elif change.recut:
        ways.append(f"'trainflow regrid {name}' goes on with the new partitions from {label(change.edge)} on")
    else:
        ways.append(
            f"'trainflow repair {name} --earlier' records that as a hole and trains it, on top of the head: later than "
            "what comes after it in time"
        )
    ways.append(f"'trainflow checkpoints fork {fork} --branch NAME' goes on beside the chain")
    ways.append("another name for the pipeline begins a new chain")
    return ways


def _steps(grid: Grid) -> tuple[int, int, str]:
    return grid.length_seconds, grid.length_months, grid.zone


def _length(grid: Grid) -> str:
    return length_label(grid) if grid.zone == "UTC" else f"{length_label(grid)} ({grid.zone})"


def _same_place(old: str, new: str) -> bool:
    if old == new:
        return True
    first, second = path_pattern(old), path_pattern(new)
    return (first.format, first.names_a_file) == (second.format, second.names_a_file)
