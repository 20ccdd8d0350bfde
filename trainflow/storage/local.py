"""Files on a local (or locally mounted) disk.

`open(…, "x")` creates exclusively but not atomically: a crash in the middle leaves a torn entry that must not be
replaced. So the content goes to a temporary file first, is flushed, and gets its name by `link`, which never replaces
(`atomic_files`). A disk may be in the network: a handle that has become stale is opened again.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO

from trainflow.errors import SampleUnreadable, StoreFailure
from trainflow.storage.atomic_files import (
    NO_LINKS,
    again_if_stale,
    is_deleted,
    is_hidden,
    is_temporary,
    link_exclusively,
    replace_whole,
    temporary_name,
    write_temporary,
)
from trainflow.storage.errors import CheckpointFailures, Failures
from trainflow.storage.store import SEAL, TIMES, FileStatus, Store, StoreFile

CHUNK_BYTES = 1 << 20
#: how often the deletion of a folder goes on where something in it was gone
_DELETE_TRIES = 100
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
#: what is walked: names below the folder, with what the system says of them
_Found = list[tuple[str, "os.DirEntry[str]"]]
#: Linux: share the blocks of another file, copy-on-write
_CLONE = 0x40049409
_NO_CLONES = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.ENOSYS}


class LocalStore(Store):
    """Files below a folder. The folder is made by the first write."""

    def __init__(self, root: Path, failures: Failures | None = None) -> None:
        self.root = Path(os.path.abspath(root))
        self.url = str(self.root)
        self._prefix = os.path.join(self.url, "")
        self._failures = failures or CheckpointFailures()

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        try:
            found = again_if_stale(lambda: _walked(self._path(folder), "", recursive=recursive, of_ledger=False))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._failures.raise_for("list", self.uri(folder), error)
        files = (_listed(name, entry) for name, entry in found if not is_hidden(entry.name))
        return sorted((file for file in files if file is not None), key=lambda file: file.path)

    def names(self, folder: str) -> list[str] | None:
        try:
            found = again_if_stale(lambda: os.listdir(self._path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._failures.raise_for("list", self.uri(folder), error)
        return [name for name in found if not is_hidden(name)]

    def read(self, path: str) -> bytes:
        target = self._at(path)
        with self._failing("read", target):
            return again_if_stale(lambda: _range(target, 0, None))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        target = self._at(path)
        with self._failing("read", target):
            return again_if_stale(lambda: _range(target, start, end))

    def open(self, path: str) -> IO[bytes]:
        target = self._at(path)
        with self._failing("read", target):
            return again_if_stale(lambda: open(target, "rb"))

    def status(self, path: str) -> FileStatus | None:
        try:
            found = os.stat(self._path(path))
        except OSError:
            return None
        return FileStatus((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def local_path(self, path: str) -> Path | None:
        return self._at(path)

    def uri(self, path: str) -> str:
        return self._path(path) if path else self.url

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        root = os.fsencode(self.root)
        with self._failing("read", self.root):
            return [again_if_stale(partial(_content, b"%b/%b" % (root, path.encode()))) for path in paths]

    def chunks(self, path: str) -> Iterator[bytes]:
        with self.open(path) as file, self._failing("read", self._at(path)):
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def files(self, folder: str) -> list[StoreFile]:
        return self._files(folder, temporary=False)

    def temporary(self, folder: str) -> list[StoreFile]:
        return self._files(folder, temporary=True)

    def _files(self, folder: str, *, temporary: bool) -> list[StoreFile]:
        """Files as old as they say: what was sealed, or restored from a backup, is as old as its content."""
        target, found = self._at(folder), _Found()
        with self._failing("list", target), suppress(FileNotFoundError):
            prefix = "" if target == self.root else f"{target.relative_to(self.root).as_posix()}/"
            found = again_if_stale(lambda: _walked(str(target), prefix, recursive=True, of_ledger=True))
        files = []
        with self._failing("list", target):
            for name, entry in found:
                if is_temporary(entry.name) == temporary and not is_deleted(entry.name):
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        modified = datetime.fromtimestamp(status.st_mtime, UTC)
                        files.append(StoreFile(name, status.st_size, modified))
        return sorted(files, key=lambda file: file.path)

    def folders(self, folder: str) -> list[str]:
        target = self._at(folder)
        with self._failing("list", target):
            try:
                with os.scandir(target) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []

    def exists(self, path: str) -> bool:
        with self._failing("read", self._at(path)):
            return again_if_stale(self._at(path).is_file)

    def create_exclusive(self, path: str, data: bytes) -> None:
        target = self._at(path)
        with self._failing("create", target):
            make_folder(target.parent)
            temporary = write_temporary(target, data, durable=True)
            try:
                link_exclusively(temporary, target)
            finally:
                with suppress(OSError):  # what is left is the sweeper's
                    os.unlink(temporary)
            fsync_folder(target.parent)

    def replace(self, path: str, data: bytes) -> None:
        target = self._at(path)
        with self._failing("write", target):
            make_folder(target.parent)
            replace_whole(target, data)

    def put_file(self, source: Path, path: str) -> None:
        target = self._at(path)
        with self._failing("write", target):
            make_folder(target.parent)
            shutil.copyfile(source, target)
            fsync_file(target)
            fsync_folder(target.parent)

    def get_file(self, path: str, target: Path) -> None:
        with self._failing("read", self._at(path)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._at(path), target)

    def delete(self, path: str) -> None:
        target = self._at(path)
        with self._failing("delete", target):
            target.unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        target = self._at(folder)
        with self._failing("delete", target), suppress(FileNotFoundError):
            _set_writable(target, writable=True, files=False)
            _delete_tree(target)

    def seal(self, folder: str, note: bytes = b"") -> None:
        target = self._at(folder)
        if note and target.is_dir():
            with suppress(StoreFailure):  # the modes are the seal; a note that is not there is missed by nothing
                self.replace(f"{folder}{SEAL}", note)
        with self._failing("seal", target), suppress(FileNotFoundError, PermissionError):
            _set_writable(target, writable=False, files=True)

    def delete_sealed(self, folder: str, keeping: Collection[str] = ()) -> None:
        if keeping:
            with self._failing("delete", self._at(folder)), suppress(FileNotFoundError):
                _set_writable(self._at(folder), writable=True, files=False)
        super().delete_sealed(folder, keeping)

    def share(self, source: str, path: str) -> bool:
        target = self._at(path)
        temporary = target.with_name(temporary_name(target.name))
        try:
            os.link(self._at(source), temporary)
        except OSError as error:
            # another owner's file, as many names as a file can have
            if error.errno in NO_LINKS or error.errno == errno.EXDEV:
                return False
            self._failures.raise_for("write", str(target), error)
        with self._failing("write", target):
            temporary.replace(target)
            fsync_folder(target.parent)
        return True

    def is_sealed(self, folder: str) -> bool:
        with suppress(FileNotFoundError), self._failing("read", self._at(folder)):
            return not self._at(folder).stat().st_mode & _WRITABLE
        return False

    def _at(self, path: str) -> Path:
        return Path(self._path(path))

    def _path(self, path: str) -> str:
        """The absolute path; of a location, what it names."""
        if "://" in path:
            path = path.removeprefix("file://").removeprefix("local://")
        return path if path.startswith("/") else self._prefix + path

    @contextmanager
    def _failing(self, doing: str, path: Path) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, StoreFailure, SampleUnreadable):
            raise
        except OSError as error:
            self._failures.raise_for(doing, str(path), error)


def _walked(folder: str, prefix: str, *, recursive: bool, of_ledger: bool) -> _Found:
    found: _Found = []
    _walk(folder, prefix, found, recursive=recursive, of_ledger=of_ledger)
    return found


def _walk(folder: str, prefix: str, found: _Found, *, recursive: bool, of_ledger: bool) -> None:
    """Collect the files in a folder. Samples may be below links, and a folder of them that goes away meanwhile is told
    by FileNotFoundError; links of a ledger's folder are not followed, and what others delete of it is gone."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=not of_ledger):
                found.append((prefix + entry.name, entry))
            elif recursive:
                with suppress(*((FileNotFoundError,) if of_ledger else ())):
                    _walk(entry.path, f"{prefix}{entry.name}/", found, recursive=True, of_ledger=of_ledger)


