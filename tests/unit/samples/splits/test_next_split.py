"""The rule that chooses the next split, over a table that is only imagined."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.samples.imagined import DAY, HOUR, START, shape
from trainflow.errors import SampleCheckFailed, SampleDamaged, SampleGap
from trainflow.samples.spec import GapPolicy, Samples, SplitLimits
from trainflow.samples.splits.gap_policy import Waiting
from trainflow.samples.splits.next_split import CaughtUp, NextSplit, SplitFound, decide
from trainflow.samples.splits.split_content import Columns, SampleFile, SplitPartition, partition_of
from trainflow.samples.table.readiness import PartitionState, Readiness
from trainflow.testing.chains import NoColumnUnifier

NOW = datetime(2024, 6, 1, tzinfo=UTC)


class Imagined:
    """A table as a string: `R` ready, `e` ready and empty, `w` being written, `W` the same, just now, `.` missing, `!`
    ready and bad, `%` ready by its listing, with a file that cannot be read, `#` the same, found while its rows were
    counted. Rows: 10 a partition.

    Everything was written an hour before `now`.
    """

    def __init__(self, days: str, now: datetime = NOW, exists: bool = True) -> None:
        self.days, self.now, self.exists = days, now, exists
        self.asked: list[int] = []

    def state(self, start: datetime) -> PartitionState:
        number = (start - START) // DAY
        self.asked.append(number)
        mark = self.days[number] if number < len(self.days) else "."
        if mark in "Re!%":
            return PartitionState(start, Readiness.READY, changed=NOW - HOUR)
        if mark == "#":
            damaged = SampleDamaged("no footer", problem="a.parquet has no footer")
            return PartitionState(start, Readiness.NOT_READY, "no footer", NOW - HOUR, damaged=damaged)
        if mark in "wW":
            written = NOW - HOUR if mark == "w" else NOW
            return PartitionState(start, Readiness.NOT_READY, "it has no _SUCCESS", changed=written)
        return PartitionState(start, Readiness.MISSING, "nothing is there")

    def later(self, start: datetime) -> Iterator[datetime]:
        first = (start - START) // DAY + 1
        return (START + number * DAY for number in range(first, len(self.days)) if self.days[number] != ".")

    def newest(self, after: datetime, upto: datetime | None = None) -> datetime | None:
        ready = (START + n * DAY for n, mark in enumerate(self.days) if mark in "R!")
        return max((each for each in ready if each >= after and (upto is None or each <= upto)), default=None)

    def content(self, start: datetime) -> SplitPartition:
        if self.days[(start - START) // DAY] == "!":
            raise SampleCheckFailed("bad", partition=start, problems=("bad",))
        if self.days[(start - START) // DAY] == "%":
            raise SampleDamaged("no footer", problem="a.parquet has no footer")
        if self.days[(start - START) // DAY] == "e":
            return partition_of(start, start + DAY, ())
        return partition_of(start, start + DAY, (SampleFile(f"{start:%F}/a.parquet", 100, 10, "f", (10,)),))

    def unified(self, chain: Columns) -> NoColumnUnifier:
        return NoColumnUnifier()

    def table_exists(self) -> bool:
        return self.exists


def ask(days: str, watermark: int | None = None, now: datetime = NOW, **more: object) -> NextSplit:
    gaps = more.pop("gaps", GapPolicy())
    end = more.pop("end", None)
    catch_up = more.pop("catch_up", None)
    lag = more.pop("lag", 0)
    bounds = [START + bound * DAY for bound in more.pop("bounds", ())]  # type: ignore[attr-defined]
    samples = Samples(
        path="t/{start:%F}",
        length_seconds=86400,
        start=START,
        gaps=gaps,  # type: ignore[arg-type]
        catch_up_seconds=None if catch_up is None else catch_up * DAY.total_seconds(),  # type: ignore[operator]
        end=None if end is None else START + end * DAY,  # type: ignore[operator]
        lag=lag,  # type: ignore[arg-type]
    )
    mark = None if watermark is None else START + watermark * DAY
    return decide(samples, mark, SplitLimits(**more), Imagined(days, now), bounds)  # type: ignore[arg-type]


SKIP = GapPolicy(0, "skip")


@pytest.mark.parametrize(
    ("days", "watermark", "bounds", "expected"),
    [
        ("RRRRR", None, (2, 4), "PP"),
        ("RRRRR", 2, (2, 4), "PP"),
        ("RRRRR", 1, (2, 4), "P"),
        ("RRRRR", 1, (5,), "PPPP"),
        # what has no partition before a bound is no reason to stop there
        (".RRRR", None, (1, 3), "-PP"),
        ("..R.R", None, (1, 2, 4), "--P"),
        # nor is what has one without a row
        ("eRRR", None, (1, 2, 4), "PP"),
        ("ReeRR", 1, (2, 5), "PPPP"),
    ],
)
def test_split_ends_at_first_bound_it_can(
    days: str, watermark: int | None, bounds: tuple[int, ...], expected: str
) -> None:
    assert shape(ask(days, watermark, bounds=bounds, gaps=SKIP)) == expected


@pytest.mark.parametrize(("watermark", "bounds"), [(2, (2,)), (3, (1, 2)), (0, (0,))])
def test_next_split_beyond_last_bound_takes_nothing(watermark: int, bounds: tuple[int, ...]) -> None:
    found = ask("RRRRR", watermark, bounds=bounds)
    assert isinstance(found, CaughtUp)
    assert (found.bounded, found.finished) == (True, False)


@pytest.mark.parametrize(
    ("days", "lag", "expected"),
    [
        ("RRRRR", 2, "PPP"),
        ("RRRwR", 2, "PPP"),
        # what comes later than the one that is due counts as well
        ("RR.RR", 1, "PP"),
        ("RRR.R", 1, "PPP"),
    ],
)
def test_partition_counts_when_later_one_is_ready_too(days: str, lag: int, expected: str) -> None:
    assert shape(ask(days, lag=lag)) == expected


def test_next_split_too_early_partition_is_waited_for() -> None:
    nothing = ask("RRR", 1, lag=2)
    assert isinstance(nothing, CaughtUp)
    assert (nothing.wait_for, nothing.finished) == (START + 3 * DAY, False)
    assert "counts when 2024-01-04T00:00Z is ready too (lag 2)" in nothing.reason
    writing = ask("RRRw", 1, lag=2)
    assert isinstance(writing, Waiting)
    assert writing.partition_start == START + 3 * DAY


def test_next_split_lag_leaves_last_partitions_out() -> None:
    assert shape(ask("RRRRR", end=5, lag=2)) == "PPP"
    done = ask("RRRRR", 3, end=5, lag=2)
    assert isinstance(done, CaughtUp)
    assert done.finished


@pytest.mark.parametrize(
    ("days", "limits", "expected"),
    [
        ("RRRRR", {}, "PPPPP"),
        ("RRRRR", {"partitions": 2}, "PP"),
        ("RRRRR", {"rows": 20}, "PP"),
        ("RRRRR", {"rows": 29}, "PP"),
        ("RRRRR", {"rows": 1}, "P"),
        ("RRRRR", {"bytes": 350}, "PPP"),
        ("RRRRR", {"bytes": 350, "partitions": 4, "rows": 20}, "PP"),
        ("RRwRR", {}, "PP"),
        ("RR.RR", {}, "PP"),
        ("RR.RR", {"gaps": SKIP}, "PP-PP"),
        ("..RR", {"gaps": SKIP}, "--PP"),
        ("RR..", {"gaps": SKIP}, "PP"),
        ("RR.w", {"gaps": SKIP}, "PP"),
        ("RR.wR", {"gaps": SKIP}, "PP"),
        ("RR.wR", {"gaps": GapPolicy(60, "skip")}, "PP--P"),
        ("RR!RR", {}, "PP"),
        ("RRR.R", {"end": 3, "gaps": SKIP}, "PPP"),
        ("R.R.R", {"partitions": 2, "gaps": SKIP}, "P-P"),
    ],
)
def test_next_split_limits_decide_its_end(days: str, limits: dict[str, object], expected: str) -> None:
    assert shape(ask(days, **limits)) == expected


@pytest.mark.parametrize(
    ("days", "watermark", "bound", "expected"),
    [
        ("RRRRRRR", 1, 3, "---PPP"),
        ("RRRRRRR", 1, 100, "PPPPPP"),
        ("RRRRRRR", 4, 3, "PPP"),
        ("RRRRRRR", 5, 3, "PP"),
        ("RRRRRRR", None, 2, "-----PP"),
        ("RRRRRRR", 1, 0.5, "-----P"),  # the newest one is never stepped over
        ("RRRRRRw", 1, 3, "--PPP"),  # counted from what is ready
        ("R...RRR", 1, 3, "---PPP"),
        ("RRRRRRR.", 1, 2, "----PP"),
        ("RRRRRee", 1, 2, "--PPPP"),  # and has rows
    ],
)
def test_next_split_steps_over_too_old(days: str, watermark: int | None, bound: float, expected: str) -> None:
    found = ask(days, watermark, catch_up=bound)
    assert shape(found) == expected
    assert isinstance(found, SplitFound)
    assert all("catch_up" in hole.reason for hole in found.split.holes)


def test_next_split_too_old_is_independent_of_now() -> None:
    assert ask("RRRRRRR", 1, catch_up=3) == ask("RRRRRRR", 1, NOW + 100 * DAY, catch_up=3)


@pytest.mark.parametrize(("bounds", "expected"), [((3,), "-PP"), ((3, 5), "---PP"), ((1,), "P"), ((9,), "-----PP")])
def test_next_split_too_old_counts_back_from_bound(bounds: tuple[int, ...], expected: str) -> None:
    assert shape(ask("RRRRRRR", catch_up=2, bounds=bounds)) == expected


def test_next_split_too_old_counts_back_from_lagged_end() -> None:
    assert shape(ask("RRRRRRR", catch_up=1, lag=2)) == "----P"


def test_next_split_too_old_counts_back_from_rows_that_may_be_taken() -> None:
    """What is empty is no newer sample: nothing would be trained on instead of what it made too old."""
    assert shape(ask("RReR", catch_up=1, lag=1)) == "-PP"
    assert shape(ask("RReRR", catch_up=1, bounds=(3,))) == "-PP"
    assert shape(ask("RR.RR", catch_up=1, bounds=(3,), gaps=SKIP)) == "-P"


def test_full_split_does_not_look_further() -> None:
    seen = Imagined("RRRRR")
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START)
    decide(samples, None, SplitLimits(partitions=2), seen)
    assert seen.asked == [0, 1]


def test_waiting_for_partition_that_is_being_written() -> None:
    found = ask("RRw", 2)
    assert found == Waiting(START + 2 * DAY, "the partition 2024-01-03T00:00Z is not ready: it has no _SUCCESS")


def test_next_split_unfinished_without_gap_wait_is_waited_for() -> None:
    found = ask("wR")
    assert isinstance(found, Waiting)
    assert found.reason.endswith(", while 2024-01-02T00:00Z is ready")


def test_next_split_unfinished_with_gap_wait_becomes_gap() -> None:
    with pytest.raises(SampleGap, match="not ready: it has no _SUCCESS, while 2024-01-02T00:00Z is ready"):
        ask("wR", gaps=GapPolicy(60, "fail"))


def test_gap_is_waited_for_from_when_later_partition_became_ready() -> None:
    policy = GapPolicy(2 * 3600, "skip")
    found = ask(".R", gaps=policy)
    assert isinstance(found, Waiting)
    assert found.check_again_at == NOW + HOUR
    assert "missing, while 2024-01-02T00:00Z is ready; skip at 2024-06-01T01:00Z" in found.reason
    assert shape(ask(".R", gaps=policy, now=NOW + HOUR)) == "-P"


@pytest.mark.parametrize(("days", "hours"), [("wR", 1), ("WR", 2), (".R", 1)])
def test_next_split_unfinished_is_waited_for_after_its_last_write(days: str, hours: int) -> None:
    policy, end = GapPolicy(2 * 3600, "skip"), NOW + hours * HOUR
    found = ask(days, gaps=policy, now=end - timedelta(seconds=1))
    assert isinstance(found, Waiting)
    assert found.check_again_at == end
    assert shape(ask(days, gaps=policy, now=end)) == "-P"


def test_gap_fails_when_policy_says_so() -> None:
    with pytest.raises(SampleGap, match=r"2024-01-01T00:00Z is missing, while 2024-01-02T00:00Z is ready") as caught:
        ask(".R")
    assert caught.value.partition == START


def test_missing_partition_before_one_that_is_being_written() -> None:
    found = ask(".w", gaps=SKIP)
    assert isinstance(found, Waiting)
    assert found.partition_start == START
    assert "2024-01-02T00:00Z is there and not ready either" in found.reason


def test_next_split_nothing_after_watermark_is_none() -> None:
    found = ask("RR", 2)
    assert isinstance(found, CaughtUp)
    assert found.watermark == START + 2 * DAY
    assert not found.finished
    assert "nothing after 2024-01-03T00:00Z" in found.reason


def test_end_of_table() -> None:
    found = ask("RRR", 2, end=2)
    assert isinstance(found, CaughtUp)
    assert found.finished


def test_holes_at_end_of_table_are_no_split() -> None:
    assert isinstance(ask("RR..", 2, end=4, gaps=SKIP), CaughtUp)


def test_bad_partition_stops_split_that_starts_with_it() -> None:
    with pytest.raises(SampleCheckFailed):
        ask("RR!RR", 2)


@pytest.mark.parametrize("mark", "%#")
def test_next_split_unreadable_file_is_being_written_for_a_while(mark: str) -> None:
    written = NOW - HOUR
    found = ask(f"RR{mark}RR", 2, now=written + timedelta(seconds=599))
    assert isinstance(found, Waiting)
    assert found.partition_start == START + 2 * DAY
    assert found.check_again_at == written + timedelta(seconds=600)
    assert found.unfinished is not None
    assert "a.parquet has no footer" in found.reason
    assert "refused at 2024-05-31T23:10Z" in found.reason
    with pytest.raises(SampleDamaged) as refused:
        ask(f"RR{mark}RR", 2, now=written + timedelta(seconds=600))
    assert mark == "%" or refused.value.partition == START + 2 * DAY


@pytest.mark.parametrize("age", [timedelta(0), DAY])
def test_next_split_before_unfinished_file_is_trained(age: timedelta) -> None:
    assert shape(ask("RR%RR", now=NOW - HOUR + age)) == "PP"


@pytest.mark.parametrize(
    ("days", "limits", "expected"),
    [
        ("eeRR", {"partitions": 1}, "PPP"),
        ("ReR", {"partitions": 1}, "P"),
        ("ReeR", {}, "PPPP"),
        ("Ree", {}, "PPP"),
        ("eRR", {"rows": 10}, "PP"),
        (".e.R", {"partitions": 1, "gaps": SKIP}, "-P-P"),
    ],
)
def test_empty_partition_is_in_split_of_what_comes_after_it(
    days: str, limits: dict[str, object], expected: str
) -> None:
    assert shape(ask(days, **limits)) == expected


def test_next_split_after_empty_partition_waits_for_next() -> None:
    found = ask("Re", 1)
    assert isinstance(found, CaughtUp)
    assert (found.wait_for, found.watermark) == (START + 2 * DAY, START + DAY)
    writing = ask("Rew", 1)
    assert isinstance(writing, Waiting)
    assert writing.partition_start == START + 2 * DAY
    finished = ask("Re", 1, end=2)
    assert isinstance(finished, CaughtUp)
    assert finished.finished


@pytest.mark.parametrize(
    ("days", "watermark", "end", "said"),
    [
        ("Re", 1, 2, "2024-01-02T00:00Z is empty (a marker and no file that matches *.parquet): no row to train on"),
        ("eee", None, 3, "; the 3 partitions from 2024-01-01T00:00Z on are empty (a marker and no file"),
        ("Ree", 1, None, "; the 2 partitions from 2024-01-02T00:00Z on are empty (a marker and no file"),
    ],
)
def test_next_split_after_nothing_but_empty_partitions_says_so(
    days: str, watermark: int | None, end: int | None, said: str
) -> None:
    found = ask(days, watermark, end=end)
    assert isinstance(found, CaughtUp)
    assert said in found.reason


@pytest.mark.parametrize("then", ["skip", "fail"])
def test_gap_of_many_partitions_that_are_not_complete_ends_like_any(then: Any) -> None:
    policy = GapPolicy(60, then)
    if then == "skip":
        assert shape(ask("R" + "w" * 100 + "R", 1, gaps=policy)) == "-" * 100 + "P"
    else:
        with pytest.raises(SampleGap, match=r"while 2024-04-11T00:00Z is ready"):
            ask("R" + "w" * 100 + "R", 1, gaps=policy)
    # as long as nothing is ready behind them, it is waited for them
    waiting = ask("R" + "w" * 100, 1, gaps=policy)
    assert isinstance(waiting, Waiting)
    assert waiting.partition_start == START + DAY


def test_empty_partition_before_bound_is_stepped_over_with_holes() -> None:
    found = ask(".e.R", bounds=(3,), gaps=SKIP)
    assert isinstance(found, CaughtUp)
    assert [(hole.start, hole.end) for hole in found.holes] == [
        (START + n * DAY, START + (n + 1) * DAY) for n in range(3)
    ]
    assert "empty" in found.holes[1].reason


def test_time_before_table_is_hole_so_that_splits_tile() -> None:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START)
    found = decide(samples, START - timedelta(days=3.5), SplitLimits(), Imagined("R"))
    assert isinstance(found, SplitFound)
    assert found.split.start == START - timedelta(days=3.5)
    assert [(hole.start, hole.end) for hole in found.split.holes] == [(START - timedelta(days=3.5), START)]
