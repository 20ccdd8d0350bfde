"""Partitions as a browser is sent them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from trainflow.checkpoints.ledger.entries import Adoption, Author, HoleRecord
from trainflow.checkpoints.ledger.state import ChainState, LineHole
from trainflow.insight.chains.partition_states import PartitionRanges, PartitionStatus
from trainflow.pages.calendar import STATES, compact, counts, still_true, wire
from trainflow.samples.spec import Samples
from trainflow.testing.chains import day

SAMPLES = Samples("d/{start:%Y-%m-%dT%H%M}/", day(0), length_seconds=300)


def _ranges(lengths: list[tuple[int, int, int]]) -> list[tuple[int, int, str]]:
    found, reached = [], 0
    for gap, length, state in lengths:
        found.append((reached + gap, length, STATES[state].value))
        reached += gap + length
    return found


def _found(ranges: list[tuple[int, int, str]], count: int) -> PartitionRanges:
    return PartitionRanges(
        pipeline="p",
        stage="main",
        branch="main",
        entries=3,
        head=2,
        watermark=None,
        first=day(0),
        length="5m",
        count=count,
        ranges=ranges,
        marks=[],
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(0, len(STATES) - 1)), max_size=30))
def test_ranges_are_read_as_they_were_written(lengths: list[tuple[int, int, int]]) -> None:
    ranges = _ranges(lengths)
    numbers, place, read = compact(ranges), 0, []
    for at in range(0, len(numbers), 3):
        gap, length, code = numbers[at : at + 3]
        read.append((place + gap, length, STATES[code].value))
        place += gap + length
    assert read == ranges
    count = place + 5
    assert sum(counts(_found(ranges, count)).values()) == count


def test_two_hundred_thousand_partitions_are_less_than_fifty_kilobytes() -> None:
    ranges = _ranges([(0, 360, 6), (0, 3, 7), (0, 1, 9)] * 550)
    marks = [(day(place), "promotion", "promoted checkpoint 7 to champion", "") for place in range(40)]
    body = msgspec.json.encode(wire(_found(ranges, 200_200), SAMPLES, marks))
    assert len(body) < 50 * 1024


def test_look_that_is_old_does_not_cover_what_was_trained_since() -> None:
    state = ChainState(
        start=Adoption(sequence=1, previous="", at=day(0), by=Author(), uri="x", watermark=day(6), files=[]),
        recorded=[LineHole(1, HoleRecord(day(2), day(3), "missing"))],
    )
    seen = [
        (day(1), day(2), PartitionStatus.LATE),
        (day(2), day(3), PartitionStatus.LATE),
        (day(4), day(5), PartitionStatus.REPUBLISHED),
        (day(4), day(5), PartitionStatus.READY),
        (day(5), day(8), PartitionStatus.READY),
        (day(7), day(8), PartitionStatus.REPUBLISHED),
    ]
    assert still_true(seen, state) == [
        (day(2), day(3), PartitionStatus.LATE),
        (day(4), day(5), PartitionStatus.REPUBLISHED),
        (day(6), day(8), PartitionStatus.READY),
    ]
