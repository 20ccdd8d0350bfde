"""A store on a local (or locally mounted) disk.

`open(…, "x")` creates exclusively but not atomically: a crash in the middle leaves a torn entry that nobody may
replace. So the content goes to a temporary file first, is flushed, and gets its name by `link`, which never replaces.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from trainflow.errors import StoreFailure, StoreNotExclusive
from trainflow.storage.store import Store, StoredFile, failure

CHUNK_BYTES = 1 << 20
#: temporary files start so; listings leave them out, the sweeper removes those left by a crash
TEMPORARY_PREFIX = ".tmp-"
#: all of such a name: what a trainer calls `.tmp-something` is its own, and part of its checkpoint
_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}.+-[0-9a-f]{{16}}", re.DOTALL)
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore(Store):
    """Files below a folder. The folder is made by the first write."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.url = str(self.root)

    def read(self, path: str) -> bytes:
        target = self._at(path)
        with _failures("read", target):
            return target.read_bytes()

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        root = os.fsencode(self.root)
        with _failures("read", self.root):
            return [_content(b"%b/%b" % (root, path.encode())) for path in paths]

    def chunks(self, path: str) -> Iterator[bytes]:
        target = self._at(path)
        with _failures("read", target), target.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def files(self, folder: str) -> list[StoredFile]:
        target = self._at(folder)
        with _failures("list", target):
            return sorted(self._files(target), key=lambda file: file.path)

    def _files(self, folder: Path, *, temporary: bool = False) -> Iterator[StoredFile]:
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except FileNotFoundError:
            return
        below = "" if folder == self.root else f"{folder.relative_to(self.root).as_posix()}/"
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(Path(entry.path), temporary=temporary)
            elif (_TEMPORARY.fullmatch(entry.name) is not None) == temporary:
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    yield StoredFile(f"{below}{entry.name}", status.st_size, modified)

    def names(self, folder: str) -> list[str]:
        target = self._at(folder)
        with _failures("list", target):
            try:
                found = os.listdir(target)
            except FileNotFoundError:
                return []
        return [name for name in found if not name.startswith(TEMPORARY_PREFIX)]

    def temporary(self, folder: str) -> list[StoredFile]:
        target = self._at(folder)
        with _failures("list", target):
            return sorted(self._files(target, temporary=True), key=lambda file: file.path)

    def folders(self, folder: str) -> list[str]:
        target = self._at(folder)
        with _failures("list", target):
            try:
                with os.scandir(target) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []

    def exists(self, path: str) -> bool:
        return self._at(path).is_file()

    def create_exclusive(self, path: str, data: bytes) -> None:
        target = self._at(path)
        with _failures("create", target):
            make_folder(target.parent)
            temporary = _write_temporary(target, data, durable=True)
            try:
                _link(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            fsync_folder(target.parent)

    def replace(self, path: str, data: bytes) -> None:
        target = self._at(path)
        with _failures("write", target):
            make_folder(target.parent)
            _write_temporary(target, data, durable=False).replace(target)

    def put_file(self, source: Path, path: str) -> None:
        target = self._at(path)
        with _failures("write", target):
            make_folder(target.parent)
            shutil.copyfile(source, target)
            fsync_file(target)
            fsync_folder(target.parent)

    def get_file(self, path: str, target: Path) -> None:
        with _failures("read", self._at(path)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._at(path), target)

    def delete(self, path: str) -> None:
        target = self._at(path)
        with _failures("delete", target):
            target.unlink(missing_ok=True)

    def delete_folder(self, folder: str) -> None:
        target = self._at(folder)
        with _failures("delete", target), suppress(FileNotFoundError):
            _set_writable(target, writable=True, files=False)
            shutil.rmtree(target)

    def seal(self, folder: str) -> None:
        target = self._at(folder)
        with _failures("seal", target), suppress(FileNotFoundError, PermissionError):
            _set_writable(target, writable=False, files=True)

    def delete_sealed(self, folder: str) -> None:
        self.delete_folder(folder)

    def is_sealed(self, folder: str) -> bool:
        with suppress(FileNotFoundError), _failures("read", self._at(folder)):
            return not self._at(folder).stat().st_mode & _WRITABLE
        return False

    def local_path(self, path: str) -> Path | None:
        return self._at(path)

    def _at(self, path: str) -> Path:
        return self.root / path


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
    descriptor = os.open(path, os.O_RDONLY)
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


def _write_temporary(target: Path, data: bytes, *, durable: bool) -> Path:
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{target.name}-{os.urandom(8).hex()}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return temporary


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise StoreNotExclusive(
                f"{target.parent}: this file system has no hard links ({error.strerror}), so it cannot create a file "
                "exclusively and whole; keep checkpoints on another disk or in an object store"
            ) from None
        raise


@contextmanager
def _failures(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, StoreFailure):
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and doing == "read":
            raise
        raise failure(doing, str(path), error) from error