def _listed(name: str, entry: os.DirEntry[str]) -> StoreFile | None:
    try:
        status = entry.stat()
    except FileNotFoundError:
        if os.path.islink(entry.path):  # it leads nowhere: a reader is told so
            return StoreFile(name, 0, None, "a link to nothing")
        return None  # or a temporary file that its writer renamed in between
    # a copy may keep the time of the last write; it cannot keep that of the last change
    version = f"{TIMES}{status.st_mtime_ns}:{status.st_ctime_ns}"
    return StoreFile(name, status.st_size, datetime.fromtimestamp(written(status), UTC), version)


def written(status: os.stat_result) -> float:
    """When a file came to be as it is here, in seconds since 1970. Its modification time alone is what it claims: a
    copy (`cp -p`, `rsync -t`) keeps it, and is under way nevertheless. The time of the last change of the inode is set
    by the system alone, so nothing has to be remembered to know how long a file has been as it is."""
    return max(status.st_mtime_ns, status.st_ctime_ns) / 1e9


def _range(path: Path, start: int, end: int | None) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read() if end is None else file.read(max(end - start, 0))


def _delete_tree(folder: Path) -> None:
    """Delete all of it. What another deletes meanwhile is gone; what a process has open its system deletes later."""
    for again in range(_DELETE_TRIES, -1, -1):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not os.path.lexists(folder):
                return
            if not again:
                raise
        except OSError:
            if not all(is_deleted(name) for _, _, names in os.walk(folder) for name in names):
                raise
            return
        else:
            return


def _content(path: bytes) -> bytes | None:
    """A file's content by as few calls as there can be: a ledger has many small files."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        data = b""
        while more := os.read(descriptor, CHUNK_BYTES):
            data = data + more if data else more
        return data
    finally:
        os.close(descriptor)


def _set_writable(folder: Path, *, writable: bool, files: bool) -> None:
    """Change the modes of a folder and of those in it, and of the `files`. Raises FileNotFoundError."""
    for path, below, names in os.walk(folder, topdown=writable, onerror=_raise):
        del below
        for place in [*(f"{path}/{name}" for name in names if files), path]:
            mode = os.stat(place, follow_symlinks=False).st_mode
            wanted = mode | stat.S_IWUSR if writable else mode & ~_WRITABLE
            if wanted != mode and not stat.S_ISLNK(mode):
                os.chmod(place, stat.S_IMODE(wanted))


def _raise(error: OSError) -> None:
    raise error


def make_folder(folder: Path) -> None:
    """Make a folder that is still there after a power cut: each new name is flushed in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        # a file in the way must not look like an entry that exists
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    fsync_folder(folder.parent)


def fsync_file(path: Path) -> None:
    """Wait until the file's content is on the disk."""
    descriptor = again_if_stale(lambda: os.open(path, os.O_RDONLY))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk. File systems that cannot do this are left alone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def clone(source: Path, target: Path) -> bool:
    """Make a file share the blocks of another one, copy-on-write; whether it does. An empty one is left where it
    cannot. Raises OSError."""
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
