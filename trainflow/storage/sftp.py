"""Files on an SFTP server.

The protocol's own exclusive open is not enough: a writer that is killed leaves half an entry under its name. So it is
as on a local disk: the content goes to a temporary file, which gets its name by a link (`hardlink@openssh.com`: one
system call on the server, which never replaces). A server without that extension is refused: the protocol's rename
looks first and renames then.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import posixpath
import re
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import asyncssh

from trainflow.errors import SampleUnreadable, StoreFailure, StoreNotExclusive, TrainflowError
from trainflow.observability.file_access import naming_file
from trainflow.observability.store_requests import REQUESTS
from trainflow.storage.atomic_files import is_temporary, temporary_name
from trainflow.storage.errors import CheckpointFailures, Failures, error_kind
from trainflow.storage.local import CHUNK_BYTES
from trainflow.storage.sftp_connection import LOST, SFTPConnection, connection_to
from trainflow.storage.store import REQUESTS_AT_ONCE, TIMES, Store, StoreFile

T = TypeVar("T")
_LOCATION = re.compile(r"s(ftp|sh)://[^/]*")
_NOT_THERE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
#: what newer versions of the protocol say by a code of its own
_NUMBERS = {
    asyncssh.SFTPPermissionDenied: errno.EACCES,
    asyncssh.SFTPWriteProtect: errno.EROFS,
    asyncssh.SFTPNoSpaceOnFilesystem: errno.ENOSPC,
    asyncssh.SFTPQuotaExceeded: errno.EDQUOT,
    asyncssh.SFTPNotADirectory: errno.ENOTDIR,
}
#: what is walked: paths below the folder, with their attributes
_Found = list[tuple[str, Any]]


class SFTPStore(Store):
    """Files below a folder of a server. The folder is made by the first write."""

    remote = True
    requests_at_once = REQUESTS_AT_ONCE

    def __init__(self, connection: SFTPConnection, url: str, failures: Failures | None = None) -> None:
        self._connection = connection
        self._failures = failures or CheckpointFailures()
        self._base = _LOCATION.sub("", url).rstrip("/")
        self.url = self._failures.masked(url).rstrip("/")
        #: for counts of requests: the server, without who asks
        self._label = f"sftp://{url.partition('://')[2].partition('/')[0].rpartition('@')[2]}"

    # -- listings --------------------------------------------------------------------------------------------------

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        found = self._walked(folder, recursive=recursive)
        if found is None:
            return None
        files = (_stored_file(path, attributes) for path, attributes in found if not _is_temporary(path))
        return sorted(files, key=lambda file: file.path)

    def names(self, folder: str) -> list[str] | None:
        found = self._ask("list", folder, lambda client: _scanned(client, self._at(folder)))
        return None if found is None else [name for name, _ in found if not is_temporary(name)]

    def files(self, folder: str) -> list[StoreFile]:
        return self._files(folder, temporary=False)

    def temporary(self, folder: str) -> list[StoreFile]:
        return self._files(folder, temporary=True)

    def _files(self, folder: str, *, temporary: bool) -> list[StoreFile]:
        prefix = f"{folder}/" if folder else ""
        found = self._walked(folder, recursive=True) or []
        files = (_stored_file(prefix + path, each) for path, each in found if _is_temporary(path) == temporary)
        return sorted(files, key=lambda file: file.path)

    def folders(self, folder: str) -> list[str]:
        found = self._ask("list", folder, lambda client: _scanned(client, self._at(folder)))
        return sorted(name for name, attributes in found or () if stat.S_ISDIR(attributes.permissions))

    def exists(self, path: str) -> bool:
        return bool(self._ask("read", path, lambda client: client.isfile(self._at(path))))

    def _walked(self, folder: str, *, recursive: bool) -> _Found | None:
        return self._ask("list", folder, lambda client: _walk(client, self._at(folder), "", recursive=recursive))

    # -- contents --------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        return self._ask("read", path, lambda client: _read(client, self._at(path)))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return self._ask("read", path, lambda client: _read(client, self._at(path), max(end - start, 0), start))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        if not paths:
            return []
        return self._ask("read", paths[0], lambda client: _read_many(client, [self._at(path) for path in paths]))

    def open(self, path: str) -> IO[bytes]:
        file = self._ask("read", path, lambda client: client.open(self._at(path), "rb"))
        return io.BufferedReader(_OpenFile(lambda ask: self._ask("read", path, ask, again=False), file), CHUNK_BYTES)

    def chunks(self, path: str) -> Iterator[bytes]:
        with self.open(path) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def get_file(self, path: str, target: Path) -> None:
        with self.open(path) as file, naming_file(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as copy:
                while chunk := file.read(CHUNK_BYTES):
                    copy.write(chunk)

    # -- changes ---------------------------------------------------------------------------------------------------

    def create_exclusive(self, path: str, data: bytes) -> None:
        # asked once: who asks again after a lost reply is told that the file exists
        self._ask(
            "create",
            path,
            lambda client: _create(client, self._at(path), data, self.url),
            again=False,
            sent=len(data),
        )

    def replace(self, path: str, data: bytes) -> None:
        self._ask("write", path, lambda client: _replace(client, self._at(path), data), sent=len(data))

    def put_file(self, source: Path, path: str) -> None:
        size = source.stat().st_size if source.is_file() else 0
        self._ask("upload", path, lambda client: _put(client, source, self._at(path)), sent=size)

    def delete(self, path: str) -> None:
        self._ask("delete", path, lambda client: _unless_missing(client.remove(self._at(path))))

    def delete_folder(self, folder: str) -> None:
        self._ask("delete", folder, lambda client: _unless_missing(client.rmtree(self._at(folder))))

    def uri(self, path: str) -> str:
        return self._failures.masked(path) if _LOCATION.match(path) else super().uri(path)

    def _at(self, path: str) -> str:
        location = _LOCATION.match(path)
        if location:
            return path[location.end() :] or "/"
        return f"{self._base}/{path}" if path else self._base or "/"

    def _ask(
        self, doing: str, path: str, ask: Callable[[Any], Awaitable[T]], *, again: bool = True, sent: int = 0
    ) -> T:
        """What `ask` gives. It counts as one request of that kind, which is several packets."""
        try:
            with REQUESTS.call(self._label, doing, _kind, sent) as made:
                found = self._connection.call(ask, again=again)
                made.received = _bytes_in(found)
            return found
        except (FileExistsError, TrainflowError):
            raise
        except Exception as error:
            self._failures.raise_for(doing, self.uri(path), _of_python(error, self.uri(path)))


def _kind(error: BaseException) -> str | None:
    return error_kind(_of_python(error, "") if isinstance(error, Exception) else error)


def _bytes_in(found: object) -> int:
    several = found if isinstance(found, list) else [found]
    return sum(len(each) for each in several if isinstance(each, bytes))


def open_sftp(url: str, options: Mapping[str, Any], failures: Failures) -> SFTPStore:
    """The files at `sftp://[user[:password]@]host[:port]/path`. Touches nothing yet."""
    return SFTPStore(connection_to(url, options), url, failures)


def ask_sftp(url: str, options: Mapping[str, Any]) -> None:
    """Ask a server for the folder at `url`, by a connection of its own. It need not be there. Raises what asyncssh
    raises, PermissionError, NotADirectoryError."""
    connection, folder = SFTPConnection(url, options), _LOCATION.sub("", url).rstrip("/") or "/"
    try:
        found = connection.call(lambda client: client.stat(folder), again=False)
    except _NOT_THERE:
        return
    except Exception as error:
        raise _of_python(error, url) from error
    finally:
        connection.close()
    if not stat.S_ISDIR(found.permissions):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)


class _OpenFile(io.RawIOBase):
    """A file of the server that was opened: what is written to its name later is another one."""

    def __init__(self, ask: Callable[[Callable[[Any], Awaitable[Any]]], Any], file: Any) -> None:
        self._call = ask
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._call(lambda _: self._file.read(len(buffer), self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        if start is None:
            start = self._call(lambda _: self._file.stat()).size
        self._position = start + offset
        return self._position

    def close(self) -> None:
        if not self.closed:
            super().close()
            with suppress(StoreFailure, SampleUnreadable):
                self._call(lambda _: self._file.close())


# -- on the connection ---------------------------------------------------------------------------------------------


async def _read(client: Any, path: str, size: int = -1, offset: int = 0) -> bytes:
    async with client.open(path, "rb") as file:
        return bytes(await file.read(size, offset))


async def _read_many(client: Any, paths: list[str]) -> list[bytes | None]:
    free = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def read(path: str) -> bytes | None:
        async with free:
            with suppress(*_NOT_THERE):
                return await _read(client, path)
            return None

    return list(await asyncio.gather(*map(read, paths)))


async def _scanned(client: Any, folder: str) -> _Found | None:
    """What is in a folder, links resolved; None where there is no such folder."""
    try:
        found = [(str(each.filename), each.attrs) async for each in client.scandir(folder)]
    except (*_NOT_THERE, asyncssh.SFTPNotADirectory):
        return None
    except asyncssh.SFTPFailure:
        if await client.isfile(folder):
            return None
        raise
    inside = [(name, attributes) for name, attributes in found if name not in (".", "..")]
    return [(name, await _resolved(client, f"{folder}/{name}", attributes)) for name, attributes in inside]


async def _resolved(client: Any, path: str, attributes: Any) -> Any:
    if not stat.S_ISLNK(attributes.permissions or 0):
        return attributes
    with suppress(*_NOT_THERE):
        return await client.stat(path)
    return attributes  # it leads nowhere: a reader is told so


async def _walk(client: Any, folder: str, prefix: str, *, recursive: bool) -> _Found | None:
    """The files in a folder, and in those below it; None where there is no such folder."""
    scanned = await _scanned(client, folder)
    if scanned is None:
        return None
    below = [name for name, each in scanned if stat.S_ISDIR(each.permissions)]
    found = [(prefix + name, each) for name, each in scanned if name not in set(below)]
    if recursive:
        walks = (_walk(client, f"{folder}/{name}", f"{prefix}{name}/", recursive=True) for name in below)
        for more in await asyncio.gather(*walks):
            found += more or ()
    return found


async def _create(client: Any, target: str, data: bytes, where: str) -> None:
    temporary = await _write_temporary(client, target, data)
    try:
        await client.link(temporary, target)
    except LOST as error:
        # also where that was said of what came after it: the link may be there
        raise asyncssh.SFTPConnectionLost(str(error)) from error
    except asyncssh.SFTPError as error:
        # the protocol has no word for what is there already
        if await client.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        if isinstance(error, asyncssh.SFTPOpUnsupported | asyncssh.SFTPPermissionDenied):
            raise StoreNotExclusive(
                f"{where}: this SFTP server makes no hard links ({error.reason}), so it cannot "
                "create a file exclusively and whole; let it offer hardlink@openssh.com (OpenSSH does) on a file "
                "system that has links, or keep checkpoints elsewhere"
            ) from None
        raise
    finally:
        await _remove_temporary(client, temporary)


async def _replace(client: Any, target: str, data: bytes) -> None:
    temporary = await _write_temporary(client, target, data)
    try:
        await client.posix_rename(temporary, target)
    except BaseException:
        await _remove_temporary(client, temporary)
        raise


async def _write_temporary(client: Any, target: str, data: bytes) -> str:
    folder, name = posixpath.split(target)
    temporary = f"{folder}/{temporary_name(name)}"
    try:
        async with await _opened(client, temporary, "xb") as file:
            await file.write(data)
            await _flush(file)
    except BaseException:
        await _remove_temporary(client, temporary)
        raise
    return temporary


async def _remove_temporary(client: Any, path: str) -> None:
    """Remove a file that nothing needs, where that can be done: what stays is swept."""
    with suppress(asyncssh.Error):
        await client.remove(path)


async def _put(client: Any, source: Path, target: str) -> None:
    with source.open("rb") as local:
        async with await _opened(client, target, "wb") as file:
            while chunk := local.read(CHUNK_BYTES):
                await file.write(chunk)
            await _flush(file)


async def _opened(client: Any, path: str, mode: str) -> Any:
    try:
        return await client.open(path, mode)
    except _NOT_THERE:
        await client.makedirs(posixpath.dirname(path), exist_ok=True)
        return await client.open(path, mode)


async def _flush(file: Any) -> None:
    """Wait until the content is on the server's disk, where the server can be asked for that."""
    with suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()


async def _unless_missing(deletion: Awaitable[None]) -> None:
    with suppress(*_NOT_THERE):
        await deletion


def _is_temporary(path: str) -> bool:
    return is_temporary(path.rpartition("/")[2])


def _stored_file(path: str, attributes: Any) -> StoreFile:
    if stat.S_ISLNK(attributes.permissions):
        return StoreFile(path, 0, None, "a link to nothing")
    modified = datetime.fromtimestamp(attributes.mtime, UTC)
    return StoreFile(path, attributes.size, modified, f"{TIMES}{attributes.mtime * 10**9}")


def _of_python(error: Exception, location: str) -> Exception:
    """An error of the protocol as that of Python which says the same."""
    if isinstance(error, _NOT_THERE):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), location)
    number = next((number for kind, number in _NUMBERS.items() if isinstance(error, kind)), None)
    return error if number is None else OSError(number, str(error))
