"""Lines as drawings."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from trainflow.pages.curves import HEIGHT, WIDTH, chart, progress_charts, sparkline

START = datetime(2024, 1, 1, tzinfo=UTC)


def _points(values: list[float]) -> list[tuple[datetime, float, int]]:
    return [(START + timedelta(days=place), value, place + 1) for place, value in enumerate(values)]


def test_chart_of_nothing_finite_is_none() -> None:
    assert chart("auc", {"main": _points([math.nan, math.inf])}) is None
    assert chart("auc", {}) is None


def test_chart_shows_limits_that_are_near_and_no_others() -> None:
    made = chart("auc", {"main": _points([0.6, 0.7])}, [(0.55, "auc >= 0.55"), (9.0, "auc >= 9")])
    assert made is not None
    assert [limit.text for limit in made.limits] == ["auc >= 0.55"]
    assert made.lines[0].points[0].number == 1


@given(st.integers(5, 3000), st.floats(0, 86_399))
def test_dates_of_a_chart_are_whole_days_and_equally_far_apart(days: int, seconds: float) -> None:
    begin = START + timedelta(seconds=seconds)
    made = chart("auc", {"main": [(begin, 1.0, 1), (begin + timedelta(days=days), 2.0, 2)]})
    assert made is not None
    written = [datetime.strptime(tick.text, "%Y-%m-%d").replace(tzinfo=UTC) for tick in made.x_ticks]
    assert 2 <= len(written) <= 6
    assert len({later - earlier for earlier, later in pairwise(written)}) == 1
    for tick, day in zip(made.x_ticks, written, strict=True):
        share = (day - begin) / timedelta(days=days)
        assert abs(tick.position - (made.left + share * (made.right - made.left))) < 0.2


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_chart_of_any_values_stays_inside_and_keeps_extremes(values: list[float]) -> None:
    made = chart("auc", {"main": _points(values)})
    assert made is not None
    points = made.lines[0].points
    assert all(0 <= each.x <= WIDTH and 0 <= each.y <= HEIGHT for each in points)
    assert {min(values), max(values)} <= {each.value for each in points}
    assert len(points) <= 620
    assert [each.x for each in points] == sorted(each.x for each in points)


@given(st.lists(st.floats(allow_nan=True), max_size=80))
def test_sparkline_of_any_values_is_points_or_nothing(values: list[float]) -> None:
    drawn = sparkline(values)
    assert drawn == "" or all(len(point.split(",")) == 2 for point in drawn.split(" "))


def test_chart_draws_the_newest_events_and_counts_the_others() -> None:
    events = [(START + timedelta(days=day), f"promoted {day}") for day in range(20)]
    made = chart("auc", {"main": _points([0.5] * 15)}, marks=reversed(events))
    assert made is not None
    # those after the line are of no checkpoint on it
    assert [mark.text for mark in made.marks] == [f"promoted {day}" for day in range(7, 15)]
    assert made.earlier_marks == 7
    few = chart("auc", {"main": _points([0.5] * 15)}, marks=events[:3])
    assert few is not None
    assert (len(few.marks), few.earlier_marks) == (3, 0)


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=False, allow_infinity=False),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.integers(0, 2**53),
        ),
        min_size=1,
        max_size=50,
    )
)
@example([(-1.7e308, 1.0, 1), (1.7e308, 2.0, 2)])
def test_progress_of_any_values_is_drawn_inside_or_not_at_all(points: list[tuple[float, float | None, int]]) -> None:
    (made,), (summary,) = progress_charts({"train #1, lost": {"loss": points}})
    places = [float(each) for each in re.findall(r"-?[\d.]+(?:e[+-]?\d+)?", made.lines[0].path.replace("h0", ""))]
    assert all(0 <= x <= WIDTH for x in places[::2])
    assert all(0 <= y <= HEIGHT for y in places[1::2])
    assert len(places) == 2 * sum(value is not None for _, value, _ in points)
    assert (summary.points, summary.newest) == (len(points), points[-1][1])


def test_progress_of_attempts_is_a_line_each_that_is_interrupted_where_there_is_no_number() -> None:
    lost = [(0.0, 1.0, 1), (10.0, None, 2), (20.0, None, 3), (30.0, 0.5, 4), (40.0, 0.25, 5)]
    made = progress_charts({"train #1, lost": {"loss": lost}, "train #2, success": {"loss": lost[:1], "auc": lost[:1]}})
    assert [each.metric for each in made.charts] == ["loss", "auc"]
    loss = made.charts[0]
    assert [line.name for line in loss.lines] == ["train #1, lost", "train #2, success"]
    assert loss.lines[0].path.count("M") == 2
    assert [mark.text for mark in loss.marks] == ["train #1, lost: loss was no number at 10"]
    assert [each[:2] for each in made.summaries] == [
        ("loss", "train #1, lost"), ("loss", "train #2, success"), ("auc", "train #2, success"),
    ]  # fmt: skip


def test_progress_of_nothing_is_no_drawing() -> None:
    assert progress_charts({}) == ([], [])
    assert progress_charts({"train #1, running": {}}) == ([], [])
