"""The driver of every store that fsspec knows: memory, and those whose options no other driver takes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import IO, Any

from trainflow.errors import InputError
from trainflow.storage.driver import Driver, FolderListing, Retry, bucket_of, parts_of
from trainflow.storage.errors import ends_before, is_missing_bucket
from trainflow.storage.obstore.fsspec_options import OPTIONS_OF_FSSPEC
from trainflow.storage.store import TIMES, StoreFile

log = logging.getLogger(__name__)

#: what file systems call the time of the last write, and the mark of a content
_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "created")
_TAGS = ("ETag", "etag", "md5Hash", "content_md5")
#: protocols whose drivers raise the same for a missing bucket as for a missing folder
_SILENT_ABOUT_BUCKETS = frozenset({"az", "abfs", "abfss", "gs", "gcs", "oss", "oci"})

#: Google takes parts that are multiples of this
_CHUNK_UNIT = 256 << 10
#: how near, of 1, the name of an option that is meant is to one that is written
_NEARLY = 0.8
#: handed on by file systems whose signature does not name them
_OF_LIBRARIES = frozenset({"profile", "timeout", "read_timeout", "connection_timeout", "max_concurrency", "verify"})


class FsspecDriver(Driver):
    """A file system of fsspec, of which `protocol` is the innermost protocol."""

    def __init__(self, filesystem: Any, protocol: str) -> None:
        self.filesystem = filesystem
        self.remote = protocol != "memory"
        self._protocol = protocol
        self._whole = _in_one_request(filesystem)
        #: of a store whose driver says the same of a missing container and of a missing folder: not known yet
        self._bucket_in_doubt = protocol in _SILENT_ABOUT_BUCKETS

    def path_of(self, location: str) -> str:
        return str(self.filesystem._strip_protocol(location)).rstrip("/")

    def list_below(self, folder: str, *, after: str = "") -> list[StoreFile]:
        if after:
            return self.list_by_folders(folder, after)
        self.filesystem.invalidate_cache()
        try:
            found: dict[str, Any] = self.filesystem.find(f"{folder}/", detail=True)
        except FileNotFoundError as error:
            self._raise_if_bucket_missing(folder, error)
            return []
        if not found:
            self._raise_if_bucket_missing(folder)
        return list(_files(found.values(), folder))

    def list_folder(self, folder: str) -> FolderListing | None:
        self.filesystem.invalidate_cache()
        try:
            listed = list(self.filesystem.ls(folder, detail=True))
        except FileNotFoundError as error:
            self._raise_if_bucket_missing(folder, error)
            return None
        folders = [str(info["name"]).rstrip("/") for info in listed if info["type"] == "directory"]
        return FolderListing(list(_files(listed, folder)), [path for path in folders if path != folder])

    def _raise_if_bucket_missing(self, folder: str, error: FileNotFoundError | None = None) -> None:
        if error is not None and is_missing_bucket(error):
            raise error
        if self._bucket_in_doubt and not self.has_bucket(folder):
            raise FileNotFoundError(f"bucket does not exist: {bucket_of(folder)}")
        self._bucket_in_doubt = False

    def has_bucket(self, path: str) -> bool:
        try:
            return bool(self.filesystem.exists(bucket_of(path)))
        except Exception as error:  # credentials that may read the files need not be allowed to ask that
            log.debug("whether the bucket %s is there cannot be asked: %s", bucket_of(path), type(error).__name__)
            return True

    def read(self, path: str) -> bytes:
        return bytes(self.filesystem.cat_file(path, **self._whole))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        try:
            return bytes(self.filesystem.cat_file(path, start=start, end=end))
        except Exception as error:
            if ends_before(error):
                return b""
            raise

    def read_many(self, paths: Sequence[str]) -> list[bytes | Exception]:
        answers = self.filesystem.cat(list(paths), on_error="return", **self._whole)
        return [
            answer if isinstance(answer, Exception) else bytes(answer) for answer in map(answers.__getitem__, paths)
        ]

    def open(self, path: str, retry: Retry, *, sequential: bool = False) -> IO[bytes]:
        opened: IO[bytes] = self.filesystem.open(path, "rb", **({"cache_type": "none"} if sequential else {}))
        return opened

    def create(self, path: str, data: bytes) -> str:
        self.filesystem.pipe_file(path, data, mode="create")
        return ""

    def write(self, path: str, data: bytes) -> str:
        self.filesystem.pipe_file(path, data)
        return ""

    def upload(self, source: Path, path: str) -> None:
        self.filesystem.put_file(str(source), path, **_in_small_parts(self.filesystem, source.stat().st_size))

    def download(self, path: str, target: Path, retry: Retry) -> None:
        retry(lambda: self.filesystem.get_file(path, str(target)))

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            # the memory file system raises a KeyError for a file that is not there
            with suppress(FileNotFoundError, KeyError):
                self.filesystem.rm_file(path)

    def delete_below(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.rm(folder, recursive=True)

    def is_file(self, path: str) -> bool:
        self.filesystem.invalidate_cache()
        return bool(self.filesystem.isfile(path))

    def ask(self, folder: str) -> None:
        bucket, _, prefix = folder.strip("/").partition("/")
        # credentials may be good for what is below the place and no more: a policy for `folder/*` allows no `folder`
        below = f"{prefix}/" if prefix else ""
        if self._protocol in ("s3", "s3a"):
            self.filesystem.retries = 1
            self.filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=below, MaxKeys=1)
        elif self._protocol in ("gs", "gcs"):
            _ask_gcs(self.filesystem, bucket, below)
        elif self._protocol in ("az", "abfs", "abfss"):
            _ask_azure(self.filesystem, bucket, below)
        else:
            self.filesystem.exists(folder)


def open_filesystem(url: str, options: Mapping[str, Any], *, own_gcs: bool) -> tuple[Any, str]:
    """The file system of a URL, and the path of the URL there. `own_gcs`: a server of one's own is in the place of
    Google's. Before the first write to a bucket newer gcsfs asks by gRPC and TLS of which kind it is; such a server
    knows neither, and is asked for a minute."""
    if own_gcs and "::" not in url:
        from gcsfs.core import GCSFileSystem

        return GCSFileSystem(**options), GCSFileSystem._strip_protocol(url)
    from fsspec.core import url_to_fs

    filesystem, base = url_to_fs(url, **options)
    return filesystem, str(base)


def check_option_names(url: str, protocol: str, options: Mapping[str, Any]) -> None:
    """Raise InputError for an option that nearly has the name of one that the file system of `protocol` takes: some
    take any and say nothing of those that they do not know. Others that are not known are handed on."""
    if "::" in url or not options:
        return
    from fsspec import get_filesystem_class

    known = _option_names(get_filesystem_class(protocol))
    for name in sorted(options.keys() - known):
        if near := get_close_matches(name, sorted(known), n=1, cutoff=_NEARLY):
            raise InputError(f"{protocol}:// has no storage option '{name}'; did you mean '{near[0]}'?")


def _option_names(kind: type) -> frozenset[str]:
    """What a file system and those that it is made of take, and what their libraries do."""
    makers = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    parameters = (each for maker in makers for each in signature(maker).parameters.values())
    named = (each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY))
    return frozenset(named) - {"self"} | OPTIONS_OF_FSSPEC | _OF_LIBRARIES


def quick_options(protocol: str, options: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The options of a client that tries once, beneath those that were given."""
    quick: dict[str, Any] = {"skip_instance_cache": True}
    if protocol in ("s3", "s3a"):
        given = options.get("config_kwargs") or {}
        quick["config_kwargs"] = {"retries": {"total_max_attempts": 1}, "connect_timeout": seconds, **given}
        return {**options, **quick}
    return {**quick, **options}


