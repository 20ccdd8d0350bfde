from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from trainflow.errors import InputError
from trainflow.samples.partitions import (
    Partition,
    after_watermark,
    at_or_after,
    containing,
    count_between,
    label,
    partitions_between,
)
from trainflow.samples.spec import Samples

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def table(length_seconds: int = 3600, **more: object) -> Samples:
    return Samples(path="t/{start:%Y-%m-%dT%H%M}", length_seconds=length_seconds, **{"start": START, **more})  # type: ignore[arg-type]


def test_a_partition_ends_where_the_next_one_starts() -> None:
    assert Partition(START, 3600).end == START + HOUR


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
def test_the_first_start_that_is_not_before(moment: datetime, expected: datetime) -> None:
    assert at_or_after(table(), moment) == expected


def test_the_partition_that_contains_a_moment() -> None:
    assert containing(table(), START + 1.5 * HOUR) == START + HOUR
    assert containing(table(), START - HOUR) is None


def test_partitions_stop_at_the_table_end() -> None:
    samples = table(end=START + 2 * HOUR)
    starts = [partition.start for partition in partitions_between(samples, START - HOUR, START + 9 * HOUR)]
    assert starts == [START, START + HOUR]
    assert count_between(samples, START - HOUR, START + 9 * HOUR) == 2


@pytest.mark.parametrize("length", [60, 90, 3600, 36 * 3600, 7 * 86400])
def test_counting_agrees_with_walking(length: int) -> None:
    since, until = START + timedelta(seconds=77), START + timedelta(days=30, seconds=5)
    walked = sum(1 for _ in partitions_between(table(length), since, until))
    assert count_between(table(length), since, until) == walked > 0


def test_an_empty_stretch_counts_zero() -> None:
    assert count_between(table(), START + 5 * HOUR, START) == 0


def test_the_next_partition_after_a_watermark() -> None:
    assert after_watermark(table(), None) == START
    assert after_watermark(table(), START + 3 * HOUR) == START + 3 * HOUR
    assert after_watermark(table(), START - timedelta(minutes=17)) == START


def test_a_watermark_inside_a_partition_is_refused() -> None:
    with pytest.raises(InputError, match=r"watermark 2024-01-01T05:30Z is inside the partition 2024-01-01T05:00Z"):
        after_watermark(table(), START + 5.5 * HOUR)


def test_a_start_without_a_time_zone_is_refused() -> None:
    with pytest.raises(InputError, match=r"samples\.start: naive datetime"):
        after_watermark(table(start=datetime(2024, 1, 1)), None)


def test_labels_are_utc() -> None:
    assert label(datetime(2024, 1, 1, 3, tzinfo=timezone(HOUR))) == "2024-01-01T02:00Z"
    assert label(START + timedelta(seconds=5)) == "2024-01-01T00:00:05Z"
