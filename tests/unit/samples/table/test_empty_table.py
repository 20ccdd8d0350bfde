"""What is said when nothing of a table is found: the folders as they are, and what would make them a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from trainflow.samples.pattern import path_pattern
from trainflow.samples.spec import Ready, Samples
from trainflow.samples.splits.gap_policy import Waiting
from trainflow.samples.splits.next_split import CaughtUp, next_split
from trainflow.samples.table.empty_table import describe_folders
from trainflow.storage.urls import open_storage

START = datetime(2024, 1, 1, tzinfo=UTC)
DAILY = "data/t/dt={start:%Y-%m-%d}/"
HOURLY = "data/t/dt={start:%Y-%m-%d}/hour={start:%H}/"


@pytest.mark.parametrize(
    ("there", "path", "more", "says"),
    [
        (["dat/x"], DAILY, {}, r"the folder data/t does not exist$"),
        (["data/other/x", "data/table/x"], DAILY, {}, r"data/t does not exist; data holds other, table$"),
        (["data/t/"], DAILY, {}, r"data/t is empty, and nothing there is called as in 'dt=2024-01-01'$"),
        (
            [f"data/t/date=2024-01-0{n}/a.parquet" for n in range(1, 8)],
            DAILY,
            {},
            r"data/t holds date=2024-01-01, .*, date=2024-01-05 and 2 more, and nothing there is called as in 'dt=",
        ),
        (["data/t/dt=2024-01-01/3/a.parquet"], HOURLY, {}, r"data/t/dt=2024-01-01 holds 3, .* called as in 'hour=00'$"),
        (
            ["data/t/dt=2023-12-30/a.parquet"],
            DAILY,
            {},
            r"dt=2023-12-30, is from before samples.start 2024-01-01T00:00Z",
        ),
        (
            ["data/t/dt=2024-03-01/a.parquet"],
            DAILY,
            {"end": START + timedelta(days=5)},
            r"dt=2024-03-01, is not before samples.end 2024-01-06",
        ),
        (
            ["data/t/dt=2024-01-02/"],
            DAILY,
            {},
            r"dt=2024-01-02 is there, and there is no file in data/t/dt=2024-01-02$",
        ),
        (
            ["data/t/dt=2024-01-02"],
            DAILY,
            {},
            r"dt=2024-01-02 is a file and not a folder: name the file in samples.path",
        ),
        (["data/t/dt=2024-02-31/x"], DAILY, {}, r"dt=2024-02-31 is there, and its name is no time"),
        (
            ["data/t/dt=2024-01-02/a.parquet"],
            DAILY,
            {"length_seconds": 2 * 86400},
            r"no partition starts at 2024-01-02T00:00Z: they are counted from samples.start 2024-01-01T00:00Z",
        ),
    ],
)
def test_sighting_describes_folder(
    tmp_path: Path, now: datetime, there: list[str], path: str, more: dict[str, object], says: str
) -> None:
    for name in there:
        target = tmp_path / name
        (target if name.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            target.touch()
    samples = Samples(**{"path": path, "length_seconds": 3600 if path == HOURLY else 86400, "start": START, **more})
    found = describe_folders(samples, open_storage(path, {}, tmp_path), path_pattern(path))
    import re

    assert re.search(says, found), found
    answer = next_split(samples, None, None, now, tmp_path)
    assert isinstance(answer, CaughtUp)
    assert answer.nothing
    assert answer.reason == f"nothing is there yet for {path}: {found}"


def test_sighting_trained_table_gone_is_not_caught_up(daily, now) -> None:
    found = next_split(daily.samples, START + timedelta(days=1), None, now, daily.root)
    assert isinstance(found, CaughtUp)
    assert found.nothing
    assert "nothing is there any more" in found.reason
    assert "the folder data does not exist" in found.reason


def test_chain_that_was_trained_is_caught_up(daily, now) -> None:
    daily.write(0)
    found = next_split(daily.samples, START + timedelta(days=1), None, now, daily.root)
    assert isinstance(found, CaughtUp)
    assert not found.nothing


@pytest.mark.parametrize("marker", [None, "_DONE"])
def test_next_split_where_no_partition_has_its_marker_says_it_and_gives_up_once_they_are_old(daily, marker) -> None:
    """The marker that is asked for by default, and one that the file names."""
    daily.write(0, 1, 2, marker="_FINISHED")
    samples = msgspec.structs.replace(daily.samples, ready=Ready(marker=marker))
    written = datetime.now(UTC)
    told = (
        f"no marker was found in 3 of 3 partitions: none has {marker or '_SUCCESS'}, and data/date=2024-01-01 holds "
        "_FINISHED, a.parquet. Write the marker's name into samples.ready.marker; where none is written, "
        "samples.ready: {stable: 10m}"
    )

    soon = next_split(samples, None, None, written + timedelta(hours=20), daily.root)
    late = next_split(samples, None, None, written + timedelta(hours=25), daily.root)

    assert isinstance(soon, Waiting)
    assert told in soon.reason
    assert isinstance(late, CaughtUp)
    assert (late.nothing, late.reason) == (True, told)


def test_next_split_where_only_the_root_has_the_marker_says_so(daily, now) -> None:
    """As a job of Spark leaves it that writes several partitions."""
    daily.write(0, 1, marker=None)
    (daily.root / "data" / "_SUCCESS").touch()
    answer = next_split(daily.samples, None, None, now, daily.root)
    assert answer.reason is not None
    assert "holds a.parquet; data has one, which a job writes (Spark does) for all partitions at once" in answer.reason


@pytest.mark.parametrize("case", ["one is marked", "one is empty", "trained before", "not over"])
def test_next_split_that_may_still_get_its_marker_waits(daily, case) -> None:
    daily.write(0, 1, 2, marker=None)
    now = datetime.now(UTC) + timedelta(days=9)
    watermark = daily.start(0) if case == "trained before" else None
    match case:
        case "one is marked":
            daily.write(2)
        case "one is empty":
            (daily.folder(1) / "a.parquet").unlink()
        case "not over":
            now = daily.start(0) + timedelta(hours=23)
    answer = next_split(daily.samples, watermark, None, now, daily.root)
    assert isinstance(answer, Waiting)
    assert "no marker was found" not in answer.reason
