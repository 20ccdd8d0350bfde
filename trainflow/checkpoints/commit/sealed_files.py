"""Take files over so that nothing which a trainer has started can change them any more.

A path can be closed to others by its mode, and root ignores modes; an open descriptor or a mapping goes on writing
whatever becomes of the path. So a file is taken over as another inode under another path: as a clone where the file
system shares blocks copy-on-write, else as a copy. A large file that cannot be cloned is moved, and copied only when a
process of this machine still has it open after that: from then on it has no old path to be found by.

What is still being written when it is taken over - by a thread, by a saver that works in the background - is refused:
half of a model would be committed, with a digest that is right.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

#: of the files of one folder so many bytes are copied before the rest is moved
COPIED_BYTES = 64 << 20
#: Linux: share the blocks of another file, copy-on-write
_CLONE = 0x40049409
_NO_CLONES = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.ENOSYS}

_Inode = tuple[int, int]
#: size and time of the last write in nanoseconds, of each file by its path below a folder
Written = dict[str, tuple[int, int]]


def written(folder: Path) -> Written:
    """How the files of a folder, and of those below it, are at this moment. Raises OSError."""
    found: Written = {}
    folders = [folder]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found[os.path.relpath(entry.path, folder)] = status.st_size, status.st_mtime_ns
    return found


def written_since(folder: Path, before: Written, taken: Path | None) -> list[str]:
    """The files of an output folder that are not as they were `before`, are new or are gone. `taken`: where files of it
    were moved to. Raises OSError."""
    now = {**(written(taken) if taken is not None else {}), **written(folder)}
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def take_over(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Make each second path of `pairs` hold the content of the first. Folders are there. Raises OSError."""
    moved: list[Path] = []
    left = COPIED_BYTES
    for source, target in pairs:
        size = source.stat().st_size
        if _clone(source, target):
            continue
        if size <= left or source.stat().st_dev != target.parent.stat().st_dev:
            shutil.copyfile(source, target)
            left -= size
        else:
            source.rename(target)
            moved.append(target)
    held = open_somewhere({_inode(path) for path in moved}) if moved else set()
    for path in moved:
        if _inode(path) in held:
            copy = path.with_name(f".tmp-{path.name}-{os.urandom(8).hex()}")
            shutil.copyfile(path, copy)
            status = path.stat()  # afterwards: so it is seen that it was written meanwhile
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
            copy.replace(path)


def open_somewhere(inodes: Collection[_Inode]) -> set[_Inode]:
    """Which of these files a process has open or mapped; all of them where that cannot be known."""
    try:
        processes = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return set(inodes)
    if str(os.getpid()) not in processes:
        return set(inodes)
    return {inode for process in processes for inode in _used_by(process) if inode in inodes}


def _used_by(process: str) -> Iterator[_Inode]:
    folder = f"/proc/{process}/fd"
    # of another user, or gone meanwhile
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                status = os.stat(f"{folder}/{name}")
                yield status.st_dev, status.st_ino
    with suppress(OSError), open(f"/proc/{process}/maps", encoding="utf-8", errors="replace") as lines:
        yield from _mapped(lines)


def _mapped(lines: Iterable[str]) -> Iterator[_Inode]:
    for line in lines:
        _, mode, _, device, inode, *_ = line.split(maxsplit=5)
        if mode.endswith("s") and inode != "0":
            major, minor = (int(part, 16) for part in device.split(":"))
            yield os.makedev(major, minor), int(inode)


def _inode(path: Path) -> _Inode:
    status = path.stat()
    return status.st_dev, status.st_ino


def _clone(source: Path, target: Path) -> bool:
    """Whether the target is a clone of the source now; an empty one is left where it cannot be."""
    try:
        import fcntl
    except ImportError:
        return False
    with source.open("rb") as given, target.open("wb") as made:
        try:
            fcntl.ioctl(made.fileno(), _CLONE, given.fileno())
        except OSError as error:
            if error.errno not in _NO_CLONES:
                raise
            return False
    return True
