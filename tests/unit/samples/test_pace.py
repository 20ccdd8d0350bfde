from __future__ import annotations

import pytest

from trainflow.samples.pace import Experience, Pace, limits_for_target, pace_of
from trainflow.samples.spec import SplitLimits

HOUR = 3600.0


def test_pace_is_median_and_prefers_rows() -> None:
    slow = Experience(seconds=1000.0, partitions=1, rows=10)
    usual = [Experience(seconds=2.0, partitions=1, rows=10) for _ in range(4)]

    assert pace_of([slow, *usual]) == Pace(seconds_a_row=0.2, seconds_a_partition=2.0)
    assert pace_of([Experience(3.0, 1, None)]) == Pace(None, 3.0)
    assert pace_of([]) == Pace()


def test_estimate_goes_by_rows_where_they_are_known() -> None:
    assert Pace(0.2, 2.0).estimate(partitions=3, rows=100) == 20.0
    assert Pace(0.2, 2.0).estimate(partitions=3, rows=None) == 6.0
    assert Pace().estimate(partitions=3, rows=100) is None


@pytest.mark.parametrize(
    ("history", "given", "expected"),
    [
        ([], SplitLimits(), SplitLimits(partitions=1)),
        ([Experience(10.0, 1, 1000, 50)], SplitLimits(), SplitLimits(rows=4000)),  # not more than four times as much
        ([Experience(HOUR, 1, 1000, 50)], SplitLimits(), SplitLimits(rows=500)),
        ([Experience(HOUR, 1, None, 50)], SplitLimits(), SplitLimits(bytes=25)),
        ([Experience(HOUR, 4)], SplitLimits(), SplitLimits(partitions=2)),
        ([Experience(10 * HOUR, 1)], SplitLimits(), SplitLimits(partitions=1)),
        ([Experience(HOUR, 1, 1000)], SplitLimits(rows=100), SplitLimits(rows=100)),
        ([Experience(HOUR, 1, 1000)], SplitLimits(partitions=3), SplitLimits(partitions=3, rows=500)),
        # one that knows no rows, and bytes decide; one that took no time tells nothing
        ([Experience(HOUR, 1, 9, 50), Experience(HOUR, 1, None, 50), Experience(0.0, 1)], SplitLimits(),
         SplitLimits(bytes=25)),
        # one slow machine among five
        ([Experience(HOUR, 1, 1000)] * 4 + [Experience(90 * HOUR, 1, 1000)], SplitLimits(), SplitLimits(rows=500)),
    ],
)  # fmt: skip
def test_half_hour_as_rows(history: list[Experience], given: SplitLimits, expected: SplitLimits) -> None:
    target = SplitLimits(given.partitions, given.rows, given.bytes, target_seconds=HOUR / 2)
    assert limits_for_target(target, history) == expected


def test_pace_without_target_reads_no_history() -> None:
    assert limits_for_target(SplitLimits(rows=7), []) == SplitLimits(rows=7)
