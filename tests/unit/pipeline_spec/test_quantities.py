from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.pipeline_spec.quantities import (
    Length,
    format_duration,
    format_length,
    format_moment,
    parse_duration,
    parse_length,
    parse_moment,
    parse_size,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("45m", 2700), ("6h", 21_600), ("1d", 86_400), ("1h30m", 5400), ("2w", 1_209_600), ("0s", 0)],
)
def test_duration_is_sum_of_its_parts(written: str, seconds: int) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["", "d", "1.5h", "30", 30, "30m1h", "1 h", "-1h", None, "1D", "9" * 30 + "w"])
def test_duration_wrong_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        parse_duration(written)


@given(st.integers(min_value=0, max_value=10**9))
def test_duration_survives_being_written(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("written", "length", "back"),
    [
        ("1h", Length(3600), "1h"), ("2w", Length(1_209_600), "14d"), ("1m", Length(60), "1m"),
        ("1mo", Length(months=1), "1mo"), ("3mo", Length(months=3), "3mo"), ("1y", Length(months=12), "1y"),
        ("12mo", Length(months=12), "1y"), ("1y6mo", Length(months=18), "18mo"),
    ],
)  # fmt: skip
def test_length_is_fixed_or_of_calendar(written: str, length: Length, back: str) -> None:
    assert parse_length(written) == length
    assert format_length(length) == back


@pytest.mark.parametrize("written", ["", "mo", "1mo1d", "1d1mo", "1M", "1 month", 1, None])
def test_length_wrong_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match="1mo, 3mo, 1y"):
        parse_length(written)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2013-01-01", datetime(2013, 1, 1, tzinfo=UTC)),
        ("2013-01-01T06:30:00Z", datetime(2013, 1, 1, 6, 30, tzinfo=UTC)),
        ("2013-01-01 06:30:00", datetime(2013, 1, 1, 6, 30, tzinfo=UTC)),
        ("2013-01-01T02:00:00+02:00", datetime(2013, 1, 1, tzinfo=UTC)),
    ],
)
def test_moment_without_zone_is_utc(written: str, moment: datetime) -> None:
    read = parse_moment(written)
    assert read == moment
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize("written", ["2013-13-01", "20130101", "tomorrow", 20130101, None, "2013-01-01T25:00"])
def test_moment_wrong_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match="2013-01-01T06:00:00Z"):
        parse_moment(written)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)))
def test_moment_survives_being_written(moment: datetime) -> None:
    assert parse_moment(format_moment(moment)) == moment


@pytest.mark.parametrize(
    ("written", "size"),
    [(1000, 1000), ("1000", 1000), ("512MB", 512_000_000), ("2GiB", 2 * 2**30), ("10 kB", 10_000), ("7B", 7)],
)
def test_size_with_unit_is_bytes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "MB", "1.5GB", "10 parsecs", True, None, "5iB"])
def test_size_wrong_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(written)
