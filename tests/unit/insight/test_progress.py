from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainflow.insight.progress import RunEnd, eta_seconds

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def end(at: float, seconds: float, partitions: int = 10) -> RunEnd:
    return RunEnd(T0 + timedelta(seconds=at), seconds, partitions)


@pytest.mark.parametrize(
    ("ends", "trained", "now", "expected"),
    [
        ([], 0, 0, None),
        ([end(5, 1)], 10, 5, 9.0),  # five seconds until the first ended, of which its tasks took one
        ([end(5, 1), end(6, 1)], 20, 6, 8.0),
        ([end(5, 1), end(6, 1)], 20, 6.5, 7.5),  # the run under way has taken half a second
        ([end(5, 1), end(6, 1)], 20, 60, 0.0),  # never below nothing
        ([end(5, 1), end(7, 1, 20), end(8, 1, 10)], 40, 8, 6.0),
        ([end(5, 1), end(6, 1)], 100, 6, 0.0),
        ([end(5, 1, 0)], 0, 5, None),
    ],
)
def test_eta_seconds_leave_out_warm_up(ends: list[RunEnd], trained: int, now: float, expected: float | None) -> None:
    assert eta_seconds(ends, trained, 100, T0 + timedelta(seconds=now)) == expected


def test_eta_seconds_without_end_of_table_is_unknown() -> None:
    assert eta_seconds([end(1, 1)], 10, None, T0) is None
    assert eta_seconds([end(1, 1)], None, 100, T0) is None
