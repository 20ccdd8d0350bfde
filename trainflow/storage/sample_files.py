"""Where sample files are: the only module that lists and opens them.

Local paths go straight to the operating system (a task that only reads local files never imports fsspec); everything
else through fsspec, without its cache of listings, which would hide what is new. A refusal becomes `SampleUnreadable`
that says what, where and what to do, with every secret taken out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from trainflow.errors import InputError, SampleBucketMissing, SampleUnreadable
from trainflow.observability.redaction import redact_text, texts_of

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
#: what file systems call the time of the last write, and the mark of a content
_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "created")
#: protocols whose drivers raise the same for a missing bucket as for a missing folder
_SILENT_ABOUT_BUCKETS = frozenset({"az", "abfs", "abfss", "gs", "gcs", "oss", "oci"})
#: the version of a file whose store has no mark of its content: nanoseconds since the epoch, one or several
TIMES = "time:"
_TAGS = ("ETag", "etag", "md5Hash", "content_md5")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file below a partition's folder."""

    #: relative to the folder, with slashes
    name: str
    size_bytes: int
    #: when its content was written here, see `written`; None when the store does not say
    modified: datetime | None
    #: the store's own mark of this content, an etag; else `TIMES` with the times of the last changes
    version: str


class Status(NamedTuple):
    """A file as its system knows it: which one it is, its size, and its times in nanoseconds."""

    file: tuple[int, int]
    size_bytes: int
    modified: int
    changed: int


