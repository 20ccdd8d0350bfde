"""What the last bytes of a file prove."""

from __future__ import annotations

import gzip
import io
from datetime import UTC, datetime, timedelta

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.errors import SampleDamaged
from trainflow.samples.files.truncation import TAIL_BYTES, first_unfinished, is_complete, refuse_truncated
from trainflow.samples.splits.gap_policy import Waiting
from trainflow.samples.splits.next_split import SplitFound, next_split
from trainflow.storage.store import StoreFile
from trainflow.storage.urls import open_storage


@pytest.fixture(scope="module")
def whole() -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"x": [1, 2, 3]}), written)
    return written.getvalue()


def test_wholeness_of_cut_file_is_denied(whole: bytes) -> None:
    assert is_complete(whole[-TAIL_BYTES:], len(whole))
    assert not any(is_complete(whole[:size][-TAIL_BYTES:], size) for size in range(len(whole)))


@pytest.mark.parametrize(
    ("tail", "size"),
    [
        (b"\x00\x01\x00\x00PAR1", 100),
        (b"\xff\xff\xff\xffPAR1", 100),
        (b"\x00\x00\x00\x00PAR1", 100),
        (bytes(8), 100),
        (b"\x10\x00\x00\x00PAR1", 8),
    ],
)
def test_footer_that_is_not_in_file_is_not_there_yet(tail: bytes, size: int) -> None:
    assert not is_complete(tail, size)


@pytest.mark.parametrize("where", ["local", "memory"])
def test_wholeness_names_first_unfinished_file(where: str, whole: bytes, tmp_path) -> None:
    folder = str(tmp_path) if where == "local" else "memory://wholeness"
    storage = open_storage(folder, {}, None)
    for name, content in {"a.parquet": whole, "b.parquet": whole[:-1], "c.csv": b"x", "d.parquet": b""}.items():
        storage.replace(f"{folder}/{name}", content)
    files = storage.listing(folder, recursive=False) or []
    assert first_unfinished(storage, folder, files) == "b.parquet"
    assert first_unfinished(storage, folder, [files[0], files[2]]) is None
    assert first_unfinished(storage, folder, [files[3]]) == "d.parquet"


# the time in its header would be in the names of tests, which each worker collects for itself
GZIP = gzip.compress(b"one\n" * 1000, mtime=0)


@pytest.mark.parametrize(
    ("name", "whole", "cuts"),
    [
        ("a.jsonl", b'{"x": 1}\n{"x": 2}\n', (1, 13)),
        ("a.ndjson", b'{"x": 1}\n{"x": 2}', (13,)),
        ("a.jsonl.gz", GZIP, (0, 5, len(GZIP) // 2, len(GZIP) - 1)),
        ("a.csv.gz", GZIP + GZIP, (len(GZIP) + 3, 2 * len(GZIP) - 1)),
        ("a.zip", b"PK\x03\x04 data PK\x05\x06" + bytes(18), (0, 6)),
        ("a.orc", b"ORC data ORC\x10", (0, 8)),
        ("a.feather", b"ARROW1 data ARROW1", (0, 8)),
        ("000000_0", b"1,2\n", (0,)),
        ("a.csv", b"", ()),
        ("a.jsonl", b"", ()),
        ("a.csv", b"1,2\n3", ()),
    ],
)
def test_wholeness_refuses_cut_and_admits_whole(name: str, whole: bytes, cuts: tuple[int, ...], tmp_path) -> None:
    storage = open_storage(str(tmp_path), {}, None)
    path = f"{tmp_path}/{name}"
    storage.replace(path, whole)
    refuse_truncated(storage, path, StoreFile(name, len(whole), None, ""), True)
    for cut in cuts:
        storage.replace(path, whole[:cut])
        with pytest.raises(SampleDamaged, match=name.replace(".", r"\.")):
            refuse_truncated(storage, path, StoreFile(name, cut, None, ""), True)


def test_cut_line_of_json_is_waited_for_then_refused(daily, now) -> None:
    samples = msgspec.structs.replace(daily.samples, files="*.jsonl")
    daily.folder(0).mkdir(parents=True)
    (daily.folder(0) / "_SUCCESS").touch()
    (daily.folder(0) / "a.jsonl").write_text('{"x": 1}\n{"x":')
    written = datetime.now(UTC)
    assert isinstance(next_split(samples, None, None, written, daily.root), Waiting)
    with pytest.raises(SampleDamaged, match="is cut in its last line"):
        next_split(samples, None, None, written + timedelta(seconds=601), daily.root)
    (daily.folder(0) / "a.jsonl").write_text('{"x": 1}\n{"x": 2}')
    assert isinstance(next_split(samples, None, None, written, daily.root), SplitFound)
