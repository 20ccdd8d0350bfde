"""A chain's partitions as a browser is sent them: ranges as numbers, a few kilobytes for 200,000 of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from trainflow.checkpoints.ledger.state import ChainState
from trainflow.insight.chains.partition_states import PartitionRanges, PartitionStatus
from trainflow.samples.partitions import place_of, shift
from trainflow.samples.spec import Samples

#: start, exclusive end, and what lies there
SeenStretch = tuple[datetime, datetime, PartitionStatus]

STATES = tuple(PartitionStatus)
_CODES = {each.value: code for code, each in enumerate(STATES)}
#: in the table beside the drawing, so many ranges at the most
MOST_IN_TABLE = 150

#: what each state is, for people
MEANING = {
    PartitionStatus.INHERITED: "before the chain began",
    PartitionStatus.ABSENT: "nothing is there",
    PartitionStatus.ARRIVING: "files are there, not all that is asked for",
    PartitionStatus.READY: "ready, not trained yet",
    PartitionStatus.REFUSED: "a gate refused it: a person decides",
    PartitionStatus.TRAINING: "a run is training on it",
    PartitionStatus.TRAINED: "trained",
    PartitionStatus.HOLE: "missing, stepped over",
    PartitionStatus.LATE: "a hole that has arrived since",
    PartitionStatus.REPUBLISHED: "trained, published again since",
    PartitionStatus.LEFT_OUT: "left out on purpose",
    PartitionStatus.UNDONE: "trained by checkpoints that a rewind left behind",
}


class TableRange(NamedTuple):
    """A range in the table beside the drawing; `end` is exclusive."""

    start: datetime
    end: datetime
    partitions: int
    state: str


def wire(
    found: PartitionRanges, samples: Samples, marks: Iterable[tuple[datetime, str, str, str]] = ()
) -> dict[str, Any]:
    """What the drawing is made of. `marks`: when, which kind, what it says, and where it leads (relative to the root
    of the pages; empty: nowhere)."""
    return {
        "origin": int(found.first.timestamp() * 1000),
        "seconds": samples.length_seconds,
        "months": samples.length_months,
        "count": found.count,
        "entries": found.entries,
        "states": [each.value for each in STATES],
        "ranges": compact(found.ranges),
        "marks": [[place_of(samples, at), kind, text, link] for at, kind, text, link in marks],
    }


def still_true(seen: Iterable[SeenStretch], state: ChainState) -> list[SeenStretch]:
    """What a look at the samples found, as far as the chain has not gone on since: what it says now counts."""
    edge, holes = state.edge, [each.hole for each in state.holes]
    found: list[SeenStretch] = []
    for start, end, status in seen:
        if status is PartitionStatus.LATE:
            fits = any(hole.start <= start < hole.end for hole in holes)
        elif status is PartitionStatus.REPUBLISHED:
            fits = state.watermark is not None and start < state.watermark
        else:
            start = start if edge is None else max(start, edge)
            fits = start < end
        if fits:
            found.append((start, end, status))
    return found


def compact(ranges: Sequence[tuple[int, int, str]]) -> list[int]:
    """Ranges in a row as three numbers each: the gap before it, its length, its state."""
    numbers: list[int] = []
    reached = 0
    for first, length, state in ranges:
        numbers += (first - reached, length, _CODES[state])
        reached = first + length
    return numbers


def counts(found: PartitionRanges) -> dict[PartitionStatus, int]:
    """How many partitions are in each state, in the order of the states."""
    added = dict.fromkeys(STATES, 0)
    for _, length, state in found.ranges:
        added[PartitionStatus(state)] += length
    added[PartitionStatus.ABSENT] += found.count - sum(length for _, length, _ in found.ranges)
    return {state: count for state, count in added.items() if count}


def table(found: PartitionRanges, samples: Samples) -> list[TableRange]:
    """The newest ranges, newest first, what is trained among them."""
    newest = list(found.ranges)[-MOST_IN_TABLE:]
    return [
        TableRange(shift(samples, found.first, first), shift(samples, found.first, first + length), length, state)
        for first, length, state in reversed(newest)
    ]