class Storage(Protocol):
    """What the package needs of a file system. Folders and files are named as the samples name them."""

    #: a request costs a round trip, so several are made at once
    remote: bool

    def files(self, folder: str, *, recursive: bool) -> list[StoredFile] | None:
        """The files in a folder (and in those below it), by name; None when there is no such folder."""
        ...

    def names(self, folder: str) -> list[str] | None:
        """The names in a folder, nothing else about them; None when there is no such folder."""
        ...

    def has(self, path: str) -> bool:
        """Whether a file or a folder is there."""
        ...

    def open_parquet(self, path: str) -> Any:
        """An open file that `pyarrow.parquet.ParquetFile` takes: what replaces it later is another one."""
        ...

    def status(self, path: str) -> Status | None:
        """Of an open file that can be written over in place: changes with each write, and costs next to nothing. None:
        it is gone, or the store has no such files."""
        ...

    def read(self, path: str) -> bytes:
        """A whole file."""
        ...

    def tail(self, path: str, count: int, size_bytes: int) -> bytes:
        """The last `count` bytes of a file that was listed with this size; fewer when it is shorter now."""
        ...

    def open(self, path: str) -> IO[bytes]:
        """A file to be read piece by piece."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """A whole file, which nobody sees half written; its folders are made."""
        ...


class LocalStorage:
    """Folders of this machine."""

    remote = False

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def path(self, path: str) -> str:
        """The absolute path: relative ones belong to the project."""
        plain = path.removeprefix("file://").removeprefix("local://")
        return os.path.join(self._root or os.getcwd(), plain)

    def files(self, folder: str, *, recursive: bool) -> list[StoredFile] | None:
        found: list[StoredFile] = []
        try:
            self._scan(self.path(folder), "", recursive, found)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(folder, error, {}) from error
        return sorted(found, key=lambda file: file.name)

    def _scan(self, folder: str, prefix: str, recursive: bool, found: list[StoredFile]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if recursive:
                        self._scan(entry.path, f"{prefix}{entry.name}/", recursive, found)
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    if os.path.islink(entry.path):  # it leads nowhere: a reader is told so
                        found.append(StoredFile(prefix + entry.name, 0, None, "a link to nothing"))
                    continue  # or a temporary file that its writer renamed in between
                modified = datetime.fromtimestamp(written(status), UTC)
                # a copy may keep the time of the last write; it cannot keep that of the last change
                version = f"{TIMES}{status.st_mtime_ns}:{status.st_ctime_ns}"
                found.append(StoredFile(prefix + entry.name, status.st_size, modified, version))

    def names(self, folder: str) -> list[str] | None:
        try:
            return os.listdir(self.path(folder))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(folder, error, {}) from error

    def has(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def open_parquet(self, path: str) -> Any:
        from pyarrow import OSFile

        return OSFile(self.path(path))

    def status(self, path: str) -> Status | None:
        try:
            found = os.stat(self.path(path))
        except OSError:
            return None
        return Status((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def read(self, path: str) -> bytes:
        try:
            return Path(self.path(path)).read_bytes()
        except OSError as error:
            raise unreadable(path, error, {}) from error

    def tail(self, path: str, count: int, size_bytes: int) -> bytes:
        try:
            with Path(self.path(path)).open("rb") as file:
                file.seek(max(0, size_bytes - count))
                return file.read(count)
        except OSError as error:
            raise unreadable(path, error, {}) from error

    def open(self, path: str) -> IO[bytes]:
        try:
            return Path(self.path(path)).open("rb")
        except OSError as error:
            raise unreadable(path, error, {}) from error

    def write(self, path: str, data: bytes) -> None:
        target = Path(self.path(path))
        partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise unreadable(path, error, {}, "written") from error


def written(status: os.stat_result) -> float:
    """When a file came to be as it is here, in seconds since 1970. Its modification time alone is what it claims: a
    copy (`cp -p`, `rsync -t`) keeps it, and is under way nevertheless. The time of the last change of the inode is set
    by the system alone, so nothing has to be remembered to know how long a file has been as it is."""
    return max(status.st_mtime_ns, status.st_ctime_ns) / 1e9


class UrlStorage:
    """Anything fsspec knows."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        protocol = url.split("://", 1)[0].split("::")[-1]
        self.remote = protocol != "memory"
        #: of a store whose driver says the same of a missing container and of a missing folder: not known yet
        self._bucket_in_doubt = protocol in _SILENT_ABOUT_BUCKETS
        try:
            from fsspec.core import url_to_fs

            extra = {"use_listings_cache": False} if self.remote else {}
            self._fs, _ = url_to_fs(url, **{**extra, **self._options})
        except ImportError as error:
            extra_name = _EXTRAS.get(protocol)
            remedy = f"pip install 'trainflow[{extra_name}]'" if extra_name else "install the package it names"
            raise InputError(f"{protocol}:// needs a package that is not installed ({error}); {remedy}") from None
        except ValueError as error:
            raise InputError(f"samples.path {redact_text(url, texts_of(self._options))}: {error}") from None

    def files(self, folder: str, *, recursive: bool) -> list[StoredFile] | None:
        base = self._base(folder)
        look = self._fs.find if recursive else self._fs.ls
        listed = self._listed(folder, lambda: look(base, detail=True))
        if listed is None:
            return None
        infos: Iterable[dict[str, Any]] = listed.values() if recursive else listed
        of_files = (info for info in infos if info["type"] == "file" and info["name"].rstrip("/") != base)
        found = [_stored_file(info, base) for info in of_files]
        # an object store has no folders: one without an object does not exist
        return sorted(found, key=lambda file: file.name) if found or not recursive else None

    def names(self, folder: str) -> list[str] | None:
        base = self._base(folder)
        paths = self._listed(folder, lambda: self._fs.ls(base, detail=False))
        if paths is None:
            return None
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in paths if path.rstrip("/") != base]

    def has(self, path: str) -> bool:
        try:
            return bool(self._fs.exists(self._base(path)))
        except Exception as error:
            raise unreadable(path, error, self._options) from _shown(error, self._options)

    def _base(self, folder: str) -> str:
        return str(self._fs._strip_protocol(folder)).rstrip("/")

    def _listed(self, folder: str, look: Callable[[], Any]) -> Any:
        """What is in a folder; None when it is not there."""
        try:
            return look()
        except FileNotFoundError as error:
            self._none_if_only_missing(folder, error)
            return None
        except Exception as error:  # whatever the library of a store raises: it has no base in common
            raise unreadable(folder, error, self._options) from _shown(error, self._options)

    def open_parquet(self, path: str) -> Any:
        return self._fs.open(self._fs._strip_protocol(path), "rb")

    def status(self, path: str) -> Status | None:
        return None  # an object is written as a whole

    def read(self, path: str) -> bytes:
        try:
            return bytes(self._fs.cat_file(self._fs._strip_protocol(path)))
        except Exception as error:
            raise unreadable(path, error, self._options) from _shown(error, self._options)

    def tail(self, path: str, count: int, size_bytes: int) -> bytes:
        if size_bytes < count:  # no store has a range of nothing
            return b""
        try:
            return bytes(self._fs.cat_file(self._fs._strip_protocol(path), start=size_bytes - count, end=size_bytes))
        except Exception as error:
            raise unreadable(path, error, self._options) from _shown(error, self._options)

    def open(self, path: str) -> IO[bytes]:
        try:
            opened: IO[bytes] = self._fs.open(self._fs._strip_protocol(path), "rb")
            return opened
        except Exception as error:
            raise unreadable(path, error, self._options) from _shown(error, self._options)

    def write(self, path: str, data: bytes) -> None:
        try:
            self._fs.pipe_file(self._fs._strip_protocol(path), data)
        except Exception as error:
            raise unreadable(path, error, self._options, "written") from _shown(error, self._options)

    def _none_if_only_missing(self, folder: str, error: Exception) -> None:
        """A folder that is not there yet is normal; a bucket that is not there is a mistake."""
        cause: BaseException | None = error
        while cause is not None:
            response = getattr(cause, "response", None)
            code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
            if code == "NoSuchBucket" or "bucket does not exist" in str(cause):
                raise self._without_bucket(folder) from _shown(error, self._options)
            cause = cause.__cause__
        if self._bucket_in_doubt:
            if not self._has_bucket(folder):
                raise self._without_bucket(folder) from _shown(error, self._options)
            self._bucket_in_doubt = False

    def _has_bucket(self, folder: str) -> bool:
        try:
            return bool(self._fs.exists(bucket_of(self._base(folder))))
        except Exception:  # credentials that may read the table need not be allowed to ask that
            return True

    def _without_bucket(self, folder: str) -> SampleBucketMissing:
        location = redact_text(folder, texts_of(self._options))
        return SampleBucketMissing(
            f"{location} cannot be read: the bucket (or container) {bucket_of(self._base(folder))!r} does not exist; "
            "check the name of the bucket in samples.path, and the account or endpoint in the storage options"
        )


