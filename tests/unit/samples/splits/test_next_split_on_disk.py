"""The rule that chooses the next split, over tables written to disk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.unit.samples.imagined import DAY, START, shape
from trainflow.errors import SampleCheckFailed, SampleDamaged
from trainflow.samples.spec import Checks, Samples
from trainflow.samples.splits.gap_policy import Waiting
from trainflow.samples.splits.next_split import CaughtUp, SplitFound, next_split
from trainflow.samples.table.inventory import open_inventory


def test_next_split_same_question_has_same_answer(daily, now) -> None:
    daily.write(0, 1, 2)
    first = next_split(daily.samples, None, None, now, daily.root)
    again = next_split(daily.samples, None, None, now + 100 * DAY, daily.root)
    assert first == again
    assert isinstance(first, SplitFound)
    assert isinstance(again, SplitFound)
    assert first.split.digest == again.split.digest
    assert first.split.rows == 30
    assert [file.path for file in first.split.files][:1] == ["data/date=2024-01-01/a.parquet"]
    assert msgspec.json.decode(msgspec.json.encode(first), type=SplitFound) == first


def test_content_that_changes_changes_fingerprint(daily, now) -> None:
    daily.write(0, 1, at=now - DAY)
    before = next_split(daily.samples, None, None, now, daily.root).split
    daily.write(1, rows=11, at=now - DAY)
    after = next_split(daily.samples, None, None, now, daily.root).split
    assert before.digest != after.digest
    same = [a.fingerprint == b.fingerprint for a, b in zip(before.partitions, after.partitions, strict=True)]
    assert same == [True, False]


def test_listing_is_enough_to_know_partition_again(daily, now) -> None:
    daily.write(0, 1, at=now - DAY)
    (trained, grown) = next_split(daily.samples, None, None, now, daily.root).split.partitions
    daily.write(1, rows=11, at=now - DAY)
    seen = open_inventory(daily.samples, daily.root, now)
    assert seen.fingerprint(trained.start) == trained.fingerprint
    assert seen.fingerprint(grown.start) not in (None, grown.fingerprint)
    assert seen.fingerprint(START + 2 * DAY) is None
    assert seen._footers == {}


def test_newest_partition_is_last_one_that_is_ready_and_has_rows(daily, now) -> None:
    assert open_inventory(daily.samples, daily.root, now).newest(START) is None
    daily.write(0, 1, 4, 5, at=now - DAY)
    (daily.folder(5) / "a.parquet").unlink()
    daily.write(*range(6, 80), marker=None)
    seen = open_inventory(daily.samples, daily.root, now)
    assert seen.newest(START) == START + 4 * DAY
    assert seen.newest(START, START + 4 * DAY) == START + 4 * DAY
    assert seen.newest(START, START + 3 * DAY) == START + DAY
    assert seen.newest(START + 5 * DAY) is None
    before = msgspec.structs.replace(daily.samples, end=START + 3 * DAY)
    assert open_inventory(before, daily.root, now).newest(START) == START + DAY


def test_table_that_does_not_exist_yet(daily, now) -> None:
    found = next_split(daily.samples, None, None, now, daily.root)
    assert isinstance(found, CaughtUp)
    assert "does not exist" in found.reason


def test_empty_folder_is_missing(daily, now) -> None:
    daily.folder(0).mkdir(parents=True)
    assert isinstance(next_split(daily.samples, None, None, now, daily.root), CaughtUp)


def test_neighbours_that_are_no_partitions_are_left_alone(daily, now) -> None:
    daily.write(0)
    for name in ("date=__HIVE_DEFAULT_PARTITION__", "date=2024-02-30", "_temporary", "date=2024-01-05.tmp"):
        (daily.root / "data" / name).mkdir()
    (daily.root / "data" / "date=2024-03-01").write_text("a file and no folder")
    found = next_split(daily.samples, START + DAY, None, now, daily.root)
    assert isinstance(found, CaughtUp)


PARTIAL = {
    "nothing yet": lambda whole: b"",
    "a magic": lambda whole: whole[:4],
    "no footer": lambda whole: whole[: len(whole) // 2],
    "half a footer": lambda whole: whole[:-20],
    "no magic at the end": lambda whole: whole[:-1],
    "a footer longer than the file": lambda whole: whole[-100:],
    "room that was reserved": lambda whole: whole[:-100] + bytes(100),
}


@pytest.mark.parametrize("partial", PARTIAL.values(), ids=PARTIAL.keys())
def test_next_split_any_partial_file_is_waited_for_then_refused(daily, partial) -> None:
    daily.write(0)
    file = daily.folder(0) / "a.parquet"
    file.write_bytes(partial(file.read_bytes()))
    written = datetime.now(UTC)
    found = next_split(daily.samples, None, None, written + timedelta(seconds=590), daily.root)
    assert isinstance(found, Waiting)
    assert "data/date=2024-01-01/a.parquet cannot be read as Parquet" in found.reason
    with pytest.raises(SampleDamaged, match=r"a\.parquet cannot be read as Parquet") as refused:
        next_split(daily.samples, None, None, written + timedelta(seconds=601), daily.root)
    assert refused.value.partition == START


def test_partition_with_its_marker_alone_has_no_rows(daily) -> None:
    daily.write(0, 2)
    daily.folder(1).mkdir()
    (daily.folder(1) / "_SUCCESS").touch()
    written = datetime.now(UTC)
    found = next_split(daily.samples, START + DAY, None, written, daily.root)
    assert isinstance(found, Waiting)
    assert "counts as empty at" in found.reason
    found = next_split(daily.samples, None, None, written + timedelta(seconds=601), daily.root)
    assert shape(found) == "PPP"
    assert isinstance(found, SplitFound)
    assert (found.split.partitions[1].rows, found.split.partitions[1].files, found.split.rows) == (0, (), 20)


def test_checks_name_file_column_expected_and_found(daily, now) -> None:
    daily.write(0)
    samples = msgspec.structs.replace(daily.samples, checks=Checks(columns={"x": "string", "y": None}))
    with pytest.raises(SampleCheckFailed) as caught:
        next_split(samples, None, None, now, daily.root)
    assert caught.value.partition == START
    assert caught.value.problems == (
        "a.parquet: column 'x': expected string, found int64",
        "a.parquet: column 'y': expected any type, found no such column",
    )


def test_files_that_are_no_parquet_have_no_rows(tmp_path: Path, now) -> None:
    samples = Samples(path="t/{start:%F}", length_seconds=86400, start=START, files="*.csv")
    (tmp_path / "t/2024-01-01").mkdir(parents=True)
    (tmp_path / "t/2024-01-01/a.csv").write_text("x\n1\n")
    (tmp_path / "t/2024-01-01/_SUCCESS").touch()
    found = next_split(samples, None, None, now, tmp_path)
    assert isinstance(found, SplitFound)
    assert (found.split.rows, found.split.bytes) == (None, 4)
