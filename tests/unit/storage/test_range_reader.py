from __future__ import annotations

import io
import random

from trainflow.storage.range_reader import LEAST_BYTES, RangeReader


def test_range_reader_reads_as_a_file_does_whatever_is_asked() -> None:
    content = random.Random(1).randbytes(5 * LEAST_BYTES + 7)
    for tail in (0, 1000, len(content)):
        chance = random.Random(tail)
        reader = RangeReader(lambda a, b: content[a:b], len(content), content[len(content) - tail :] if tail else b"")
        same = io.BytesIO(content)
        for _ in range(300):
            if chance.random() < 0.4:
                offset, whence = chance.randrange(-20, len(content) + 20), chance.choice((0, 1, 2))
                offset = abs(offset) if whence == 0 else offset if whence == 1 else -abs(offset)
                if same.tell() * (whence == 1) + len(content) * (whence == 2) + offset < 0:
                    continue
                assert reader.seek(offset, whence) == same.seek(offset, whence)
            else:
                size = chance.choice((0, 1, 100, LEAST_BYTES, 3 * LEAST_BYTES, -1))
                assert reader.read(size) == same.read(size)
            assert reader.tell() == same.tell()


def test_range_reader_asks_little_where_a_file_is_read_on() -> None:
    content = bytes(64 * LEAST_BYTES)
    asked: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        asked.append((start, end))
        return content[start:end]

    reader = io.BufferedReader(RangeReader(fetch, len(content)), 1000)
    assert b"".join(iter(lambda: reader.read(777), b"")) == content
    assert len(asked) < 10
    assert [end for _, end in asked[:-1]] == [start for start, _ in asked[1:]]


def test_range_reader_piece_that_failed_is_read_again_from_where_it_was() -> None:
    fails = [True]

    def fetch(start: int, end: int) -> bytes:
        if fails:
            fails.pop()
            raise ConnectionError
        return b"0123456789"[start:end]

    reader = RangeReader(fetch, 10)
    reader.seek(3)
    try:
        reader.read(4)
    except ConnectionError:
        assert reader.read(4) == b"3456"