def bucket_of(base: str) -> str:
    """The bucket or container of a path without its protocol."""
    return base.strip("/").split("/", 1)[0]


def open_storage(path: str, storage_options: Mapping[str, Any], root: Path | None) -> Storage:
    """The storage that `path` (a URL, an absolute path, or relative to `root`) is on.

    Raises InputError for a protocol nobody knows, SampleUnreadable when the storage refuses.
    """
    if "://" not in path or path.startswith(("file://", "local://")):
        return LocalStorage(root)
    try:
        return UrlStorage(path, storage_options)
    except (InputError, SampleUnreadable):
        raise
    except Exception as error:
        raise unreadable(path, error, storage_options) from _shown(error, storage_options)


def unreadable(location: str, error: BaseException, options: Mapping[str, Any], done: str = "read") -> SampleUnreadable:
    """What a refusal of the storage means to a person."""
    said = redact_text(str(error) or type(error).__name__, texts_of(options))
    text = f"{type(error).__name__} {said}".lower()
    if isinstance(error, PermissionError) or "denied" in text or "forbidden" in text or "credential" in text:
        remedy = "check the credentials (storage_options or the environment) and what they allow"
    elif "bucket" in text:
        remedy = "check the name of the bucket"
    else:
        remedy = "check the path and that the storage can be reached from this machine; the task can be retried"
    return SampleUnreadable(f"{redact_text(location, texts_of(options))} cannot be {done}: {said}; {remedy}")


def _shown(error: BaseException, options: Mapping[str, Any]) -> BaseException | None:
    """The cause to show in a traceback: none when it would print a secret."""
    cause: BaseException | None = error
    while cause is not None:
        if redact_text(str(cause), texts_of(options)) != str(cause):
            return None
        cause = cause.__cause__ or cause.__context__
    return error


def _stored_file(info: dict[str, Any], base: str) -> StoredFile:
    modified = _moment(next((info[key] for key in _MODIFIED if info.get(key)), None))
    tag = next((info[key] for key in _TAGS if info.get(key)), None)
    version = str(tag).strip('"') if tag else "" if modified is None else f"{TIMES}{_nanoseconds(modified)}"
    return StoredFile(info["name"][len(base) :].lstrip("/"), int(info.get("size") or 0), modified, version)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return None
