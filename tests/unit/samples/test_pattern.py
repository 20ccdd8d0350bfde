from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainflow.errors import InputError
from trainflow.samples.pattern import glob_expression, path_pattern

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 7 * 86400
MOMENT = datetime(2024, 2, 29, 17, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "length", "folder", "root", "sortable"),
    [
        ("t/date={start:%Y-%m-%d}/", DAY, "t/date=2024-02-29", "t", True),
        ("s3://b/t/{start:%Y/%m/%d}/hour={start:%H}", HOUR, "s3://b/t/2024/02/29/hour=17", "s3://b/t", True),
        (
            "/x/y={start:%Y}/d={start:%Y-%m-%d}/h={start:%H%M}/data",
            MINUTE,
            "/x/y=2024/d=2024-02-29/h=1745/data",
            "/x",
            True,
        ),
        ("t/{start:%d.%m.%Y}", DAY, "t/29.02.2024", "t", False),
        ("{start:%F}", DAY, "2024-02-29", ".", True),
        ("/{start:%F}", DAY, "/2024-02-29", "/", True),
        ("t/{start:%G-W%V}", WEEK, "t/2024-W09", "t", True),
        ("t/100%/{start:%Y%j}", DAY, "t/100%/2024060", "t/100%", True),
        ("t/{start:%Y%m%d-%I%p}", HOUR, "t/20240229-05PM", "t", False),
        ("t/{start:%Y}", 400 * DAY, "t/2024", "t", True),
        ("t/{{x}}/{start:%F}", DAY, "t/{x}/2024-02-29", "t/{x}", True),
    ],
)
def test_a_pattern_names_folders(path: str, length: int, folder: str, root: str, sortable: bool) -> None:
    pattern = path_pattern(path, length)
    assert (pattern.render(MOMENT), pattern.root, pattern.sortable) == (folder, root, sortable)


@pytest.mark.parametrize(
    ("path", "length", "problem"),
    [
        ("t/", DAY, "has no time pattern"),
        ("t/{start:%Y-%m-%d}", HOUR, "no hour"),
        ("t/{start:%Y-%m-%dT%H}", 30 * MINUTE, "no minute"),
        ("t/{start:%Y-%m-%dT%H:%M}", 90, None),
        ("t/{start:%Y-%m-%dT%H%M}", 30, "no second"),
        ("t/{start:%Y-%m}", WEEK, "no day"),
        ("t/{start:%m-%d}", DAY, "no year"),
        ("t/{start:%Y-%d}", DAY, "no month"),
        ("t/{start:%Y-W%V}", WEEK, "ISO year"),
        ("t/{start:%G-%m-%d}", DAY, "no year"),
        ("t/{start:%Y-%m-%d %I}", HOUR, "no hour"),
        ("t/{start:%s}", DAY, "cannot be used here"),
        ("t/{start}", DAY, "with a format"),
        ("t/{end:%Y-%m-%d}", DAY, "only the partition's start"),
        ("t/{start:%Y", DAY, "samples.path"),
    ],
)
def test_a_pattern_that_partitions_would_share_is_refused(path: str, length: int, problem: str | None) -> None:
    if problem is None:
        path_pattern(path, length)
        return
    with pytest.raises(InputError) as caught:
        path_pattern(path, length)
    assert problem in str(caught.value)
    assert "samples.path" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "length"),
    [
        ("t/date={start:%Y-%m-%d}/hour={start:%H}", HOUR),
        ("t/{start:%d.%m.%y %H-%M}", 15 * MINUTE),
        ("t/{start:%G}/{start:%V}", WEEK),
        ("t/{start:%Y-%U}", WEEK),
        ("t/{start:%Y%j}", DAY),
        ("t/{start:%B %d, %Y}/{start:%I %p}", HOUR),
        ("t/{start:%Y-%m}", 31 * DAY),
    ],
)
def test_no_two_partitions_share_a_folder_and_names_lead_back(path: str, length: int) -> None:
    pattern = path_pattern(path, length)
    starts = [datetime(2023, 12, 28, tzinfo=UTC) + number * timedelta(seconds=length) for number in range(200)]
    assert len({pattern.render(start) for start in starts}) == len(starts)
    for start in starts:
        earliest = pattern.earliest(pattern.names(start))
        assert earliest is not None
        assert earliest <= start < earliest + timedelta(seconds=max(length, DAY) * 2)


@pytest.mark.parametrize(
    "name", ["date=2024-02-30", "date=__HIVE_DEFAULT_PARTITION__", "date=2024-02-29.tmp", "_SUCCESS"]
)
def test_a_name_that_is_no_partition_means_nothing(name: str) -> None:
    assert path_pattern("t/date={start:%Y-%m-%d}/", DAY).earliest((name,)) is None


@pytest.mark.parametrize(
    ("glob", "name", "matches"),
    [
        ("*.parquet", "a.parquet", True),
        ("*.parquet", "k=1/a.parquet", False),
        ("**/*.parquet", "a.parquet", True),
        ("**/*.parquet", "k=1/l=2/a.parquet", True),
        ("part-[0-9].parquet", "part-7.parquet", True),
        ("part-[!0-9].parquet", "part-7.parquet", False),
        ("part-?.parquet", "part-77.parquet", False),
        ("a.parquet", "axparquet", False),
        ("**", "k=1/a", True),
    ],
)
def test_globs(glob: str, name: str, matches: bool) -> None:
    assert bool(glob_expression(glob).fullmatch(name)) is matches
