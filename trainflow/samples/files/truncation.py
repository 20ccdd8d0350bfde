"""Whether a file is completely written, from its last bytes: of Parquet eight of them, cheap enough to be asked again
and again by a wait, in a process that does not load Arrow. It proves that a file is unfinished, never that it is good.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from trainflow.observability.redaction import redact_text
from trainflow.samples.files.footers import is_parquet
from trainflow.samples.files.parquet_file import damaged_file
from trainflow.storage.store import Storage, StoreFile

#: `PAR1`, or `PARE` where the footer is encrypted
_MAGICS = (b"PAR1", b"PARE")
#: the length of the footer, and a magic
TAIL_BYTES = 8
#: the smallest file: a magic, a footer's length, a magic
_LEAST_BYTES = 12


#: of a file that is not Parquet so much of its end is read: a line of JSON, the directory of an archive
END_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 20
#: whose last bytes tell something
_TELLING = (".jsonl", ".ndjson", ".zip", ".npz", ".orc", ".feather")
#: what even an archive of nothing has bytes in
_NEVER_EMPTY = (".gz", ".zst", ".bz2", ".xz", ".zip", ".npz", ".npy", ".orc", ".avro", ".feather")


def is_complete(tail: bytes, size_bytes: int) -> bool:
    """Whether a file of this size may end in these last bytes: a footer that lies within the file, and the magic."""
    if size_bytes < _LEAST_BYTES or len(tail) < TAIL_BYTES or tail[-4:] not in _MAGICS:
        return False
    footer = int.from_bytes(tail[-8:-4], "little")
    return 0 < footer <= size_bytes - _LEAST_BYTES


def first_unfinished(storage: Storage, folder: str, files: Sequence[StoreFile]) -> str | None:
    """The name of the first file that is not completely written as far as its end shows. Raises SampleUnreadable."""
    for file in files:
        path = f"{folder}/{file.path}"
        if is_parquet(storage, path) and not is_complete(_tail(storage, path, TAIL_BYTES, file), file.size_bytes):
            return file.path
    return None


def refuse_truncated(storage: Storage, path: str, file: StoreFile, recent: bool) -> None:
    """Raise SampleDamaged for a file other than Parquet whose end shows that it is cut. `recent`: read a compressed one
    to its end, which nothing else proves. Raises SampleUnreadable."""
    tells = file.size_bytes and file.path.lower().endswith(_TELLING)
    end = _tail(storage, path, END_BYTES, file) if tells else b""
    problem = end_problem(file.path, end, file.size_bytes)
    if problem is None and recent and file.path.lower().endswith(".gz"):
        problem = _gzip_problem(storage, path)
    if problem is not None:
        raise damaged_file(f"{redact_text(path)} {problem}")


def _tail(storage: Storage, path: str, count: int, file: StoreFile) -> bytes:
    """The last `count` bytes of a file that was listed with its size; fewer when it is shorter now."""
    return storage.read_range(path, max(0, file.size_bytes - count), file.size_bytes)


def is_recent(file: StoreFile, now: datetime, seconds: float) -> bool:
    """Whether a file was written so short a time ago that it may still be."""
    return file.modified is not None and now < file.modified + timedelta(seconds=seconds)


def end_problem(name: str, end: bytes, size_bytes: int) -> str | None:
    """What the last bytes of a file prove: a clause; None: nothing."""
    lower = name.lower()
    if not size_bytes:
        return "has no bytes yet" if lower.endswith(_NEVER_EMPTY) or "." not in lower.rpartition("/")[2] else None
    if lower.endswith((".jsonl", ".ndjson")):
        return _json_problem(end, size_bytes)
    if lower.endswith((".zip", ".npz")) and b"PK\x05\x06" not in end:
        return "has no directory at its end"
    if lower.endswith(".orc") and end[-4:-1] != b"ORC":
        return "has no postscript at its end"
    if lower.endswith(".feather") and not end.endswith((b"ARROW1", b"FEA1")):
        return "has no footer at its end"
    return None


def _json_problem(end: bytes, size_bytes: int) -> str | None:
    _, newline, last = end.rpartition(b"\n")
    if not last.strip() or not (newline or len(end) == size_bytes):  # a line that is longer than what was read
        return None
    try:
        json.loads(last)
    except ValueError:
        return "is cut in its last line"
    return None


def _gzip_problem(storage: Storage, path: str) -> str | None:
    with storage.open(path) as file:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while chunk := file.read(_CHUNK_BYTES):
            while chunk:
                try:
                    member.decompress(chunk)
                except zlib.error as error:
                    return f"cannot be unpacked: {error}"
                chunk = member.unused_data.lstrip(b"\0") if member.eof else b""
                if chunk:
                    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        return None if member.eof else "is cut: it ends before its compressed data does"
