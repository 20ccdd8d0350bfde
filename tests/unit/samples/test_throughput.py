from __future__ import annotations

import pytest

from trainflow.samples.spec import SplitLimits
from trainflow.samples.throughput import PastRun, Throughput, limits_for_target, throughput_of

HOUR = 3600.0


def test_pace_is_median_and_prefers_rows() -> None:
    slow = PastRun(seconds=1000.0, partitions=1, rows=10)
    usual = [PastRun(seconds=2.0, partitions=1, rows=10) for _ in range(4)]

    assert throughput_of([slow, *usual]) == Throughput(seconds_a_row=0.2, seconds_a_partition=2.0)
    assert throughput_of([PastRun(3.0, 1, None)]) == Throughput(None, 3.0)
    assert throughput_of([]) == Throughput()


def test_estimate_goes_by_rows_where_they_are_known() -> None:
    assert Throughput(0.2, 2.0).estimate(partitions=3, rows=100) == 20.0
    assert Throughput(0.2, 2.0).estimate(partitions=3, rows=None) == 6.0
    assert Throughput().estimate(partitions=3, rows=100) is None


@pytest.mark.parametrize(
    ("history", "given", "expected"),
    [
        ([], SplitLimits(), SplitLimits(partitions=1)),
        ([PastRun(10.0, 1, 1000, 50)], SplitLimits(), SplitLimits(rows=4000)),  # not more than four times as much
        ([PastRun(HOUR, 1, 1000, 50)], SplitLimits(), SplitLimits(rows=500)),
        ([PastRun(HOUR, 1, None, 50)], SplitLimits(), SplitLimits(bytes=25)),
        ([PastRun(HOUR, 4)], SplitLimits(), SplitLimits(partitions=2)),
        ([PastRun(10 * HOUR, 1)], SplitLimits(), SplitLimits(partitions=1)),
        ([PastRun(HOUR, 1, 1000)], SplitLimits(rows=100), SplitLimits(rows=100)),
        ([PastRun(HOUR, 1, 1000)], SplitLimits(partitions=3), SplitLimits(partitions=3, rows=500)),
        # one that knows no rows, and bytes decide; one that took no time tells nothing
        ([PastRun(HOUR, 1, 9, 50), PastRun(HOUR, 1, None, 50), PastRun(0.0, 1)], SplitLimits(),
         SplitLimits(bytes=25)),
        # one slow machine among five
        ([PastRun(HOUR, 1, 1000)] * 4 + [PastRun(90 * HOUR, 1, 1000)], SplitLimits(), SplitLimits(rows=500)),
    ],
)  # fmt: skip
def test_half_hour_as_rows(history: list[PastRun], given: SplitLimits, expected: SplitLimits) -> None:
    target = SplitLimits(given.partitions, given.rows, given.bytes, target_seconds=HOUR / 2)
    assert limits_for_target(target, history) == expected


def test_pace_without_target_reads_no_history() -> None:
    assert limits_for_target(SplitLimits(rows=7), []) == SplitLimits(rows=7)
