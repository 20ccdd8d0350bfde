"""Files behind fsspec: S3, GCS, Azure, and any other that fsspec knows; memory for tests.

Creation is one conditional request (`If-None-Match: *`, generation match). Listings are never taken from fsspec's
cache: another process may have written. A store that asks for fewer requests is waited for.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from trainflow.errors import SampleUnreadable, StoreFailure
from trainflow.storage.drivers import driver_of, protocol_of
from trainflow.storage.errors import CheckpointFailures, Failures, is_missing_bucket
from trainflow.storage.local_copies import LocalCopies
from trainflow.storage.reasons import is_throttled
from trainflow.storage.s3_requests import s3_requests
from trainflow.storage.store import REQUESTS_AT_ONCE, SEAL, TIMES, Store, StoreFile

T = TypeVar("T")
_Listing = Iterable[dict[str, Any]]
CHUNK_BYTES = 8 << 20
#: how often a call is made, to a store that asks for fewer requests, before its error counts
TRIES = 6
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 30.0
#: what file systems call the time of the last write, and the mark of a content
_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "created")
_TAGS = ("ETag", "etag", "md5Hash", "content_md5")
#: protocols whose drivers raise the same for a missing bucket as for a missing folder
_SILENT_ABOUT_BUCKETS = frozenset({"az", "abfs", "abfss", "gs", "gcs", "oss", "oci"})
#: fsspec's memory file system looks first and writes then, and its readers share one cursor
_MEMORY_LOCK = threading.RLock()


class ObjectStore(Store):
    """Objects below a prefix. `sleep` is for a store that asks for fewer requests; `copies` of small files are kept on
    this machine."""

    def __init__(
        self,
        filesystem: Any,
        base: str,
        *,
        url: str,
        failures: Failures | None = None,
        copies: LocalCopies | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._filesystem = filesystem
        self._base = base.rstrip("/")
        self._failures = failures or CheckpointFailures()
        self._sleep = sleep
        driver = driver_of(url)
        self.url = url
        self.remote = driver != "memory"
        self.requests_at_once = REQUESTS_AT_ONCE if self.remote else 1
        self._lock: AbstractContextManager[Any] = nullcontext() if self.remote else _MEMORY_LOCK
        self._whole = _in_one_request(filesystem)
        self._copies = copies if self.remote else None
        self._s3 = s3_requests(filesystem, driver)
        #: of a store whose driver says the same of a missing container and of a missing folder: not known yet
        self._bucket_in_doubt = driver in _SILENT_ABOUT_BUCKETS

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        base = self._at(folder)
        listed = self._listed(folder, self._find if recursive else self._list)
        if listed is None:
            return None
        of_files = (info for info in listed if info["type"] == "file" and info["name"].rstrip("/") != base)
        found = [_stored_file(info, base) for info in of_files]
        # an object store has no folders: one without an object does not exist
        return sorted(found, key=lambda file: file.path) if found or not recursive else None

    def files(self, folder: str) -> list[StoreFile]:
        found = self.listing(folder, recursive=True) or []
        return [msgspec.structs.replace(file, path=f"{folder}/{file.path}") for file in found] if folder else found

    def names(self, folder: str) -> list[str] | None:
        listed, base = self._listed(folder, self._list), self._at(folder)
        if listed is None:
            return None
        paths = [str(info["name"]).rstrip("/") for info in listed]
        return [path.rsplit("/", 1)[-1] for path in paths if path != base]

    def files_if_few(self, folder: str) -> list[StoreFile] | None:
        s3, base = self._s3, self._at(folder)
        if s3 is None:
            return self.files(folder)
        listed = self._ask("list", folder, lambda: s3.first_page(f"{base}/"))
        if listed is None:
            return None
        found = sorted((_stored_file(info, base) for info in listed), key=lambda file: file.path)
        return [msgspec.structs.replace(file, path=f"{folder}/{file.path}") for file in found] if folder else found

    def files_after(self, folder: str, name: str) -> list[StoreFile]:
        base = self._at(folder)
        listed = self._listed(folder, lambda base: self._after(base, name))
        found = sorted((_stored_file(info, base) for info in listed or ()), key=lambda file: file.path)
        return [msgspec.structs.replace(file, path=f"{folder}/{file.path}") for file in found if file.path > name]

    def _after(self, base: str, name: str) -> list[dict[str, Any]]:
        """The files below the folders after a name; those that no driver but that of S3 begins at are found by what is
        in the folder."""
        if self._s3 is not None:
            return list(self._s3.listing(f"{base}/", after=f"{base}/{name}"))
        found: list[dict[str, Any]] = []
        for info in self._list(base):
            below = str(info["name"]).rstrip("/")[len(base) :].lstrip("/")
            if info["type"] == "file":
                found.append(info)
            elif f"{below}0" > name:  # the next character after the slash: all that is in it sorts before that
                found += (each for each in self._find(str(info["name"]).rstrip("/")) if each["type"] == "file")
        return found

    def _find(self, base: str) -> _Listing:
        if self._s3 is not None:
            return list(self._s3.listing(f"{base}/"))
        self._filesystem.invalidate_cache()
        found: dict[str, Any] = self._filesystem.find(f"{base}/", detail=True)
        return found.values()

    def _list(self, base: str) -> _Listing:
        if self._s3 is not None:
            found = list(self._s3.listing(f"{base}/", recursive=False))
            if not found:
                raise FileNotFoundError(base)
            return found
        self._filesystem.invalidate_cache()
        return list(self._filesystem.ls(base, detail=True))

    def _listed(self, folder: str, look: Callable[[str], _Listing]) -> _Listing | None:
        """None where a folder is not there yet, which is normal; a bucket that is not there is a mistake."""
        return self._ask("list", folder, lambda: self._unless_missing(folder, look))

    def _unless_missing(self, folder: str, look: Callable[[str], _Listing]) -> _Listing | None:
        try:
            return look(self._at(folder))
        except FileNotFoundError as error:
            if is_missing_bucket(error) or (self._bucket_in_doubt and not self._has_bucket(folder)):
                raise self._without_bucket(folder) from self._failures.shown(error)
            self._bucket_in_doubt = False
            return None

    def _without_bucket(self, path: str) -> BaseException:
        return self._failures.bucket_missing(self.uri(path), self._bucket(path))

    def _has_no_bucket_to(self, doing: str, path: str, error: Exception) -> bool:
        """Whether what is not there when something is written is the bucket."""
        return doing in ("create", "write") and isinstance(error, FileNotFoundError) and not self._has_bucket(path)

    def _has_bucket(self, path: str) -> bool:
        try:
            return bool(self._filesystem.exists(self._bucket(path)))
        except Exception:  # credentials that may read the files need not be allowed to ask that
            return True

    def _bucket(self, path: str) -> str:
        """The bucket or container that a path is in."""
        return self._at(path).strip("/").split("/", 1)[0]

    def read(self, path: str) -> bytes:
        return self._ask("read", path, lambda: bytes(self._filesystem.cat_file(self._at(path), **self._whole)))

    def read_listed(self, files: Sequence[StoreFile], *, fixed: bool = True) -> list[bytes | None]:
        if self._copies is None:
            return super().read_listed(files)
        known = {file.path: self._copies.read(file.path, file.version) for file in files}
        unknown = [file for file in files if known[file.path] is None]
        for file, data in zip(unknown, self.read_many([file.path for file in unknown]), strict=True):
            known[file.path] = data
            if data is not None and file.version and len(data) == file.size_bytes:
                # what was written over since the listing is not what its mark is of: then only an MD5 tells
                self._copies.keep(file.path, data, file.version if fixed else "")
        return [known[file.path] for file in files]

    def read_digested(self, path: str, digest: str) -> bytes:
        known = self._copies.find(path, digest) if self._copies is not None else None
        return self.read(path) if known is None else known

    def _keep(self, path: str, data: bytes) -> None:
        if self._copies is not None:
            self._copies.keep(path, data)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        if start >= end:  # no store has a range of nothing
            return b""
        return self._ask("read", path, lambda: bytes(self._filesystem.cat_file(self._at(path), start=start, end=end)))

    def open(self, path: str) -> IO[bytes]:
        opened: IO[bytes] = self._ask("read", path, lambda: self._filesystem.open(self._at(path), "rb"))
        return opened

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        found: dict[str, bytes | None] = {}
        if paths:
            self._ask("read", paths[0], lambda: self._read_rest(paths, found))
        return [found[path] for path in paths]

    def _read_rest(self, paths: Sequence[str], found: dict[str, bytes | None]) -> None:
        """Read what is not there yet. Who asks for fewer requests is not asked again for what it has given."""
        left = [path for path in paths if path not in found]
        answers = self._filesystem.cat([self._at(path) for path in left], on_error="return", **self._whole)
        refused: BaseException | None = None
        for path in left:
            answer = answers[self._at(path)]
            if isinstance(answer, BaseException) and is_throttled(answer):
                refused = answer
            else:
                found[path] = _content(answer)
        if refused is not None:
            raise refused

    def chunks(self, path: str) -> Iterator[bytes]:
        with self._failing("read", path), self._ask("read", path, lambda: self._open_unbuffered(path)) as file:
            # a refused read leaves the place in the file where it was
            while chunk := self._ask("read", path, lambda: file.read(CHUNK_BYTES)):
                yield bytes(chunk)

    def _open_unbuffered(self, path: str) -> Any:
        return self._filesystem.open(self._at(path), "rb", cache_type="none")

    def folders(self, folder: str) -> list[str]:
        listed = self._listed(folder, self._list)
        below = (str(info["name"]) for info in listed or () if info["type"] == "directory")
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in below)

    def exists(self, path: str) -> bool:
        return self._ask("read", path, lambda: self._is_file(path))

    def _is_file(self, path: str) -> bool:
        self._filesystem.invalidate_cache()
        return bool(self._filesystem.isfile(self._at(path)))

    def create_exclusive(self, path: str, data: bytes) -> None:
        self._ask("create", path, lambda: self._filesystem.pipe_file(self._at(path), data, mode="create"))
        self._keep(path, data)

    def replace(self, path: str, data: bytes) -> None:
        self._ask("write", path, lambda: self._filesystem.pipe_file(self._at(path), data))
        self._keep(path, data)

    def put_file(self, source: Path, path: str) -> None:
        self._ask("upload", path, lambda: self._filesystem.put_file(str(source), self._at(path)))

    def get_file(self, path: str, target: Path) -> None:
        self._ask("read", path, lambda: self._get_file(path, target))

    def _get_file(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._filesystem.get_file(self._at(path), str(target))

    def delete(self, path: str) -> None:
        # the memory file system raises a KeyError for a file that is not there
        with suppress(FileNotFoundError, KeyError):
            self._ask("delete", path, lambda: self._filesystem.rm_file(self._at(path)))

    def delete_folder(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            self._ask("delete", folder, lambda: self._delete_below(folder))

    def _delete_below(self, folder: str) -> None:
        if self._s3 is None:
            self._filesystem.rm(self._at(folder), recursive=True)
            return
        self._s3.delete([info["name"] for info in self._s3.listing(f"{self._at(folder)}/")])

    def delete_many(self, paths: Sequence[str]) -> None:
        s3 = self._s3
        if s3 is None:
            super().delete_many(paths)
        elif paths:
            self._ask("delete", paths[0], lambda: s3.delete([self._at(path) for path in paths]))

    def delete_sealed(self, folder: str, keeping: Collection[str] = ()) -> None:
        if self._s3 is None:
            super().delete_sealed(folder, keeping)
        else:
            self._ask("delete", folder, lambda: self._delete_with_seal(folder, {self._at(path) for path in keeping}))

    def _delete_with_seal(self, folder: str, keeping: Collection[str]) -> None:
        """The files first: a seal without files is found again, files without a seal are an attempt's."""
        assert self._s3 is not None
        base = self._at(folder)
        names = [info["name"] for info in self._s3.listing(base)]
        seal = f"{base}{SEAL}"
        going = [name for name in names if name.startswith(f"{base}/") and name not in keeping]
        self._s3.delete(going + [seal] * (seal in names))

    def uri(self, path: str) -> str:
        return self._failures.masked(path) if _is_location(path) else super().uri(path)

    def _at(self, path: str) -> str:
        if _is_location(path):
            return str(self._filesystem._strip_protocol(path)).rstrip("/")
        return f"{self._base}/{path}" if path else self._base

    def _ask(self, doing: str, path: str, call: Callable[[], T]) -> T:
        with self._failing(doing, path), self._lock:
            return retry_throttled(call, self._sleep)

    @contextmanager
    def _failing(self, doing: str, path: str) -> Iterator[None]:
        # drivers raise what they like (botocore's errors are no OSError), so everything else counts as a failure
        try:
            yield
        except (FileExistsError, StoreFailure, SampleUnreadable):
            raise
        except Exception as error:
            # nothing to be found is an answer when deleting; when writing the bucket is not there
            if is_missing_bucket(error) or self._has_no_bucket_to(doing, path, error):
                raise self._without_bucket(path) from self._failures.shown(error)
            if doing == "delete" and isinstance(error, FileNotFoundError | KeyError):
                raise
            self._failures.raise_for(doing, self.uri(path), error)


