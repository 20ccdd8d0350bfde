"""A file of an object store that is read piece by piece: what is asked for in a row is fetched ahead."""

from __future__ import annotations

import io
from collections.abc import Callable

#: the least that is fetched, and the most that is fetched ahead of what was asked for
LEAST_BYTES, MOST_AHEAD_BYTES = 64 << 10, 8 << 20


class RangeReader(io.RawIOBase):
    """A file of `size` bytes, of which `fetch(start, end)` gets a part. `tail` is its end, where that is known already:
    formats that keep a footer are opened without another request."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, tail: bytes = b"") -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._tail, self._tail_start = tail, size - len(tail)
        self._part, self._part_start = b"", 0
        self._ahead = LEAST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readall(self) -> bytes:
        return self.read(self._size - self._position)

    def read(self, size: int | None = -1) -> bytes:
        """All that was asked for, unless the file ends: as a buffered file does."""
        if size is None or size < 0:
            size = self._size - self._position
        end = min(self._position + size, self._size)
        if end <= self._position:
            return b""
        data = self._between(self._position, end)
        self._position += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _between(self, start: int, end: int) -> bytes:
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : end - self._tail_start]
        part_end = self._part_start + len(self._part)
        if self._part_start <= start and end <= part_end:
            return self._part[start - self._part_start : end - self._part_start]
        in_a_row = self._part_start <= start <= part_end and self._part != b""
        known = self._part[start - self._part_start :] if in_a_row else b""
        # twice as far ahead each time that the file is read on
        self._ahead = min(self._ahead * 2, MOST_AHEAD_BYTES) if in_a_row else LEAST_BYTES
        first = start + len(known)
        until = min(max(end, first + self._ahead), self._size)
        self._part, self._part_start = known + self._fetch(first, until), start
        return self._part[: end - start]
