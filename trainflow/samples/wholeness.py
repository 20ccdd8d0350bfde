"""Whether a Parquet file is completely written, from its last eight bytes: cheap enough to be asked again and again by
a wait, in a process that does not load Arrow. It proves that a file is unfinished, never that it is good.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainflow.samples.footers import is_parquet
from trainflow.samples.storage import Storage, StoredFile

#: `PAR1`, or `PARE` where the footer is encrypted
_MAGICS = (b"PAR1", b"PARE")
#: the length of the footer, and a magic
TAIL_BYTES = 8
#: the smallest file: a magic, a footer's length, a magic
_LEAST_BYTES = 12


def ends_whole(tail: bytes, size_bytes: int) -> bool:
    """Whether a file of this size may end in these last bytes: a footer that lies within the file, and the magic."""
    if size_bytes < _LEAST_BYTES or len(tail) < TAIL_BYTES or tail[-4:] not in _MAGICS:
        return False
    footer = int.from_bytes(tail[-8:-4], "little")
    return 0 < footer <= size_bytes - _LEAST_BYTES


def first_unfinished(storage: Storage, folder: str, files: Sequence[StoredFile]) -> str | None:
    """The name of the first file that is not completely written as far as its end shows. Raises SampleUnreadable."""
    for file in files:
        path = f"{folder}/{file.name}"
        if is_parquet(storage, path) and not ends_whole(
            storage.tail(path, TAIL_BYTES, file.size_bytes), file.size_bytes
        ):
            return file.name
    return None