def _is_location(path: str) -> bool:
    """Whether a path has a protocol: it is the location of a file then, and not relative to the root."""
    return protocol_of(path) != "file"


def _stored_file(info: dict[str, Any], base: str) -> StoreFile:
    modified = _moment(next((info[key] for key in _MODIFIED if info.get(key)), None))
    tag = next((info[key] for key in _TAGS if info.get(key)), None)
    version = str(tag).strip('"') if tag else "" if modified is None else f"{TIMES}{_nanoseconds(modified)}"
    return StoreFile(str(info["name"])[len(base) :].lstrip("/"), int(info.get("size") or 0), modified, version)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _in_one_request(filesystem: Any) -> dict[str, Any]:
    """Newer drivers ask for the size of a file before they read it, to read a large one in parts at once. What is read
    whole here is small: that would double the requests, and treble those for a file that is not there."""
    read = getattr(filesystem, "_cat_file", None)
    return {"max_concurrency": 1} if read and "max_concurrency" in signature(read).parameters else {}


def _content(found: Any) -> bytes | None:
    if isinstance(found, FileNotFoundError) and not is_missing_bucket(found):
        return None
    if isinstance(found, BaseException):
        raise found
    return bytes(found)


def _moment(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return None


def retry_throttled(call: Callable[[], T], sleep: Callable[[float], None]) -> T:
    """What `call` returns. Raises its error at once, or after `TRIES` times when the store asked for patience.

    A refused request has done nothing; a create of which the reply was lost before it says that the file exists.
    """
    for number in range(TRIES - 1):
        try:
            return call()
        except Exception as error:
            if not is_throttled(error):
                raise
        sleep(_retry_delay_seconds(number))
    return call()


def _retry_delay_seconds(number: int) -> float:
    """Seconds to wait after failure `number` (from 0): between half and all of a doubling time, so that writers who
    were refused together do not come back together."""
    whole = min(_FIRST_WAIT_SECONDS * 2**number, _LONGEST_WAIT_SECONDS)
    return float(whole * random.uniform(0.5, 1.0))
