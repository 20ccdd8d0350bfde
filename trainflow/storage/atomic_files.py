"""Create a file whole and exclusively on a disk, also on one in the network.

A file server (NFS) repeats what it was asked when its answer was lost, and then answers that what it has done itself is
there already: an exclusive open or a link that reports an error may have been applied. So a name that is taken counts
only for a name that others know, and a link is believed by the inode.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from trainflow.errors import StoreNotExclusive

T = TypeVar("T")
#: temporary files start so; listings leave them out, the sweeper removes those left by a crash
TEMPORARY_PREFIX = ".tmp-"
#: all of such a name: what a trainer calls `.tmp-something` is its own, and part of its checkpoint
_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}.+-[0-9a-f]{{16}}", re.DOTALL)
#: what a client of NFS calls a file that was deleted while a process had it open; the client deletes it later
_DELETED = re.compile(r"\.nfs[0-9a-f]{16,24}")
#: what a file system says that has none
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_STALE_TRIES = _NAME_TRIES = 10


def temporary_name(name: str) -> str:
    """A name for the content of a file that is to be called `name`, which no other writer has."""
    return f"{TEMPORARY_PREFIX}{name}-{os.urandom(8).hex()}"


def is_temporary(name: str) -> bool:
    """Whether a file is one that a writer has begun and not finished."""
    return _TEMPORARY.fullmatch(name) is not None


def is_deleted(name: str) -> bool:
    """Whether a file is one that was deleted, and is there as long as a process has it open."""
    return _DELETED.fullmatch(name) is not None


def is_hidden(name: str) -> bool:
    """Whether no listing shows a file. Hardly any of a hundred thousand names is looked at any closer."""
    return name.startswith((TEMPORARY_PREFIX, ".nfs")) and (is_temporary(name) or is_deleted(name))


def again_if_stale(call: Callable[[], T]) -> T:
    """What `call` returns. A file that another machine has replaced between two steps of it is looked for again."""
    for _ in range(_STALE_TRIES - 1):
        try:
            return call()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return call()


def write_temporary(target: Path, data: bytes, *, durable: bool) -> Path:
    """Write a temporary file beside `target`; its path. Raises OSError, never FileExistsError: that a name is taken
    which no other writer has says that an answer was lost."""
    for _ in range(_NAME_TRIES):
        temporary = target.with_name(temporary_name(target.name))
        try:
            return _write(temporary, data, durable=durable)
        except FileExistsError:
            with suppress(OSError):
                os.unlink(temporary)
    raise OSError(errno.EIO, "no temporary file can be created: each new name is said to be taken", str(target.parent))


def _write(path: Path, data: bytes, *, durable: bool) -> Path:
    with open(path, "xb") as file:
        try:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            file.close()  # a server says only now that it has no room
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise
    return path


def link_exclusively(temporary: Path, target: Path) -> None:
    """Give a file the name `target` if nothing has it. Raises FileExistsError, and StoreNotExclusive where the file
    system has no links; OSError, after which it may have the name or not."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno in NO_LINKS:
            raise StoreNotExclusive(
                f"{target.parent}: this file system has no hard links ({error.strerror}), so it cannot create a file "
                "exclusively and whole; keep checkpoints on another disk or in an object store"
            ) from None
        if not _is_linked(temporary, target):
            raise


def rename_over(temporary: Path, target: Path) -> None:
    """Give a file the name `target`, over what has it. Raises OSError."""
    before = os.stat(temporary)
    try:
        os.replace(temporary, target)
    except FileNotFoundError:
        # asked again after it had been done: the old name is gone
        if not os.path.samestat(before, os.stat(target)):
            raise


def replace_whole(target: Path, data: bytes) -> None:
    """Write a file over what has its name, whose folder exists: readers see the old or the new content. It need not
    survive a power cut. Raises OSError."""
    temporary = write_temporary(target, data, durable=False)
    try:
        rename_over(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _is_linked(temporary: Path, target: Path) -> bool:
    """Whether both names are one file. Opened first: what is known of a name may be seconds old."""

    def same() -> bool:
        with open(temporary, "rb") as own, open(target, "rb") as found:
            return os.path.samestat(os.fstat(own.fileno()), os.fstat(found.fileno()))

    with suppress(OSError):
        return again_if_stale(same)
    return False
