"""What a person most likely meant, from what is in the folder."""

from __future__ import annotations

import pytest

from trainflow.samples.pattern import path_pattern
from trainflow.samples.table.empty_table import suggest_segment


@pytest.mark.parametrize(
    ("segment", "names", "fix"),
    [
        ("month={start:%m}", ["month=1", "month=2"], "write 'month={start:%-m}'"),
        ("{start:%Y-%m-%d}", ["2024-1-5"], "write '{start:%Y-%-m-%-d}'"),
        ("month={start:%-m}", ["month=01"], "write 'month={start:%m}'"),
        ("Date={start:%F}", ["date=2024-01-01"], "'date=2024-01-01' differs in upper and lower case only"),
        ("dt={start:%F}", ["date=2024-01-01"], "write 'date={start:%Y-%m-%d}'"),
        ("dt={start:%F}", ["2024-01-01"], "write '{start:%Y-%m-%d}'"),
        ("{start:%F}", ["dt=2024-01-01"], "write 'dt={start:%Y-%m-%d}'"),
        ("{start:%Y%m%d}", ["20240101.parquet"], "write '{start:%Y%m%d}.parquet'"),
        ("evnts-{start:%Y%m%d}.parquet", ["events-20240101.parquet"], "write 'events-{start:%Y%m%d}.parquet'"),
        ("dt={start:%F}", ["something", "_SUCCESS"], None),
        ("dt={start:%F}", ["backup_of_everything_2024-01-01"], None),
        ("dt={start:%F}", [], None),
    ],
)
def test_near_miss_names_what_to_write(segment: str, names: list[str], fix: str | None) -> None:
    found = suggest_segment(path_pattern(f"t/{segment}/").segments[0], names)
    assert (found or "").startswith(fix or "")
    assert (found is None) == (fix is None)
