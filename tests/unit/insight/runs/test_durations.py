"""How long something took, without the time in which no engine ran."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainflow.insight.runs.durations import Span, WorkingTime, covered_seconds

START = datetime(2024, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def span(start: float, end: float) -> Span:
    return Span(at(start), at(end))


@pytest.mark.parametrize(
    ("spans", "hours"),
    [
        ([], 0),
        ([span(0, 10)], 10),
        ([span(-5, 20)], 10),
        ([span(0, 2), span(5, 6)], 3),
        ([span(5, 6), span(0, 2)], 3),
        ([span(0, 4), span(2, 6), span(3, 5)], 6),
        ([span(-3, -1), span(11, 12)], 0),
        ([span(9, 20), span(9, 20)], 1),
    ],
)
def test_covered_seconds_counts_each_moment_once(spans: list[Span], hours: float) -> None:
    assert covered_seconds(at(0), at(10), spans) == hours * 3600


def test_seconds_leaves_out_night_without_engine() -> None:
    time = WorkingTime([span(0, 1), span(9, 12)], at(12))
    assert time.seconds(at(0.5), at(10)) == 1.5 * 3600
    assert time.seconds(at(0.5), None) == 3.5 * 3600
    assert time.seconds(None, None) is None
    # an attempt that outlived its engine worked
    assert time.seconds(at(0.5), at(10), [span(0.5, 8)]) == 8.5 * 3600


def test_seconds_before_first_engine_that_is_remembered_count() -> None:
    assert WorkingTime([span(5, 6)], at(6)).seconds(at(0), at(2)) == 2 * 3600
    assert WorkingTime([], at(6)).seconds(at(0), at(2)) == 2 * 3600


def test_seconds_of_what_ended_before_it_began_are_not_known() -> None:
    """The clock was set back meanwhile."""
    time = WorkingTime([span(0, 12)], at(4))
    assert time.seconds(at(5), at(4.5)) is None
    assert time.seconds(at(5), None) is None
