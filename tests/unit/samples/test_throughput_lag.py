from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest

from trainflow.samples.throughput import CatchUpEstimate, Lag, estimate_catch_up, lag_behind

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("ready", "watermark", "expected"),
    [
        (0, None, 0),
        (1, None, 1),
        (100, None, 100),
        (100, 90, 10),
        (100, 100, 0),
        (152, None, 152),  # up to the present
        (152, 3, 149),
    ],
)
def test_lag_counts_partitions_behind(daily, now, ready: int, watermark: int | None, expected: int) -> None:
    asked: list[datetime] = []

    def is_ready(start: datetime) -> bool:
        asked.append(start)
        return daily.start(0) <= start < daily.start(ready)

    mark = None if watermark is None else daily.start(watermark)
    found = lag_behind(daily.samples, mark, is_ready, now)
    assert found == Lag(expected, expected * 86_400.0)
    assert len(asked) <= 9  # 152 partitions could be there


def test_lag_after_end_of_table_asks_nothing(daily, now) -> None:
    samples = msgspec.structs.replace(daily.samples, end=daily.start(10))
    assert lag_behind(samples, daily.start(4), lambda start: start < daily.start(10), now) == Lag(6, 6 * 86_400.0)
    assert lag_behind(samples, daily.start(10), lambda start: True, now) == Lag(0, 0.0)


@pytest.mark.parametrize(
    ("lag", "hours_a_day", "ended", "expected"),
    [
        (0, None, False, CatchUpEstimate(False, 0.0)),
        (0, 30, False, CatchUpEstimate(False, 0.0)),
        (10, None, False, CatchUpEstimate(False, None)),  # not known
        (10, 24, False, CatchUpEstimate(True, None)),  # a day takes a day
        (10, 30, False, CatchUpEstimate(True, None)),
        (1, 30, False, CatchUpEstimate(False, None)),  # one behind is what following looks like
        (10, 12, False, CatchUpEstimate(False, 10 * 86_400.0)),  # half of every day goes to the newest
        (10, 6, False, CatchUpEstimate(False, 10 * 6 * 3600 / 0.75)),
        (10, 30, True, CatchUpEstimate(False, 10 * 30 * 3600.0)),  # no more arrive
    ],
)
def test_whether_it_will_catch_up(daily, now, lag, hours_a_day, ended, expected) -> None:
    samples = msgspec.structs.replace(daily.samples, end=now - DAY if ended else now + 100 * DAY)
    seconds = None if hours_a_day is None else hours_a_day * 3600.0
    assert estimate_catch_up(samples, lag, seconds, now) == expected
