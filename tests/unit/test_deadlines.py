"""What is due, whatever was done to the clock meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainflow.clock import ManualClock
from trainflow.deadlines import TOLERANCE, MonotonicDeadlines, is_pending, pause_after, seconds_left

SINCE = datetime(2026, 1, 2, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("now", "waits"), [(timedelta(), True), (HOUR, False), (DAY, False), (-TOLERANCE, True), (-DAY, False)]
)
def test_deadline_not_come_waits(now: timedelta, waits: bool) -> None:
    assert is_pending(SINCE + HOUR, HOUR, SINCE + now) is waits


@pytest.mark.parametrize(
    ("now", "left"), [(timedelta(), 60.0), (MINUTE / 4, 45.0), (MINUTE, 0.0), (DAY, 0.0), (-DAY, 60.0)]
)
def test_seconds_left_are_never_more_than_all(now: timedelta, left: float) -> None:
    assert seconds_left(SINCE, 60.0, SINCE + now) == left


def test_seconds_left_of_what_no_calendar_holds() -> None:
    assert seconds_left(SINCE, 1e300, SINCE + DAY) == 1e300


class TestMonotonicDeadlines:
    def test_run_out_in_order_each_once(self) -> None:
        clock = ManualClock(SINCE)
        deadlines: MonotonicDeadlines[str] = MonotonicDeadlines(clock)
        for key, seconds in (("c", 30.0), ("a", 10.0), ("b", 20.0)):
            deadlines.begin(key, seconds)
        assert (deadlines.take_over(), deadlines.seconds_left) == ([], 10.0)
        clock.advance(timedelta(seconds=20))
        assert (deadlines.take_over(), deadlines.seconds_left) == (["a", "b"], 10.0)
        assert deadlines.take_over() == []
        assert "a" not in deadlines
        assert "c" in deadlines

    def test_begin_does_not_begin_anew_what_runs(self) -> None:
        clock = ManualClock(SINCE)
        deadlines: MonotonicDeadlines[int] = MonotonicDeadlines(clock)
        deadlines.begin(1, 10.0)
        clock.advance(timedelta(seconds=9))
        deadlines.begin(1, 10.0)
        assert deadlines.seconds_left == 1.0

    def test_stop_and_begin_again_counts_from_second_time(self) -> None:
        clock = ManualClock(SINCE)
        deadlines: MonotonicDeadlines[int] = MonotonicDeadlines(clock)
        deadlines.begin(1, 10.0)
        deadlines.stop(1)
        assert deadlines.seconds_left is None
        deadlines.begin(1, 20.0)
        clock.advance(timedelta(seconds=10))
        assert deadlines.take_over() == []
        clock.advance(timedelta(seconds=10))
        assert deadlines.take_over() == [1]

    def test_clear_stops_all(self) -> None:
        deadlines: MonotonicDeadlines[int] = MonotonicDeadlines(ManualClock(SINCE))
        deadlines.begin(1, 0.0)
        deadlines.clear()
        assert (deadlines.take_over(), deadlines.seconds_left) == ([], None)


@pytest.mark.parametrize(
    ("took", "least", "pause"),
    [(0.0, 5.0, 5.0), (0.01, 5.0, 5.0), (0.2, 5.0, 20.0), (2.0, 5.0, 60.0), (3600.0, 5.0, 60.0), (2.0, 300.0, 300.0)],
)
def test_pause_after_long_work_is_bounded(took: float, least: float, pause: float) -> None:
    assert pause_after(took, least) == pytest.approx(pause)
