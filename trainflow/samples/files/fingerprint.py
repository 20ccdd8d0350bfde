"""What a sample file is: a digest of its content, and a hint that saves looking at it again. Pure, but for reading.

A *fingerprint* is content: the size, and a digest of

- the whole file, where it has at most `WHOLE_BYTES`: a small file is fetched in one request anyway;
- the end of a larger Parquet file: its footer, which is read for the counts and holds the place, the compressed size
  and the statistics of every column of every row group, with as many of the pages before it as come with the same read.
  PyArrow and Polars write labels 0 and 1 the other way round with the very same footer, PyArrow random numbers in
  another order too; the last pages show it where they hold a part of what changed. What nothing tells apart is a file
  of which each column chunk has the same compressed size, place, null count, smallest and largest value as before, and
  other values further ahead;
- the whole file, of any other format; on a remote store, where that has more than `REMOTE_BYTES`, the store's own mark
  of the content (etag) instead: reading it twice would cost more than a copy that counts as published again.

Times, owners and places are no content: `touch`, `cp -r` and another disk or store root change no fingerprint.

A *hint* is what a listing says: an etag, or the times of the last changes. The same hint means the same content. With
another one the content is looked at. A time that is so recent that a second change could have the same one is no hint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import IO, Any, NamedTuple

import msgspec

from trainflow.identifiers import canonical_json, digest
from trainflow.storage.store import TIMES

#: up to this size a file is digested as a whole
WHOLE_BYTES = 1 << 20
#: up to this size another format than Parquet is, on a remote store
REMOTE_BYTES = 1 << 26
#: what is read of the end of a larger file: most footers are shorter
_TAIL_BYTES = 1 << 16
_PIECE_BYTES = 1 << 20
_MAGICS = (b"PAR1", b"PARE")
_FRAME_BYTES = 8
_SECOND = 10**9
#: clocks of file systems tick at least so often, in nanoseconds; where they have no fractions, every other second
_TICK, _COARSE_TICK = _SECOND // 20, 2 * _SECOND


class Content(NamedTuple):
    """What was found in a file. `tail`: its last bytes, with all of a Parquet footer; None where they are of no use."""

    size_bytes: int
    fingerprint: str
    tail: bytes | None = None
    #: `tail` is all of it
    whole: bool = False


def read_content(source: IO[bytes] | Any, version: str = "", *, remote: bool = False) -> Content:
    """Look at an open file, at the cost of one read where it is small or Parquet. `version` is what a listing said."""
    size = source.seek(0, 2)
    size = source.tell() if size is None else size
    if size <= WHOLE_BYTES:
        data = _read(source, 0, size)
        return Content(size, file_fingerprint(size, "content", hashlib.sha256(data).hexdigest()), data, True)
    end = _end_of_parquet(source, size)
    if end is not None:
        return Content(size, file_fingerprint(size, "end", hashlib.sha256(end).hexdigest()), end)
    if remote and size > REMOTE_BYTES and version:
        return Content(size, file_fingerprint(size, "version", version))
    return Content(size, file_fingerprint(size, "content", _digest_of_all(source)))


def file_fingerprint(size_bytes: int, kind: str, mark: str) -> str:
    """Identity of a file's content, whatever it is called and wherever it is."""
    return digest(canonical_json([size_bytes, kind, mark]))


def partition_fingerprint(files: Iterable[tuple[str, str]]) -> str:
    """Fingerprint of a partition, from (name below its folder, fingerprint) of its files in the order of their
    names."""
    return digest(canonical_json([list(each) for each in files]))


def file_hint(version: str, now: datetime) -> str:
    """The version that a listing gave, where it is a hint; else empty."""
    if not version.startswith(TIMES):
        return version
    newest = max(int(moment) for moment in version.removeprefix(TIMES).split(":"))
    tick = _TICK if newest % _SECOND else _COARSE_TICK
    return version if now.timestamp() * _SECOND - newest >= tick else ""


def partition_hint(files: Iterable[tuple[str, int, str]]) -> str:
    """Hint of a partition, from (name below its folder, size, hint) of its files; empty where one has none. Short: the
    ledger keeps it of each partition."""
    listed = [list(each) for each in files]
    if any(not each[2] for each in listed):
        return ""
    # of texts and whole numbers: the same bytes as `canonical_json`, several times as fast
    return hashlib.sha256(msgspec.json.encode(listed)).hexdigest()[:16]


def _end_of_parquet(source: Any, size: int) -> bytes | None:
    """All of the footer and its frame, with what comes before it in the same read; None for what is no Parquet."""
    tail = _read(source, max(0, size - _TAIL_BYTES), _TAIL_BYTES)
    length = int.from_bytes(tail[-_FRAME_BYTES:-4], "little") + _FRAME_BYTES
    if tail[-4:] not in _MAGICS or length > size:
        return None
    return tail if length <= len(tail) else _read(source, size - length, length)


def _read(source: Any, offset: int, length: int) -> bytes:
    source.seek(offset)
    return bytes(source.read(length))


def _digest_of_all(source: Any) -> str:
    source.seek(0)
    found = hashlib.sha256()
    while piece := source.read(_PIECE_BYTES):
        found.update(piece)
    return found.hexdigest()
