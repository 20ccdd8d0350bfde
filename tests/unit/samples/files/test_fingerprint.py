"""What a file is, whatever it is called, wherever it lies and whenever it was written."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainflow.samples.files import fingerprint
from trainflow.samples.files.fingerprint import (
    TIMES,
    file_hint,
    partition_fingerprint,
    partition_hint,
    read_content,
)

NOW = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = 10**9
NOW_NS = int(NOW.timestamp()) * SECOND


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def parquet(values: list[int], **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": values}), sink, **options)
    return bytes(sink.getvalue())


def test_read_content_small_file_counts_every_byte() -> None:
    """The same footer, sizes and statistics, and two values that have changed places."""
    one, other = (parquet(values, compression="none", use_dictionary=False) for values in ([1, 2, 3, 9], [1, 3, 2, 9]))
    assert len(one) == len(other)
    assert pq.read_metadata(io.BytesIO(one)) == pq.read_metadata(io.BytesIO(other))
    first, second = read_content(io.BytesIO(one)), read_content(io.BytesIO(other))
    assert first.fingerprint != second.fingerprint
    assert (first.whole, first.tail, first.size_bytes) == (True, one, len(one))
    assert read_content(io.BytesIO(one)).fingerprint == first.fingerprint


def test_read_content_large_parquet_reads_end_only() -> None:
    data = parquet(list(range(400_000)), compression="none", use_dictionary=False)
    assert len(data) > fingerprint.WHOLE_BYTES
    source = Counting(data)
    found = read_content(source)
    assert source.read_bytes <= 1 << 16
    assert not found.whole
    assert found.tail is not None
    assert pq.read_metadata(pa.BufferReader(found.tail)).num_rows == 400_000
    others = (list(range(1, 400_001)), [*range(399_999), 0])
    for other in others:
        assert read_content(io.BytesIO(parquet(other, compression="none"))).fingerprint != found.fingerprint


@pytest.mark.parametrize("change", ["rows in another order", "labels the other way round"])
@pytest.mark.parametrize("options", [{}, {"compression": "none"}], ids=["default", "uncompressed"])
def test_read_content_other_rows_under_same_footer_differ(change: str, options: dict[str, str]) -> None:
    random = np.random.default_rng(0)
    rows = 200_000
    ids, labels = random.integers(0, 1 << 62, rows), random.integers(0, 2, rows)
    features, order = random.random(rows), random.permutation(rows)
    one = {"id": ids, "x": features}
    match change:
        case "rows in another order":
            other = {"id": ids[order], "x": features[order]}
        case _:
            one, other = {**one, "label": labels}, {**one, "label": 1 - labels}
    first, second = (io.BytesIO() for _ in range(2))
    for sink, columns in ((first, one), (second, other)):
        pq.write_table(pa.table(columns), sink, **options)
    assert first.getbuffer().nbytes == second.getbuffer().nbytes > fingerprint.WHOLE_BYTES
    assert pq.read_metadata(first) == pq.read_metadata(second)
    assert read_content(first).fingerprint != read_content(second).fingerprint


def test_read_content_long_footer_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10)
    monkeypatch.setattr(fingerprint, "_TAIL_BYTES", 16)
    data = parquet([1, 2, 3])
    found = read_content(io.BytesIO(data))
    assert found.tail is not None
    assert pq.read_metadata(pa.BufferReader(found.tail)).num_rows == 3


@pytest.mark.parametrize(
    "end", [b"PAR1", b"\xff\xff\xff\xffPAR1", b""], ids=["no length", "a footer longer than the file", "no magic"]
)
def test_read_content_other_format_is_digested_whole(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10)
    one, other = b"a" * 99 + b"\xff" * 4 + end, b"b" + b"a" * 98 + b"\xff" * 4 + end
    assert read_content(io.BytesIO(one)).fingerprint != read_content(io.BytesIO(other)).fingerprint


@pytest.mark.parametrize(("remote", "version", "same"), [(True, "etag", True), (True, "", False), (False, "e", False)])
def test_read_content_large_remote_file_is_its_etag(
    monkeypatch: pytest.MonkeyPatch, remote: bool, version: str, same: bool
) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10)
    monkeypatch.setattr(fingerprint, "REMOTE_BYTES", 20)
    found = [read_content(io.BytesIO(letter * 99), version, remote=remote).fingerprint for letter in (b"a", b"b")]
    assert (found[0] == found[1]) is same


def test_partition_fingerprint_names_order_and_content_count() -> None:
    files = [("a", "1"), ("b", "2")]
    others = [[("a", "1")], [("a", "2"), ("b", "1")], [("a", "1"), ("c", "2")], [*files, ("c", "3")], []]
    assert partition_fingerprint(files) not in [partition_fingerprint(other) for other in others]


@pytest.mark.parametrize(
    ("version", "trusted"),
    [
        ("an etag", True),
        (f"{TIMES}{NOW_NS - SECOND + 1}", True),
        (f"{TIMES}{NOW_NS - SECOND // 100}", False),  # a second write could have the same time
        (f"{TIMES}{NOW_NS - SECOND + 1}:{NOW_NS - 1}", False),  # its last change counts, whatever its last write says
        (f"{TIMES}{NOW_NS - SECOND}", False),  # a clock without fractions
        (f"{TIMES}{NOW_NS - 2 * SECOND}", True),
        (f"{TIMES}{NOW_NS + SECOND + 1}", False),  # of another clock
        ("", False),
    ],
)
def test_file_hint_is_what_later_change_would_change(version: str, trusted: bool) -> None:
    assert file_hint(version, NOW) == (version if trusted else "")


def test_file_hint_becomes_one_with_time() -> None:
    version = f"{TIMES}{NOW_NS}"
    assert file_hint(version, NOW) == ""
    assert file_hint(version, NOW + timedelta(seconds=2)) == version


def test_partition_hint_one_file_without_hint_is_none() -> None:
    assert partition_hint([("a", 1, "x"), ("b", 1, "")]) == ""
    hints = [partition_hint(files) for files in ([("a", 1, "x")], [("a", 2, "x")], [("a", 1, "y")], [("b", 1, "x")])]
    assert len({*hints}) == 4
    assert {len(hint) for hint in hints} == {16}
