"""Real files that change while a split names them: found when they are opened, while they are read, and afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.errors import SampleChanged, SampleUnreadable
from trainflow.samples.files import file_binding
from trainflow.samples.files.file_binding import changes, check_unchanged
from trainflow.samples.spec import Samples
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.samples.splits.split import Split
from trainflow.samples.table import inventory

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 2
SMALL, LARGE = 100, 300_000


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "large"])
def rows(request: pytest.FixtureRequest) -> int:
    """A file that is read as a whole, and one of which the footer is."""
    found: int = request.param
    return found


@pytest.fixture
def root(disk_path: Path, rows: int) -> Path:
    for day in range(DAYS):
        write(path_of(disk_path, day), rows, 0)
    return disk_path


def path_of(root: Path, day: int) -> Path:
    return root / f"table/{START + day * timedelta(days=1):%F}/a.parquet"


def write(path: Path, rows: int, edition: int) -> None:
    """As many rows in as many row groups, and other values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = pa.table({"x": pa.array(range(edition, edition + rows), pa.int64())})
    pq.write_table(values, path, row_group_size=rows // 4, compression="none", use_dictionary=False)
    (path.parent / "_SUCCESS").touch()


def replace(path: Path, rows: int) -> None:
    aside = path.with_name("new")
    write(aside, rows, 1)
    shutil.copystat(path, aside)
    aside.rename(path)


def write_over(path: Path, rows: int) -> None:
    """In place, and the time of the last write is put back."""
    before = path.stat()
    aside = path.with_name("new")
    write(aside, rows, 1)
    with path.open("r+b") as file:
        file.write(aside.read_bytes())
        file.truncate()
    aside.unlink()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def made(root: Path) -> Split:
    samples = Samples(path="table/{start:%Y-%m-%d}/", length_seconds=86400, start=START)
    found = next_split(samples, None, None, datetime.now(UTC) + timedelta(minutes=1), root)
    assert isinstance(found, SplitFound)
    return found.split.reached_by(root=root)


Way = Callable[[Path, int], None]


@pytest.mark.parametrize("way", [replace, write_over])
def test_batches_file_changed_before_it_is_opened_is_refused(root: Path, rows: int, way: Way) -> None:
    split = made(root)
    way(path_of(root, 1), rows)
    with pytest.raises(SampleChanged) as refused:
        list(split.batches())
    (change,) = refused.value.changes
    assert (change.path, change.was) == (split.files[1].path, split.files[1].fingerprint)
    assert change.found == made(root).files[1].fingerprint


@pytest.mark.parametrize("way", [replace, write_over])
def test_check_unchanged_file_changed_while_it_is_read_is_found(root: Path, rows: int, way: Way) -> None:
    split = made(root)
    reading = split.batches(batch_size=10)
    next(reading)
    way(path_of(root, 0), rows)
    try:
        read = [value for batch in reading for value in batch["x"].to_pylist()]
    except SampleChanged:
        pass  # written over; or replaced, before the second thread that reads it opened it
    else:
        # the file that was opened is read to its end, whatever its name leads to now
        assert read == [*range(10, rows), *range(rows)]
    with pytest.raises(SampleChanged, match=r"2024-01-01/a\.parquet has changed since the split was made"):
        check_unchanged(split)


def test_batches_rows_of_file_changed_and_changed_back_are_never_handed_out(root: Path, rows: int) -> None:
    """Afterwards it is what it was, and nothing but its reader can know what was read meanwhile."""
    split = made(root)
    reading = split.batches(batch_size=rows // 4)
    path, before = path_of(root, 0), path_of(root, 0).read_bytes()
    read = next(reading)["x"].to_pylist()
    write_over(path, rows)
    with suppress(SampleChanged):
        # large files: what was not read ahead is refused; small ones were read as a whole
        for batch in reading:
            read += batch["x"].to_pylist()
    with path.open("r+b") as file:
        file.write(before)
    assert changes(split) == ()
    assert read == [*range(rows), *range(rows)][: len(read)]


def test_batches_file_touched_while_read_is_read_to_end(root: Path, rows: int) -> None:
    reading = made(root).batches(batch_size=rows // 4)
    read = next(reading)["x"].to_pylist()
    path_of(root, 0).touch()
    read += [value for batch in reading for value in batch["x"].to_pylist()]
    assert read == [*range(rows), *range(rows)]


def test_changes_file_gone_is_one_and_new_one_is_none(root: Path, rows: int) -> None:
    split = made(root)
    write(path_of(root, 0).with_name("b.parquet"), rows, 0)
    assert changes(split) == ()
    path_of(root, 1).unlink()
    (change,) = changes(split)
    assert (change.path, change.found) == (split.files[1].path, None)
    with pytest.raises(SampleChanged, match="is gone since the split was made"):
        list(split.batches())


def test_changes_folder_gone_is_one(root: Path) -> None:
    split = made(root)
    shutil.rmtree(root / "table")
    assert [change.found for change in changes(split)] == [None] * DAYS


def test_changes_touched_and_copied_files_are_same(root: Path) -> None:
    split = made(root)
    for path in root.glob("table/*/*"):
        path.touch()
    assert changes(split) == ()
    shutil.copytree(root / "table", root / "copy")
    shutil.rmtree(root / "table")
    (root / "copy").rename(root / "table")
    assert changes(split) == ()
    again = made(root)
    assert (again.digest, again.partitions[0].fingerprint) == (split.digest, split.partitions[0].fingerprint)


def test_changes_listing_that_did_not_change_opens_no_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = made(root)
    monkeypatch.setattr(file_binding, "content_now", lambda *_: pytest.fail("a file was opened"))
    assert changes(split) == ()
    path_of(root, 0).touch()
    monkeypatch.setattr(file_binding, "content_now", lambda _, path, __: pytest.skip(f"looks at {path}"))
    with pytest.raises(pytest.skip.Exception, match="2024-01-01"):
        changes(split)


def test_fingerprint_of_known_listing_opens_no_file(root: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = made(root).partitions
    samples = Samples(path="table/{start:%Y-%m-%d}/", length_seconds=86400, start=START)
    now = datetime.now(UTC) + timedelta(minutes=1)
    with monkeypatch.context() as patch:
        patch.setattr(inventory, "content_now", lambda *_: pytest.fail("a file was opened"))
        seen = inventory.open_inventory(samples, root, now)
        assert [seen.fingerprint(each.start, each) for each in trained] == [each.fingerprint for each in trained]
    path_of(root, 0).touch()
    replace(path_of(root, 1), rows)
    seen = inventory.open_inventory(samples, root, now)
    found = [seen.fingerprint(each.start, each) for each in trained]
    assert [one == each.fingerprint for one, each in zip(found, trained, strict=True)] == [True, False]


def test_changes_damaged_file_that_is_same_is_none(root: Path) -> None:
    path = path_of(root, 0)
    data = bytearray(path.read_bytes())
    data[20:60] = b"\xff" * 40
    path.write_bytes(data)
    split = made(root)
    with suppress(SampleUnreadable):
        read = [value for batch in split.batches() for value in batch["x"].to_pylist()]
        assert len(read) == split.rows
    assert changes(split) == ()
