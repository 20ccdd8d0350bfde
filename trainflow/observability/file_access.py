"""What keeps this process from a file: whose it is, its mode and who this process is; a disk that takes no writes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: with less room on its disk than this a database cannot write: its log grows by pages, and so does its index
_ROOM_BYTES = 64 * 1024
#: a disk that has no inodes left takes no file, however small, and is not full as people look at it
_NO_INODES = "its disk takes no more files ('df -i' shows that): delete some of the many on it"
#: what a disk says that takes no writes
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: what to do about files that several users work with
_SHARE = (
    "have that user or root give access (a group that both are in: chgrp -R, chmod -R g+rwX, and umask 007 for all "
    "that write there), or run this as that user"
)


def keeps_out(path: str | os.PathLike[str], *, to_write: bool = False) -> str | None:
    """The first folder on the way to a path that this process may not pass, or what is there and may not be read (or
    written, with `to_write`), in words; None: nothing is seen that keeps it out. Raises nothing."""
    try:
        found = _obstacle(Path(path).absolute(), to_write=to_write)
        return None if found is None else f"{found} {_whose(found.stat())}; this process is {_user(os.geteuid())}"
    except OSError:
        return None


def unwritable(path: str | os.PathLike[str]) -> str | None:
    """Why a file, or what is made in its folder, cannot be written, in words that say what to do; None: nothing is
    seen that speaks against it. Raises nothing."""
    file = Path(path).absolute()
    try:
        disk = os.statvfs(next(each for each in (file, *file.parents) if each.exists()))
    except OSError:
        return None
    if disk.f_flag & os.ST_RDONLY:
        return "its disk is mounted read-only: remount it to be written"
    free = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
    if free * disk.f_frsize < _ROOM_BYTES:
        return "its disk is full: make room on it"
    # a file system that has no such limit says that there are none
    if disk.f_files and not disk.f_favail:
        return _NO_INODES
    whose = keeps_out(file, to_write=True) or keeps_out(file.parent, to_write=True)
    return None if whose is None else f"{whose}: run this as that user, or set TRAINFLOW_HOME to a folder of your own"


def refused_by_disk(errors: Iterable[BaseException], place: str = "") -> str | None:
    """Which disk of this machine did not take the file that one of these errors is about, and what to do; None: it is
    not known, or the disk takes writes again, or it is that of a file in the folder of `place` which has no room."""
    file, why = _refused_file(errors)
    in_place = bool(place) and file.startswith(os.path.dirname(place))
    return None if not file or (in_place and why != _NO_INODES) else f"{file} cannot be written, {why}"


def takes_no_files(errors: Iterable[BaseException]) -> bool:
    """Whether the disk that one of these errors is about has no inodes left."""
    return _refused_file(errors)[1] == _NO_INODES


def _refused_file(errors: Iterable[BaseException]) -> tuple[str, str]:
    for each in errors:
        if isinstance(each, OSError) and each.errno in _OF_DISKS:
            # of two files the second one was written
            file = each.filename2 or each.filename
            if isinstance(file, str) and os.path.isabs(file) and (why := unwritable(file)) is not None:
                return file, why
    return "", ""


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Name the file that is written inside in an error of its disk: of a write, the system does not say of which."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_DISKS and error.filename is None:
            error.filename = str(path)
        raise


def of_another_user(errors: Iterable[BaseException], *, to_write: bool) -> str | None:
    """What keeps this process out of the file that one of these errors is about, and what to do; None: it is none on a
    disk of this machine."""
    files = [each.filename for each in errors if isinstance(each, PermissionError)]
    local = next((file for file in files if isinstance(file, str) and os.path.isabs(file)), None)
    whose = keeps_out(local, to_write=to_write) if local is not None else None
    return None if whose is None else f"{whose}: {_SHARE}"


def _obstacle(path: Path, *, to_write: bool) -> Path | None:
    effective = os.access in os.supports_effective_ids
    for each in reversed(path.parents):
        if not os.access(each, os.X_OK, effective_ids=effective):
            return each
    if not os.path.lexists(path):
        # what is not there is made in its folder
        folder = next(each for each in path.parents if each.exists())
        return folder if to_write and not os.access(folder, os.W_OK, effective_ids=effective) else None
    needed = os.R_OK | (os.W_OK if to_write else 0) | (os.X_OK if path.is_dir() else 0)
    return None if os.access(path, needed, effective_ids=effective) else path


def _whose(found: os.stat_result) -> str:
    return f"belongs to {_user(found.st_uid)}, group {_group(found.st_gid)}, mode {stat.filemode(found.st_mode)}"


def _user(uid: int) -> str:
    try:
        import pwd

        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except (ImportError, KeyError):
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        import grp

        return grp.getgrgid(gid).gr_name
    except (ImportError, KeyError):
        return str(gid)