def _ask_gcs(filesystem: Any, bucket: str, prefix: str) -> None:
    from fsspec.asyn import sync

    # the method is wrapped in six tries
    request = inspect.unwrap(type(filesystem)._request)
    sync(filesystem.loop, request, filesystem, "GET", "b/{}/o", bucket, prefix=prefix, maxResults=1)


def _ask_azure(filesystem: Any, container: str, prefix: str) -> None:
    from fsspec.asyn import sync

    async def first_page() -> None:
        client = filesystem.service_client.get_container_client(container)
        pages = client.list_blobs(name_starts_with=prefix, results_per_page=1, retry_total=0).by_page()
        async for _ in pages:
            return

    sync(filesystem.loop, first_page)


def _files(listed: Iterable[Mapping[str, Any]], folder: str) -> Iterable[StoreFile]:
    for info in listed:
        path = str(info["name"])
        if info["type"] == "file" and path.rstrip("/") != folder:
            modified = _moment(next((info[key] for key in _MODIFIED if info.get(key)), None))
            tag = next((info[key] for key in _TAGS if info.get(key)), None)
            version = str(tag).strip('"') if tag else "" if modified is None else f"{TIMES}{_nanoseconds(modified)}"
            yield StoreFile(path, int(info.get("size") or 0), modified, version)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _in_one_request(filesystem: Any) -> dict[str, Any]:
    """Newer drivers ask for the size of a file before they read it, to read a large one in parts at once. What is read
    whole here is small: that would double the requests, and treble those for a file that is not there."""
    read = getattr(filesystem, "_cat_file", None)
    return {"max_concurrency": 1} if read and "max_concurrency" in signature(read).parameters else {}


def _in_small_parts(filesystem: Any, size: int) -> dict[str, int]:
    """s3fs has ten parts of 50 MB of a file in memory while it is sent, gcsfs two, unless they are told otherwise."""
    send = getattr(filesystem, "_put_file", None)
    known = signature(send).parameters if send is not None else {}
    if "chunksize" not in known:
        return {}
    part_bytes, at_once = parts_of(size)
    if "max_concurrency" in known:
        # each part is there twice on its way
        return {"chunksize": part_bytes, "max_concurrency": max(1, at_once // 2)}
    # one part after the other
    return {"chunksize": -(-2 * part_bytes // _CHUNK_UNIT) * _CHUNK_UNIT}


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
