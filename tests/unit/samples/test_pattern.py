from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trainflow.errors import InputError
from trainflow.samples.pattern import glob_expression, path_pattern, render_marker

MOMENT = datetime(2024, 2, 29, 17, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "folder", "root", "sortable"),
    [
        ("t/date={start:%Y-%m-%d}/", "t/date=2024-02-29", "t", True),
        ("s3://b/t/{start:%Y/%m/%d}/hour={start:%H}", "s3://b/t/2024/02/29/hour=17", "s3://b/t", True),
        ("/x/y={start:%Y}/d={start:%Y-%m-%d}/h={start:%H%M}/data", "/x/y=2024/d=2024-02-29/h=1745/data", "/x", True),
        ("t/{start:%d.%m.%Y}", "t/29.02.2024", "t", False),
        ("{start:%F}", "2024-02-29", ".", True),
        ("/{start:%F}", "/2024-02-29", "/", True),
        ("t/{start:%G-W%V}", "t/2024-W09", "t", True),
        ("t/100%/{start:%Y%j}", "t/100%/2024060", "t/100%", True),
        ("t/{start:%Y%m%d-%I%p}", "t/20240229-05PM", "t", False),
        ("t/{start:%Y}", "t/2024", "t", True),
        ("t/{{x}}/{start:%F}", "t/{x}/2024-02-29", "t/{x}", True),
        ("t/year={start:%Y}/month={start:%-m}/day={start:%-d}/", "t/year=2024/month=2/day=29", "t", True),
        ("t/%-m/{start:%Y%%-%-m}", "t/%-m/2024%-2", "t/%-m", True),
        ("data/events-{start:%Y%m%d}.parquet", "data/events-20240229.parquet", "data", True),
    ],
)
def test_pattern_names_folders(path: str, folder: str, root: str, sortable: bool) -> None:
    pattern = path_pattern(path)
    assert (pattern.render(MOMENT), pattern.root, pattern.sortable) == (folder, root, sortable)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("t/", "has no time pattern"),
        ("t/{start:%s}", "cannot be used here"),
        ("t/{start:%-p}", "cannot be used here"),
        ("t/{start}", "with a format"),
        ("t/{end:%Y-%m-%d}", "only the partition's start"),
        ("t/{start:%Y", "samples.path"),
        ("t/{start:%Y%-m%-d}", "'111' could be 1 and 11"),
        ("t/{start:%Y-%-m0%-d}", "'111' could be 1 and 11"),
        ("t/*/{start:%Y-%m-%d}", r"has '*' in it"),
        ("t/{start:%Y-%m-%d}/part-?.parquet", r"has '?' in it"),
        ("t/[ab]/{start:%Y-%m-%d}", r"has '[' in it"),
    ],
)
def test_path_that_is_no_pattern_is_refused(path: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        path_pattern(path)
    assert problem in str(caught.value)
    assert "samples.path" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "names_a_file", "folder"),
    [
        ("data/events-{start:%Y%m%d}.parquet", True, "data"),
        ("{start:%F}.parquet", True, "."),
        ("data/{start:%F}/part.csv", True, "data/2024-02-29"),
        ("data/{start:%F}.json.gz", True, "data"),
        ("data/events-{start:%Y%m%d}.parquet/", False, "data/events-20240229.parquet"),
        ("data/{start:%Y.%m.%d}", False, "data/2024.02.29"),
        ("data/v1.2/{start:%F}", False, "data/v1.2/2024-02-29"),
        ("data/{start:%F}/v1.2", False, "data/2024-02-29/v1.2"),
    ],
)
def test_path_names_file_when_it_ends_with_suffix(path: str, names_a_file: bool, folder: str) -> None:
    pattern = path_pattern(path)
    assert (pattern.names_a_file, pattern.folder(MOMENT)) == (names_a_file, folder)


def test_numbers_without_zeros_are_read_and_sorted_as_numbers() -> None:
    month = path_pattern("t/month={start:%-m}/{start:%Y}").segments[0]
    assert [month.key(f"month={name}") for name in ("1", "2", "10", "01", "100", "x")] == [
        (1,), (2,), (10,), None, None, None,
    ]  # fmt: skip


def test_marker_may_hold_start() -> None:
    assert render_marker("_SUCCESS", MOMENT) == "_SUCCESS"
    assert render_marker("events-{start:%Y%m%d}.parquet.done", MOMENT) == "events-20240229.parquet.done"
    with pytest.raises(InputError, match=r"samples\.ready\.marker"):
        render_marker("{name}.done", MOMENT)


@pytest.mark.parametrize(
    "name", ["date=2024-02-30", "date=__HIVE_DEFAULT_PARTITION__", "date=2024-02-29.tmp", "_SUCCESS"]
)
def test_name_that_is_no_partition_means_nothing(name: str) -> None:
    assert path_pattern("t/date={start:%Y-%m-%d}/").earliest((name,)) is None


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
def test_pattern_globs_match(glob: str, name: str, matches: bool) -> None:
    assert bool(glob_expression(glob).fullmatch(name)) is matches
