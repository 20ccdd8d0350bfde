"""The driver of S3, Google Cloud Storage and Azure Blob Storage: obstore, a binding of Rust's `object_store`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

from trainflow.concurrent_map import concurrent_map
from trainflow.observability.store_requests import CREATE, DELETE, HEAD, LIST, READ, REQUESTS, UPLOAD, WRITE
from trainflow.storage.driver import Driver, FolderListing, Retry, bucket_of, parts_of
from trainflow.storage.errors import error_kind
from trainflow.storage.obstore.buckets import Buckets
from trainflow.storage.obstore.errors import NO_RANGE, PAST_END, StoreRefusal
from trainflow.storage.obstore.opened_stores import OpenedStore, OpenedStores
from trainflow.storage.obstore.runtime import interruptible
from trainflow.storage.range_reader import LEAST_BYTES, RangeReader
from trainflow.storage.store import REQUESTS_AT_ONCE, FilePage, StoreFile

T = TypeVar("T")
#: of a file that is fetched in parts: bytes of one, and how many are on their way
RANGE_BYTES, RANGES_AT_ONCE = 16 << 20, 6
#: what of a part is in memory while it is fetched
PIECE_BYTES = 1 << 20
#: in one answer to a listing
_PAGE_NAMES = 1000


class _FetchedPart(NamedTuple):
    """What was fetched of a file: how much, of how much, and the mark of its content."""

    received: int
    size: int
    tag: str | None


class ObstoreDriver(Driver):
    """Requests by obstore."""

    shows_folder_marks = True

    def __init__(self, buckets: Buckets, strip: Callable[[str], str]) -> None:
        self._buckets = buckets
        self._strip = strip
        self.tries = buckets.tries
        self.lists_after = buckets.starts_after
        self._stores = OpenedStores(buckets)

    def path_of(self, location: str) -> str:
        return self._strip(location)

    # -- listings

    def list_below(self, folder: str, *, after: str = "") -> list[StoreFile]:
        if after and not self._buckets.starts_after:
            return self.list_by_folders(folder, after)
        offset = after.partition("/")[2] or None

        def listed(store: Any, key: str) -> list[Any]:
            return list(store.list(key or None, offset=offset).collect())

        found = self._files(folder, self._call(folder, listed, LIST))
        return [file for file in found if file.path > after] if after else found

    def list_first_below(self, folder: str, after: str) -> FilePage:
        if not self._buckets.starts_after:
            return super().list_first_below(folder, after)
        found = self._call(folder, _page(after.partition("/")[2]), LIST)
        files = [file for file in self._files(folder, found) if file.path > after]
        return FilePage(files, more=len(found) >= _PAGE_NAMES)

    def list_if_few(self, folder: str) -> list[StoreFile] | None:
        found = self._call(folder, _page(), LIST)
        return self._files(folder, found) if len(found) < _PAGE_NAMES else None

    def list_folder(self, folder: str) -> FolderListing | None:
        found = self._call(folder, lambda store, key: store.list_with_delimiter(key or None), LIST)
        bucket = bucket_of(folder)
        folders = [f"{bucket}/{each}" for each in found["common_prefixes"]]
        files = self._files(folder, found["objects"])
        return FolderListing(files, folders) if files or folders else None

    def _files(self, folder: str, found: Sequence[Mapping[str, Any]]) -> list[StoreFile]:
        """Consoles mark a folder by an empty object whose name ends with a slash, which is not shown here: where there
        is a file in the folder it is left out."""
        bucket = bucket_of(folder)
        files = [
            StoreFile(f"{bucket}/{each['path']}", each["size"], each["last_modified"], _mark(each)) for each in found
        ]
        if any(not file.size_bytes for file in files):
            folders = {parent for file in files for parent in _parents(file.path)}
            files = [file for file in files if file.size_bytes or file.path not in folders]
        return [file for file in files if file.path != folder]

    # -- contents

    def read(self, path: str) -> bytes:
        return self._call(path, lambda store, key: bytes(store.get(key).bytes()))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return self._range(path, start, end)

    def _range(self, path: str, start: int, end: int, tag: str | None = None) -> bytes:
        options = {"range": (start, end), **({"if_match": tag} if tag else {})}
        try:
            return self._call(path, lambda store, key: bytes(store.get(key, options=options).bytes()))
        except StoreRefusal as error:
            if error.status == 416 or error.error_code == PAST_END:  # it ends before
                return b""
            raise

    def read_many(self, paths: Sequence[str]) -> list[bytes | Exception]:
        return list(concurrent_map(REQUESTS_AT_ONCE, self._read_or_error, list(paths)))

    def _read_or_error(self, path: str) -> bytes | Exception:
        try:
            return self.read(path)
        except Exception as error:
            return error

    def open(self, path: str, retry: Retry, *, sequential: bool = False) -> IO[bytes]:
        tail, meta = b"", None
        if self._buckets.gives_ends and not sequential:
            tail, meta = self._end(path)
        if meta is None:
            meta = self._call(path, lambda store, key: store.head(key), HEAD)
        tag = meta["e_tag"]

        def fetch(start: int, end: int) -> bytes:
            found: bytes = retry(lambda: self._range(path, start, end, tag))
            return found

        return cast("IO[bytes]", RangeReader(fetch, meta["size"], tail))

    def _end(self, path: str) -> tuple[bytes, Mapping[str, Any] | None]:
        def end(store: Any, key: str) -> tuple[bytes, Mapping[str, Any]]:
            found = store.get(key, options={"range": {"suffix": LEAST_BYTES}})
            return bytes(found.bytes()), found.meta

        try:
            return self._call(path, end)
        except StoreRefusal as error:
            if _has_no_part(error):
                return b"", None
            raise

    def create(self, path: str, data: bytes) -> str:
        return _mark(self._call(path, lambda store, key: store.put(key, data, mode="create"), CREATE, sent=len(data)))

    def write(self, path: str, data: bytes) -> str:
        return _mark(
            self._call(path, lambda store, key: store.put(key, data, use_multipart=False), WRITE, sent=len(data))
        )

    def upload(self, source: Path, path: str) -> None:
        size = source.stat().st_size
        part, at_once = parts_of(size)

        def put(store: Any, key: str) -> None:
            store.put(key, source, chunk_size=part, max_concurrency=at_once, use_multipart=size > part)

        requests = 1 if size <= part else -(-size // part) + 1 + self._buckets.begins_uploads
        self._call(path, put, UPLOAD, sent=size, requests=requests, in_parts=size > part)

    def download(self, path: str, target: Path, retry: Retry) -> None:
        target.write_bytes(b"")
        first: _FetchedPart = retry(lambda: self._first_part(path, target))
        # of an earlier try, when the file was longer, there may be more
        os.truncate(target, first.size)
        if first.size <= first.received:
            return

        def fetch(start: int) -> None:
            end = min(start + RANGE_BYTES, first.size)
            options = {"range": (start, end), **({"if_match": first.tag} if first.tag else {})}
            part: _FetchedPart = retry(lambda: self._call(path, _copying(target, options, start)))
            if part.received != end - start:
                raise ConnectionError(f"{path} ended after {start + part.received} of {first.size} bytes")

        for _ in concurrent_map(RANGES_AT_ONCE, fetch, range(first.received, first.size, RANGE_BYTES)):
            pass

    def _first_part(self, path: str, target: Path) -> _FetchedPart:
        try:
            return self._call(path, _copying(target, {"range": (0, RANGE_BYTES)}))
        except StoreRefusal as error:
            if not _has_no_part(error):
                raise
            return self._call(path, _copying(target, {}))

    def delete(self, paths: Sequence[str]) -> None:
        for bucket in dict.fromkeys(bucket_of(path) for path in paths):
            keys = [path.partition("/")[2] for path in paths if bucket_of(path) == bucket]
            try:
                self._call(bucket, _deletion(keys), DELETE, requests=self._buckets.deletes(len(keys)))
            except FileNotFoundError as error:
                if getattr(error, "error_code", "") in _BUCKET_MISSING:
                    raise
                self._delete_each(bucket, keys)

    def _delete_each(self, bucket: str, keys: Sequence[str]) -> None:
        """Some services take it for an error that a file is not there, and stop."""
        for key in keys:
            with suppress(FileNotFoundError):
                self._call(bucket, _deletion(key), DELETE)

    def delete_below(self, folder: str) -> None:
        found = self.list_below(folder)
        if found:
            self.delete([file.path for file in found])

    def is_file(self, path: str) -> bool:
        try:
            self._call(path, lambda store, key: store.head(key), HEAD)
        except FileNotFoundError:
            return False
        return True

    def has_bucket(self, path: str) -> bool:
        try:
            self.list_folder(bucket_of(path))
        except FileNotFoundError:
            return False
        except StoreRefusal:  # credentials that may read the files need not be allowed to ask that
            return True
        return True

    def ask(self, folder: str) -> None:
        # credentials may be good for what is below the place and no more: a policy for `folder/*` allows no `folder`
        self._call(folder, lambda store, key: next(iter(store.list(key or None, chunk_size=1)), None), LIST)

    # -- requests

    def _call(
        self,
        path: str,
        call: Callable[[Any, str], T],
        op: str = READ,
        *,
        sent: int = 0,
        requests: int = 1,
        in_parts: bool = False,
    ) -> T:
        """What `call` returns of the bucket and the key of a path. Counted as `requests` that send so many bytes."""
        bucket, _, key = path.strip("/").partition("/")
        used: list[OpenedStore] = []

        def ask() -> T:
            used.append(self._stores.get(bucket, in_parts))
            return call(used[-1].store, key)

        try:
            return self._counted(bucket, ask, op, sent, requests)
        except StoreRefusal as error:
            if not used or not self._stores.opens_otherwise(bucket, used[-1], error):
                raise
        try:
            return self._counted(bucket, ask, op, sent, requests)
        except StoreRefusal as error:
            raise self._stores.explain(bucket, error) from None

    def _counted(self, bucket: str, call: Callable[[], T], op: str, sent: int, requests: int) -> T:
        with REQUESTS.call(self._buckets.label(bucket), op, error_kind, sent) as made:
            made.requests = requests
            found = interruptible(call)
            made.received = _bytes_in(found)
            if op == LIST:
                made.requests = max(1, -(-_names_in(found) // self._buckets.page_names))
        return found


_BUCKET_MISSING = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})


def _page(after: str = "") -> Callable[[Any, str], list[Any]]:
    """The names in one answer to a listing."""

    def page(store: Any, key: str) -> list[Any]:
        return list(next(iter(store.list(key or None, offset=after or None, chunk_size=_PAGE_NAMES)), []))

    return page


def _deletion(keys: str | list[str]) -> Callable[[Any, str], None]:
    return lambda store, _: store.delete(keys)


def _copying(target: Path, options: dict[str, Any], start: int = 0) -> Callable[[Any, str], _FetchedPart]:
    """Copy what is asked for to `start` of a file, piece by piece: no part is ever in memory as a whole."""

    def copy(store: Any, key: str) -> _FetchedPart:
        found = store.get(key, options=options)
        received = 0
        # opened here: who was interrupted does not wait for this, and a number of his file is soon that of another
        with target.open("r+b") as file:
            file.seek(start)
            for piece in found.stream(PIECE_BYTES):
                received += file.write(piece)
        return _FetchedPart(received, found.meta["size"], found.meta["e_tag"])

    return copy


def _mark(written: Mapping[str, Any]) -> str:
    """The mark of a content, as a listing shows it, of what the service said when it was written."""
    return (written["e_tag"] or "").strip('"')


def _bytes_in(found: object) -> int:
    """The bytes of a content that a call gave, alone or before what else it gave."""
    if isinstance(found, _FetchedPart):
        return found.received
    first = found[0] if isinstance(found, tuple) and found else found
    return len(first) if isinstance(first, bytes) else 0


def _names_in(found: object) -> int:
    if isinstance(found, dict):
        return len(found["objects"]) + len(found["common_prefixes"])
    return len(found) if isinstance(found, list) else 0


def _has_no_part(error: StoreRefusal) -> bool:
    """Whether a part was asked of a file in which there is nothing, or of a server that knows no parts."""
    return error.status == 416 or error.error_code == NO_RANGE


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    for number in range(1, len(parts) + 1):
        yield "/".join(parts[:number])
