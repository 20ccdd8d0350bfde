"""Splits tile the timeline, whatever is there, however they are limited, however often they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from trainflow.samples.grid import check_table
from trainflow.samples.partitions import (
    at_or_after,
    containing,
    count_between,
    end_of,
    is_boundary,
    partitions_between,
    place_of,
    shift,
)
from trainflow.samples.spec import GapPolicy, Samples, SplitLimits
from trainflow.samples.splits.gap_policy import Waiting
from trainflow.samples.splits.late_partitions import arrived, next_repair, without_stretch
from trainflow.samples.splits.next_split import SplitFound, decide
from trainflow.samples.splits.split import Split
from trainflow.samples.splits.split_content import Columns, SampleFile, SplitPartition, partition_of
from trainflow.samples.splits.split_xcom import split_from_xcom, split_to_xcom
from trainflow.samples.table.readiness import PartitionState, Readiness
from trainflow.storage.store import StoreFile
from trainflow.testing.chains import NoColumnUnifier

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Imagined:
    """Hourly; per partition its rows, 0: it is empty, None: missing, -1: being written."""

    def __init__(self, hours: list[int | None]) -> None:
        self.hours, self.now = hours, NOW

    def state(self, start: datetime) -> PartitionState:
        number = (start - START) // HOUR
        rows = self.hours[number] if number < len(self.hours) else None
        if rows is None:
            return PartitionState(start, Readiness.MISSING)
        files = (StoreFile("a.parquet", 10 * rows),) if rows > 0 else ()
        presence = Readiness.NOT_READY if rows < 0 else Readiness.READY
        return PartitionState(start, presence, files=files, changed=NOW - HOUR)

    def later(self, start: datetime) -> Iterator[datetime]:
        first = (start - START) // HOUR + 1
        return (START + n * HOUR for n in range(first, len(self.hours)) if self.hours[n] is not None)

    def newest(self, after: datetime, upto: datetime | None = None) -> datetime | None:
        ready = (START + n * HOUR for n, rows in enumerate(self.hours) if rows is not None and rows > 0)
        return max((each for each in ready if each >= after and (upto is None or each <= upto)), default=None)

    def content(self, start: datetime) -> SplitPartition:
        rows = self.hours[(start - START) // HOUR] or 0
        file = SampleFile(f"t/{start:%FT%H}/a.parquet", 10 * rows, rows, "f")
        return partition_of(start, start + HOUR, (file,) if rows else ())

    def unified(self, chain: Columns) -> NoColumnUnifier:
        return NoColumnUnifier()

    def table_exists(self) -> bool:
        return True


def chain(samples: Samples, limits: SplitLimits, seen: Imagined) -> tuple[list[Split], object]:
    """Every split from the root on, and the answer that ended it."""
    watermark, splits = None, []
    while True:
        found = decide(samples, watermark, limits, seen)
        if not isinstance(found, SplitFound):
            return splits, found
        splits.append(found.split)
        watermark = found.split.end


hours = st.lists(st.one_of(st.integers(1, 50), st.none(), st.just(-1)), max_size=40)
sizes = st.none() | st.integers(1, 120)
limits = st.builds(SplitLimits, partitions=st.none() | st.integers(1, 6), rows=sizes, bytes=sizes)
waits = st.sampled_from([0.0, 60.0, 7200.0])
TABLE = Samples(path="t/{start:%Y-%m-%dT%H}", length_seconds=3600, start=START)


@given(hours, limits, waits)
def test_splits_tile_time_and_holes_are_only_gaps(table: list[int | None], limits: SplitLimits, wait: float) -> None:
    samples = Samples(path=TABLE.path, length_seconds=3600, start=START, gaps=GapPolicy(wait, "skip"))
    with patch("trainflow.samples.splits.gap_policy.LOOK_AHEAD", 3):
        splits, ended = chain(samples, limits, Imagined(table))
    trained, cursor = [], START
    for split in splits:
        assert split.start == cursor
        pieces = sorted(
            [(p.start, p.end, True) for p in split.partitions] + [(h.start, h.end, False) for h in split.holes]
        )
        for start, end, is_partition in pieces:
            assert start == cursor
            assert end > start
            trained += [start] if is_partition else []
            cursor = end
        assert cursor == split.end == split.partitions[-1].end
    ready = [START + n * HOUR for n, rows in enumerate(table) if rows is not None and rows >= 0]
    assert trained == ready[: len(trained)]
    if wait == 60:  # every wait is over: nothing that is ready is left behind
        assert trained == ready
    if trained != ready:
        assert isinstance(ended, Waiting)


perhaps_empty = st.lists(st.one_of(st.integers(0, 50), st.just(0), st.none()), max_size=20)


@given(perhaps_empty, st.sets(st.integers(1, 25), min_size=1), limits)
def test_nothing_that_ends_before_last_bound_is_left(
    table: list[int | None], ends: set[int], limits: SplitLimits
) -> None:
    """Whatever is missing or empty: a stage trains on all that its upstream lets it, and no split crosses a bound."""
    samples = Samples(path=TABLE.path, length_seconds=3600, start=START, gaps=GapPolicy(0, "skip"))
    bounds = [START + end * HOUR for end in sorted(ends)]
    watermark, trained = None, set()
    while left := [bound for bound in bounds if watermark is None or bound > watermark]:
        found = decide(samples, watermark, limits, Imagined(table), left)
        if not isinstance(found, SplitFound):
            break
        with_rows = [partition for partition in found.split.partitions if partition.rows]
        trained |= {partition.start for partition in with_rows}
        assert not any(with_rows[0].end <= bound < found.split.end for bound in bounds)
        watermark = found.split.end
    due = {START + n * HOUR for n, rows in enumerate(table) if rows and START + (n + 1) * HOUR <= bounds[-1]}
    assert trained == due


@given(hours, hours, limits, st.none() | st.integers(1, 10))
def test_holes_are_trained_once_when_arrived(
    before: list[int | None], after: list[int | None], limits: SplitLimits, bound: int | None
) -> None:
    """However much is missing, too old or comes late: partitions and holes tile time, and repairs leave in the holes
    what is not there, and nothing else."""
    catch_up = None if bound is None else bound * 3600.0
    samples = Samples(
        path=TABLE.path, length_seconds=3600, start=START, gaps=GapPolicy(60, "skip"), catch_up_seconds=catch_up
    )
    splits, _ = chain(samples, limits, Imagined(before))
    holes = [hole for split in splits for hole in split.holes]
    grown = Imagined([late if now is None else now for now, late in zip(before, after, strict=False)])
    trained = {partition.start for split in splits for partition in split.partitions}
    due = set(arrived(samples, holes, grown))
    while (repair := next_repair(samples, holes, limits, grown)) is not None:
        starts = [partition.start for partition in repair.partitions]
        assert repair.start == starts[0]
        assert [start + HOUR for start in starts] == [*starts[1:], repair.end]
        assert not trained & set(starts)
        trained |= set(starts)
        holes = without_stretch(holes, repair.start, repair.end)
    assert not set(arrived(samples, holes, grown))
    assert due <= trained
    end = splits[-1].end if splits else START
    pieces = sorted([*((start, start + HOUR) for start in trained), *((hole.start, hole.end) for hole in holes)])
    assert [START, *(stop for _, stop in pieces)] == [*(start for start, _ in pieces), end]


@given(hours, limits)
def test_limits_are_kept_unless_one_partition_alone_is_too_much(table: list[int | None], limits: SplitLimits) -> None:
    samples = Samples(path=TABLE.path, length_seconds=3600, start=START, gaps=GapPolicy(60, "skip"))
    for split in chain(samples, limits, Imagined(table))[0]:
        count = len(split.partitions)
        assert count >= 1
        assert limits.partitions is None or count <= limits.partitions
        assert limits.rows is None or split.rows <= limits.rows or count == 1
        assert limits.bytes is None or split.bytes <= limits.bytes or count == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), limits, st.data())
def test_late_arrivals_move_no_boundary(table: list[int], limits: SplitLimits, data: st.DataObject) -> None:
    """A table that is complete gives the splits that it gave while it was still growing, but for the last."""
    grown = data.draw(st.integers(1, len(table)))
    before, after = (chain(TABLE, limits, Imagined(list(part)))[0] for part in (table[:grown], table))
    assert [split.digest for split in after[: len(before) - 1]] == [split.digest for split in before[:-1]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_split_survives_its_xcom(table: list[int]) -> None:
    (split,), _ = chain(TABLE, SplitLimits(), Imagined(list(table)))
    assert split_from_xcom(split_to_xcom(split, spill_url="memory://splits")) == split


lengths = st.sampled_from([60, 300, 900, 3600, 5400, 43200, 86400, 7 * 86400, 14 * 86400])
months = st.sampled_from([1, 2, 3, 6, 12, 18, 24])
moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
#: a table of calendar months begins at a day that every month has
tables = st.builds(
    lambda length, start: Samples(path="t/{start:%Y-%m-%dT%H%M}", length_seconds=length, start=start), lengths, moments
) | st.builds(
    lambda length, start: Samples(
        path="t/{start:%Y-%m-%dT%H%M}", length_months=length, start=start.replace(day=min(start.day, 28))
    ),
    months,
    moments,
)


@given(tables, moments)
def test_arithmetic_agrees_with_itself(samples: Samples, moment: datetime) -> None:
    start, found = samples.start, at_or_after(samples, moment)
    assert found >= max(moment, start)
    assert shift(samples, found, -1) < moment or found == start
    assert is_boundary(samples, found)
    assert shift(samples, start, place_of(samples, found)) == found
    if moment >= start:
        inside = containing(samples, moment)
        assert inside is not None
        assert inside <= moment < end_of(samples, inside)
    until = shift(samples, found, 3)
    partitions = list(partitions_between(samples, moment, until))
    assert [each.start for each in partitions] == [found, shift(samples, found, 1), shift(samples, found, 2)]
    assert [each.end for each in partitions] == [each.start for each in partitions[1:]] + [until]
    assert count_between(samples, moment, until) == 3


@given(tables, st.integers(-50, 50), st.integers(-50, 50))
def test_steps_add_up_however_they_are_taken(samples: Samples, there: int, on: int) -> None:
    """Over leap years and the ends of years: partitions tile time, and each has its place."""
    moment = shift(samples, samples.start, there)
    assert shift(samples, moment, on) == shift(samples, samples.start, there + on)
    assert shift(samples, shift(samples, moment, on), -on) == moment
    assert place_of(samples, moment) == there
    assert place_of(samples, moment - timedelta(microseconds=1)) == there - 1
    assert end_of(samples, shift(samples, moment, -1)) == moment


@given(
    st.sampled_from(
        [
            ("t/{start:%Y-%m-%d}/{start:%H%M}", 60, 0),
            ("t/{start:%d/%m/%y}/{start:%H}", 3600, 0),
            ("t/{start:%Y%j}", 86400, 0),
            ("t/{start:%G-W%V}", 7 * 86400, 0),
            ("t/{start:%Y-%W}", 7 * 86400, 0),
            ("t/year={start:%Y}/month={start:%-m}/day={start:%-d}", 86400, 0),
            ("t/{start:%Y-%-m}.parquet", 0, 1),
            ("t/{start:%Y-%j}", 0, 3),
        ]
    ),
    moments,
    st.integers(1, 2000),
)
def test_name_means_one_partition(pattern: tuple[str, int, int], start: datetime, number: int) -> None:
    path, seconds, months = pattern
    start = start.replace(hour=0, minute=0, second=0, microsecond=0)
    start = start.replace(day=1) if months else start - timedelta(days=start.weekday())
    samples = Samples(path=path, length_seconds=seconds, length_months=months, start=start)
    found = check_table(samples)
    other = shift(samples, start, number)
    assert found.render(start) != found.render(other)
    assert found.start_of(found.names(other)) == other
    if found.sortable:
        keys = [
            [segment.key(name) for segment, name in zip(found.segments, found.names(moment), strict=True)]
            for moment in (start, other)
        ]
        assert keys[0] < keys[1]  # type: ignore[operator]


ranges = st.lists(st.one_of(st.integers(1, 50), st.none(), st.just(-1)), max_size=20)


@given(ranges, limits, months, st.integers(0, 27))
def test_splits_of_calendar_months_tile_time(
    table: list[int | None], limits: SplitLimits, length: int, day: int
) -> None:
    samples = Samples(
        path="t/{start:%Y-%m-%d}",
        length_months=length,
        start=START + timedelta(days=day),
        gaps=GapPolicy(60, "skip"),
    )
    splits, _ = chain(samples, limits, Calendar(samples, table))
    cursor = samples.start
    for split in splits:
        tiles = sorted([*((p.start, p.end) for p in split.partitions), *((h.start, h.end) for h in split.holes)])
        for start, end in tiles:
            assert start == cursor
            assert is_boundary(samples, end)
            cursor = end
        assert split.end == cursor
        assert all(p.end == end_of(samples, p.start) for p in split.partitions)
        assert split_from_xcom(split_to_xcom(split, spill_url="memory://splits")) == split
    ready = [number for number, rows in enumerate(table) if rows is not None and rows >= 0]
    assert [place_of(samples, p.start) for split in splits for p in split.partitions] == ready


class Calendar(Imagined):
    """The same with partitions of calendar months."""

    def __init__(self, samples: Samples, table: list[int | None]) -> None:
        super().__init__(table)
        self.samples, self.now = samples, datetime(2099, 1, 1, tzinfo=UTC)

    def state(self, start: datetime) -> PartitionState:
        return msgspec.structs.replace(super().state(START + place_of(self.samples, start) * HOUR), start=start)

    def later(self, start: datetime) -> Iterator[datetime]:
        hours = super().later(START + place_of(self.samples, start) * HOUR)
        return (shift(self.samples, self.samples.start, (hour - START) // HOUR) for hour in hours)

    def content(self, start: datetime) -> SplitPartition:
        found = super().content(START + place_of(self.samples, start) * HOUR)
        return partition_of(start, end_of(self.samples, start), found.files)
