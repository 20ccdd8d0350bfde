from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from trainflow.errors import InputError
from trainflow.samples.partitions import (
    after_watermark,
    at_or_after,
    containing,
    count_between,
    distance,
    end_of,
    is_boundary,
    label,
    length_label,
    mean_seconds,
    partitions_between,
    shift,
)
from trainflow.samples.spec import Samples

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def table(length_seconds: int = 3600, **more: object) -> Samples:
    return Samples(path="t/{start:%Y-%m-%dT%H%M}", length_seconds=length_seconds, **{"start": START, **more})  # type: ignore[arg-type]


def monthly(months: int = 1, start: datetime = START) -> Samples:
    return Samples(path="t/{start:%Y-%m-%d}", length_months=months, start=start)


def test_partition_ends_where_next_one_starts() -> None:
    partitions = list(partitions_between(table(), START, START + 3 * HOUR))
    assert [(each.start, each.end) for each in partitions] == [
        (START + n * HOUR, START + (n + 1) * HOUR) for n in range(3)
    ]


def test_calendar_partitions_end_with_their_month() -> None:
    starts = [each.start.date().isoformat() for each in partitions_between(monthly(), START, START.replace(month=6))]
    assert starts == ["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01"]
    february = START.replace(month=2)
    assert end_of(monthly(), february) - february == timedelta(days=29)
    assert end_of(monthly(), february.replace(year=2023)) == START.replace(year=2023, month=3)
    assert end_of(monthly(3, START.replace(month=11, day=28)), START.replace(month=11, day=28)) == datetime(
        2025, 2, 28, tzinfo=UTC
    )
    assert shift(monthly(12), START, -4) == START.replace(year=2020)


def test_calendar_moments_are_found_in_their_partition() -> None:
    samples = monthly(start=START.replace(day=15))
    assert containing(samples, datetime(2024, 3, 14, 23, 59, tzinfo=UTC)) == datetime(2024, 2, 15, tzinfo=UTC)
    assert containing(samples, datetime(2024, 3, 15, tzinfo=UTC)) == datetime(2024, 3, 15, tzinfo=UTC)
    assert containing(samples, START) is None
    assert at_or_after(samples, datetime(2024, 3, 15, 0, 1, tzinfo=UTC)) == datetime(2024, 4, 15, tzinfo=UTC)
    assert is_boundary(samples, datetime(2023, 2, 15, tzinfo=UTC))
    assert not is_boundary(samples, datetime(2023, 2, 15, 0, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("cut", "written"),
    [
        (table(3600), "1h"), (table(5400), "1h30m"), (table(7 * 86400), "7d"), (monthly(1), "1mo"), (monthly(3), "3mo"),
        (monthly(24), "2y"), (monthly(18), "18mo"),
    ],
)  # fmt: skip
def test_length_is_written_as_in_file(cut: Samples, written: str) -> None:
    assert length_label(cut) == written


def test_month_is_on_average_twelfth_of_year() -> None:
    assert mean_seconds(monthly(12)) == pytest.approx(365.2425 * 86400)


def test_stretch_counts_partitions_it_touches() -> None:
    assert distance(table(), START, START + 2.5 * HOUR) == 3
    assert distance(monthly(), START, START.replace(year=2025)) == 12


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (START - 5 * HOUR, START),
        (START, START),
        (START + timedelta(seconds=1), START + HOUR),
        (START + HOUR, START + HOUR),
        (datetime(2024, 1, 1, 3, tzinfo=timezone(HOUR)), START + 2 * HOUR),
    ],
)
def test_partitions_first_start_not_before_moment(moment: datetime, expected: datetime) -> None:
    assert at_or_after(table(), moment) == expected


def test_partition_that_contains_moment() -> None:
    assert containing(table(), START + 1.5 * HOUR) == START + HOUR
    assert containing(table(), START - HOUR) is None


def test_partitions_stop_at_table_end() -> None:
    samples = table(end=START + 2 * HOUR)
    starts = [partition.start for partition in partitions_between(samples, START - HOUR, START + 9 * HOUR)]
    assert starts == [START, START + HOUR]
    assert count_between(samples, START - HOUR, START + 9 * HOUR) == 2


@pytest.mark.parametrize("length", [60, 90, 3600, 36 * 3600, 7 * 86400])
def test_counting_agrees_with_walking(length: int) -> None:
    since, until = START + timedelta(seconds=77), START + timedelta(days=30, seconds=5)
    walked = sum(1 for _ in partitions_between(table(length), since, until))
    assert count_between(table(length), since, until) == walked > 0


def test_empty_stretch_counts_zero() -> None:
    assert count_between(table(), START + 5 * HOUR, START) == 0


def test_next_partition_after_watermark() -> None:
    assert after_watermark(table(), None) == START
    assert after_watermark(table(), START + 3 * HOUR) == START + 3 * HOUR
    assert after_watermark(table(), START - timedelta(minutes=17)) == START


def test_watermark_inside_partition_is_refused() -> None:
    with pytest.raises(InputError, match=r"watermark 2024-01-01T05:30Z is inside the partition 2024-01-01T05:00Z"):
        after_watermark(table(), START + 5.5 * HOUR)


def test_start_without_time_zone_is_refused() -> None:
    with pytest.raises(InputError, match=r"samples\.start: naive datetime"):
        after_watermark(table(start=datetime(2024, 1, 1)), None)


def test_labels_are_utc() -> None:
    assert label(datetime(2024, 1, 1, 3, tzinfo=timezone(HOUR))) == "2024-01-01T02:00Z"
    assert label(START + timedelta(seconds=5)) == "2024-01-01T00:00:05Z"
