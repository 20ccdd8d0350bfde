"""What the last bytes of a file prove."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.samples.storage import open_storage
from trainflow.samples.wholeness import TAIL_BYTES, ends_whole, first_unfinished


@pytest.fixture(scope="module")
def whole() -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"x": [1, 2, 3]}), written)
    return written.getvalue()


def test_a_whole_file_ends_whole_and_every_cut_of_it_does_not(whole: bytes) -> None:
    assert ends_whole(whole[-TAIL_BYTES:], len(whole))
    assert not any(ends_whole(whole[:size][-TAIL_BYTES:], size) for size in range(len(whole)))


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
def test_a_footer_that_is_not_in_the_file_is_not_there_yet(tail: bytes, size: int) -> None:
    assert not ends_whole(tail, size)


@pytest.mark.parametrize("where", ["local", "memory"])
def test_the_first_unfinished_file_is_named(where: str, whole: bytes, tmp_path) -> None:
    folder = str(tmp_path) if where == "local" else "memory://wholeness"
    storage = open_storage(folder, {}, None)
    for name, content in {"a.parquet": whole, "b.parquet": whole[:-1], "c.csv": b"x", "d.parquet": b""}.items():
        storage.write(f"{folder}/{name}", content)
    files = storage.files(folder, recursive=False) or []
    assert first_unfinished(storage, folder, files) == "b.parquet"
    assert first_unfinished(storage, folder, [files[0], files[2]]) is None
    assert first_unfinished(storage, folder, [files[3]]) == "d.parquet"
