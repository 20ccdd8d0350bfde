"""Files of large checkpoints that were found whole, on a local store: so that 20 GB are not read again for every run.

A file that has the size, the times and the inode that it had when its digest was found right is taken for unchanged: a
write changes the time of its last change of status, which no program can set. A hint that saves reading, never what an
audit goes by; small checkpoints are simply read.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from trainflow.checkpoints.ledger.entries import Artifacts, Checkpoint
from trainflow.checkpoints.ledger.entry_encoding import encode_entry
from trainflow.errors import StoreFailure
from trainflow.storage.store import Store

#: a checkpoint of at most so many bytes is read
SMALL_BYTES = 64 << 20
_KEPT = 4

#: size, time of the last change of content and of status in nanoseconds, device and inode
_Status = tuple[int, int, int, int, int]
#: of each file by its path, of the newest checkpoints by their artifacts' path
_VerifiedFiles = dict[str, dict[str, _Status]]
_DECODER = msgspec.json.Decoder(_VerifiedFiles)


def is_verified(store: Store, artifacts: Artifacts) -> bool:
    """Whether all files of a large checkpoint are as they were when they were found whole."""
    if artifacts.size <= SMALL_BYTES:
        return False
    known = _read(store, artifacts).get(artifacts.path)
    return known is not None and known == statuses(store, artifacts)


def statuses(store: Store, artifacts: Artifacts) -> dict[str, _Status] | None:
    """The files now; None where one is missing or the store is elsewhere. Take them before the files are read."""
    folder = store.local_path(artifacts.path)
    if folder is None:
        return None
    try:
        return {file.path: _status(folder / file.path) for file in artifacts.files}
    except OSError:
        return None


def remember_verified(store: Store, artifacts: Artifacts, before: dict[str, _Status] | None) -> None:
    """The files, whose status was `before`, have been read since and are whole."""
    if artifacts.size <= SMALL_BYTES or before is None or before != statuses(store, artifacts):
        return
    known = _read(store, artifacts)
    known.pop(artifacts.path, None)
    newest = dict([*known.items(), (artifacts.path, before)][-_KEPT:])
    with suppress(StoreFailure):
        store.replace(_place(artifacts), msgspec.json.encode(newest))


def seal_verified(store: Store, entry: Checkpoint) -> None:
    """Seal the artifacts of a committed checkpoint, with a copy of its entry beside them: the ledger can be repaired by
    it. Sealing changes the status of files that are known to be whole. Raises StoreFailure."""
    artifacts = entry.artifacts
    whole = is_verified(store, artifacts)
    store.seal(artifacts.path, encode_entry(entry))
    if whole:
        remember_verified(store, artifacts, statuses(store, artifacts))


def _read(store: Store, artifacts: Artifacts) -> _VerifiedFiles:
    [data] = store.read_many([_place(artifacts)])
    try:
        return _DECODER.decode(data) if data else {}
    except msgspec.MsgspecError:
        return {}


def _place(artifacts: Artifacts) -> str:
    # {chain}/artifacts/{attempt}
    return f"{artifacts.path.rsplit('/', 2)[0]}/verified.json"


def _status(path: Path) -> _Status:
    status = path.stat(follow_symlinks=False)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino
