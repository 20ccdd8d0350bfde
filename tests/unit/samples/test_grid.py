"""Which paths, lengths and starts fit together; every partition has a name that means its start."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from trainflow.errors import InputError
from trainflow.samples.grid import Grid, check_table, file_problem, length_problem, nests, start_problem
from trainflow.samples.partitions import shift
from trainflow.samples.pattern import path_pattern
from trainflow.samples.spec import Ready, Samples

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86400, 7 * 86400
START = datetime(2024, 1, 1, tzinfo=UTC)
MONTH, QUARTER, YEAR = {"length_months": 1}, {"length_months": 3}, {"length_months": 12}


def grid(length: int | dict[str, int], path: str = "", start: datetime = START) -> Grid:
    return Grid(path, start, **length) if isinstance(length, dict) else Grid(path, start, length)


@pytest.mark.parametrize(
    ("path", "length", "problem"),
    [
        ("t/{start:%Y-%m-%d}", HOUR, "no hour"),
        ("t/{start:%Y-%m-%dT%H}", 30 * MINUTE, "no minute"),
        ("t/{start:%Y-%m-%dT%H:%M}", 90, "whole minutes"),
        ("t/{start:%Y-%m-%dT%H:%M:%S}", 90, None),
        ("t/{start:%Y-%m-%dT%H%M}", 30, "no second"),
        ("t/{start:%Y-%m-%dT%H}", 90 * MINUTE, "whole hours"),
        ("t/{start:%Y-%m-%dT%H}", 36 * HOUR, None),
        ("t/{start:%Y-%m-%d}", 36 * HOUR, "whole days"),
        ("t/{start:%Y-%m-%d}", 31 * DAY, None),
        ("t/{start:%G-W%V}", WEEK, None),
        ("t/{start:%G-W%-V}", 2 * WEEK, None),
        ("t/{start:%G-W%V}", 10 * DAY, "whole weeks"),
        ("t/{start:%G-W%V}", MONTH, "whole weeks"),
        ("t/{start:%Y-%m}", WEEK, "no day"),
        ("t/{start:%Y-%m}", 31 * DAY, "calendar months: 1mo"),
        ("t/{start:%Y-%m}", MONTH, None),
        ("t/{start:%Y-%-m}", QUARTER, None),
        ("t/{start:%Y-%m-%d}", MONTH, None),
        ("t/{start:%Y/%B}", YEAR, None),
        ("t/{start:%Y}", 400 * DAY, "calendar years: 1y"),
        ("t/{start:%Y}", 31 * DAY, "no month"),
        ("t/{start:%Y}", MONTH, "no month"),
        ("t/{start:%Y}", YEAR, None),
        ("t/{start:%Y}", {"length_months": 18}, "calendar years"),
        ("t/{start:%m-%d}", DAY, "no year"),
        ("t/{start:%Y-%d}", DAY, "no month"),
        ("t/{start:%Y-W%V}", WEEK, "ISO year"),
        ("t/{start:%G-%m-%d}", DAY, "no year"),
        ("t/{start:%Y-%m-%d %I}", HOUR, "no hour"),
    ],
)
def test_length_that_names_cannot_tell_apart_is_refused(
    path: str, length: int | dict[str, int], problem: str | None
) -> None:
    found = length_problem(path_pattern(path), grid(length))
    assert (found is None) == (problem is None), found
    if found is not None and problem is not None:
        assert problem in found
        assert "samples.path" in found


@pytest.mark.parametrize(
    ("path", "length", "start", "problem"),
    [
        ("t/{start:%Y-%m-%dT%H}", HOUR, datetime(2024, 1, 1, 0, 30, tzinfo=UTC), "means 2024-01-01T00:00Z"),
        ("t/{start:%Y-%m-%d}", DAY, datetime(2024, 1, 1, 6, tzinfo=UTC), "means 2024-01-01T00:00Z"),
        ("t/{start:%G-W%V}", WEEK, datetime(2024, 1, 3, tzinfo=UTC), "means 2024-01-01T00:00Z"),
        ("t/{start:%Y-%U}", WEEK, datetime(2024, 1, 7, tzinfo=UTC), None),
        ("t/{start:%Y-%m}", MONTH, datetime(2024, 1, 2, tzinfo=UTC), "means 2024-01-01T00:00Z"),
        ("t/{start:%Y-%m-%d}", MONTH, datetime(2024, 1, 15, tzinfo=UTC), None),
        ("t/{start:%Y-%m-%d}", MONTH, datetime(2024, 1, 31, tzinfo=UTC), "is day 31 of a month"),
        ("t/{start:%Y-%m-%d}", YEAR, datetime(2024, 2, 29, tzinfo=UTC), "is day 29 of a month"),
        ("t/{start:%Y-%m-%d}", DAY, datetime(2024, 1, 31, tzinfo=UTC), None),
    ],
)
def test_start_that_has_no_name_of_its_own_is_refused(
    path: str, length: int | dict[str, int], start: datetime, problem: str | None
) -> None:
    found = start_problem(path_pattern(path), grid(length, path, start))
    assert (found is None) == (problem is None), found
    assert problem is None or problem in str(found)


@pytest.mark.parametrize(
    ("path", "length", "start"),
    [
        ("t/date={start:%Y-%m-%d}/hour={start:%H}", HOUR, START),
        ("t/year={start:%Y}/month={start:%-m}/day={start:%-d}/", DAY, START),
        ("t/{start:%d.%m.%y %H-%M}", 15 * MINUTE, START),
        ("t/{start:%G}/{start:%V}", WEEK, START),
        ("t/{start:%Y-%U}", WEEK, datetime(2023, 12, 31, tzinfo=UTC)),
        ("t/{start:%Y%j}", DAY, START),
        ("t/{start:%B %d, %Y}/{start:%I %p}", HOUR, START),
        ("t/{start:%Y-%m}", MONTH, START),
        ("t/{start:%Y-%-m-%-d}.parquet", QUARTER, datetime(2024, 1, 28, tzinfo=UTC)),
        ("t/{start:%y}", YEAR, START),
    ],
)
def test_grid_names_are_unique_and_lead_back(path: str, length: int | dict[str, int], start: datetime) -> None:
    pattern, cut = path_pattern(path), grid(length, path, start)
    assert length_problem(pattern, cut) is None
    assert start_problem(pattern, cut) is None
    starts = [shift(cut, start, number) for number in range(40 if "%y}" in path else 200)]
    assert len({pattern.render(moment) for moment in starts}) == len(starts)
    assert [pattern.start_of(pattern.names(moment)) for moment in starts] == starts


FILE = "data/events-{start:%Y%m%d}.parquet"


@pytest.mark.parametrize(
    ("path", "files", "ready", "problem"),
    [
        (FILE, "*.parquet", Ready(), None),
        (FILE, "*.parquet", Ready(min_files=1), None),
        (FILE, "part-*.parquet", Ready(), "has nothing to choose"),
        (FILE, "*.parquet", Ready(marker="_SUCCESS"), "'events-{start:%Y%m%d}.parquet.done'"),
        (FILE, "*.parquet", Ready(marker="events-{start:%Y%m%d}.parquet.done"), None),
        (
            "data/{start:%F}/",
            "*.parquet",
            Ready(marker="../_SUCCESS"),
            "ready.marker '../_SUCCESS' names nothing in the",
        ),
        (
            "data/{start:%F}/",
            "*.parquet",
            Ready(marker="../{start:%F}.done"),
            "names nothing in the",
        ),
        ("data/{start:%F}/", "*.parquet", Ready(marker="/data/_SUCCESS"), "names nothing in the"),
        ("data/{start:%F}/", "*.parquet", Ready(marker="./_SUCCESS"), "names nothing in the"),
        ("data/{start:%F}/", "*.parquet", Ready(marker="s3://b/_SUCCESS"), "names nothing in the"),
        ("data/{start:%F}/", "part/../*.parquet", Ready(), "samples.files 'part/../*.parquet' names nothing in the"),
        ("data/{start:%F}/", "part/", Ready(), "samples.files 'part/' names nothing in the"),
        ("data/{start:%F}/", "part/*.parquet", Ready(marker="log/*.done"), None),
        ("data/{start:%F}/", "a..b.parquet", Ready(marker="..done"), None),
        ("data/{start:%F}/part.parquet", "*.parquet", Ready(marker="_SUCCESS"), None),
        ("data/{start:%F}/", "part-*.parquet", Ready(marker="_SUCCESS"), None),
    ],
)
def test_grid_of_single_file_refuses_other_options(path: str, files: str, ready: Ready, problem: str | None) -> None:
    found = file_problem(path_pattern(path), files, ready)
    assert (found is None) == (problem is None), found
    assert problem is None or problem in str(found)


@pytest.mark.parametrize(
    ("outer", "inner", "fits"),
    [
        (grid(DAY), grid(HOUR), True),
        (grid(HOUR), grid(DAY), False),
        (grid(DAY), grid(DAY, start=datetime(2024, 1, 1, 1, tzinfo=UTC)), False),
        (grid(DAY), grid(HOUR, start=datetime(2024, 1, 1, 1, tzinfo=UTC)), True),
        (grid(MONTH), grid(DAY), True),
        (grid(MONTH), grid(WEEK), False),
        (grid(QUARTER), grid(MONTH), True),
        (grid(MONTH), grid(QUARTER), False),
        (grid(DAY), grid(MONTH), False),
        (grid(MONTH, start=datetime(2024, 1, 15, tzinfo=UTC)), grid(MONTH), False),
        (grid(YEAR), grid(QUARTER, start=datetime(2023, 10, 1, tzinfo=UTC)), True),
    ],
)
def test_grids_nest_when_finer_one_has_every_boundary_of_other(outer: Grid, inner: Grid, fits: bool) -> None:
    assert nests(outer, inner) is fits


@pytest.mark.parametrize(
    "length", [{}, {"length_seconds": 30}, {"length_seconds": 60, "length_months": 1}, {"length_months": -1}]
)
def test_table_has_one_length(length: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="need one length"):
        Samples(path="t/{start:%F}", start=START, **length)


def test_table_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(InputError, match="no hour"):
        check_table(Samples(path="t/{start:%F}", start=START, length_seconds=HOUR))
    with pytest.raises(InputError, match=r"samples\.start: naive datetime"):
        check_table(Samples(path="t/{start:%F}", start=datetime(2024, 1, 1), length_seconds=DAY))
