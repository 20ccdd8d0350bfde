"""Stores that fail when told to, and a store whose listings come late.

A call fails before it has any effect, after it had all of it (the reply is lost), or in the middle: of a file that may
be written in pieces, half is there then. A file that is created exclusively is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, TypeVar

from trainflow.errors import StoreFailure
from trainflow.storage.store import FilePage, Store, StoreFile

T = TypeVar("T")
When = Literal["before", "half", "after"]


class FaultyStore(Store):
    """Pass calls on to `inner`; the call number `fail_at` (from 1; None: never) raises `error`.

    `calls` are the names of the methods called so far, `read_paths` the files read.
    """

    def __init__(
        self,
        inner: Store,
        *,
        fail_at: int | None = None,
        when: When = "before",
        error: Callable[[str], BaseException] | None = None,
    ) -> None:
        self.inner = inner
        self.url = inner.url
        self.remote = inner.remote
        self.lists_after = inner.lists_after
        self.fail_at = fail_at
        self.when = when
        self.calls: list[str] = []
        self.read_paths: list[str] = []
        self._error = error or _store_failure

    def read(self, path: str) -> bytes:
        self.read_paths.append(path)
        return self._pass("read", path, lambda: self.inner.read(path))

    def read_many(self, paths: Sequence[str]) -> list[bytes | None]:
        self.read_paths += paths
        return self._pass("read_many", paths[0] if paths else "", lambda: self.inner.read_many(paths))

    def chunks(self, path: str) -> Iterator[bytes]:
        return iter(self._pass("chunks", path, lambda: list(self.inner.chunks(path))))

    def files(self, folder: str) -> list[StoreFile]:
        return self._pass("files", folder, lambda: self.inner.files(folder))

    def files_after(self, folder: str, name: str) -> list[StoreFile]:
        return self._pass("files_after", folder, lambda: self.inner.files_after(folder, name))

    def first_files_after(self, folder: str, name: str) -> FilePage:
        return self._pass("first_files_after", folder, lambda: self.inner.first_files_after(folder, name))

    def files_if_few(self, folder: str) -> list[StoreFile] | None:
        return self._pass("files_if_few", folder, lambda: self.inner.files_if_few(folder))

    def read_listed(self, files: Sequence[StoreFile], *, fixed: bool = True) -> list[bytes | None]:
        self.read_paths += [file.path for file in files]
        return self._pass(
            "read_many", files[0].path if files else "", lambda: self.inner.read_listed(files, fixed=fixed)
        )

    def read_digested(self, path: str, digest: str) -> bytes:
        self.read_paths.append(path)
        return self._pass("read_digested", path, lambda: self.inner.read_digested(path, digest))

    def folders(self, folder: str) -> list[str]:
        return self._pass("folders", folder, lambda: self.inner.folders(folder))

    def exists(self, path: str) -> bool:
        return self._pass("exists", path, lambda: self.inner.exists(path))

    def create_exclusive(self, path: str, data: bytes) -> None:
        self._pass("create_exclusive", path, lambda: self.inner.create_exclusive(path, data))

    def replace(self, path: str, data: bytes) -> None:
        self._pass(
            "replace",
            path,
            lambda: self.inner.replace(path, data),
            lambda: self.inner.replace(path, data[: len(data) // 2]),
        )

    def put_file(self, source: Path, path: str) -> None:
        self._pass("put_file", path, lambda: self.inner.put_file(source, path), lambda: self._put_half(source, path))

    def get_file(self, path: str, target: Path) -> None:
        self._pass("get_file", path, lambda: self.inner.get_file(path, target))

    def delete(self, path: str) -> None:
        self._pass("delete", path, lambda: self.inner.delete(path))

    def delete_many(self, paths: Sequence[str]) -> None:
        half = paths[: len(paths) // 2]
        self._pass(
            "delete_many",
            paths[0] if paths else "",
            lambda: self.inner.delete_many(paths),
            lambda: self.inner.delete_many(half),
        )

    def delete_folder(self, folder: str) -> None:
        self._pass("delete_folder", folder, lambda: self.inner.delete_folder(folder), lambda: self._delete_half(folder))

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        return self._pass("listing", folder, lambda: self.inner.listing(folder, recursive=recursive))

    def names(self, folder: str) -> list[str] | None:
        return self._pass("names", folder, lambda: self.inner.names(folder))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        return self._pass("read_range", path, lambda: self.inner.read_range(path, start, end))

    def open(self, path: str) -> IO[bytes]:
        return self._pass("open", path, lambda: self.inner.open(path))

    def seal(self, folder: str, note: bytes = b"") -> None:
        self._pass("seal", folder, lambda: self.inner.seal(folder, note))

    def delete_sealed(self, folder: str, keeping: Collection[str] = ()) -> None:
        self._pass(
            "delete_folder",
            folder,
            lambda: self.inner.delete_sealed(folder, keeping),
            lambda: self._delete_half(folder, keeping),
        )

    def share(self, source: str, path: str) -> bool:
        return self._pass("share", path, lambda: self.inner.share(source, path))

    def is_sealed(self, folder: str) -> bool:
        return self._pass("is_sealed", folder, lambda: self.inner.is_sealed(folder))

    def temporary(self, folder: str) -> list[StoreFile]:
        return self._pass("temporary", folder, lambda: self.inner.temporary(folder))

    def local_path(self, path: str) -> Path | None:
        return self.inner.local_path(path)

    def uri(self, path: str) -> str:
        return self.inner.uri(path)

    def _put_half(self, source: Path, path: str) -> None:
        data = source.read_bytes()
        self.inner.replace(path, data[: len(data) // 2])

    def _delete_half(self, folder: str, keeping: Collection[str] = ()) -> None:
        files = [file for file in self.inner.files(folder) if file.path not in keeping]
        for file in files[: (len(files) + 1) // 2]:
            self.inner.delete(file.path)

    def _pass(self, name: str, path: str, call: Callable[[], T], half: Callable[[], None] | None = None) -> T:
        self.calls.append(name)
        fails = len(self.calls) == self.fail_at
        if fails and self.when != "after":
            if self.when == "half" and half is not None:
                half()
            raise self._error(self.uri(path))
        result = call()
        if fails:
            raise self._error(self.uri(path))
        return result


def _store_failure(location: str) -> BaseException:
    return StoreFailure(f"{location}: made to fail", location=location)


class LateListings(FaultyStore):
    """Reads see every write at once; listings do not show what was written since `settle`."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._young: set[str] = set()

    def settle(self) -> None:
        """Show everything from now on."""
        self._young.clear()

    def files(self, folder: str) -> list[StoreFile]:
        return [file for file in super().files(folder) if file.path not in self._young]

    def files_after(self, folder: str, name: str) -> list[StoreFile]:
        return [file for file in super().files_after(folder, name) if file.path not in self._young]

    def first_files_after(self, folder: str, name: str) -> FilePage:
        found = super().first_files_after(folder, name)
        return found._replace(files=[file for file in found.files if file.path not in self._young])

    def files_if_few(self, folder: str) -> list[StoreFile] | None:
        found = super().files_if_few(folder)
        return found and [file for file in found if file.path not in self._young]

    def listing(self, folder: str, *, recursive: bool) -> list[StoreFile] | None:
        found = super().listing(folder, recursive=recursive)
        return found and [file for file in found if f"{folder}/{file.path}" not in self._young]

    def names(self, folder: str) -> list[str] | None:
        found = super().names(folder)
        return found and [name for name in found if f"{folder}/{name}" not in self._young]

    def folders(self, folder: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        shown = {file.path.removeprefix(prefix).partition("/")[0] for file in self.files(folder)}
        return [name for name in super().folders(folder) if name in shown]

    def create_exclusive(self, path: str, data: bytes) -> None:
        super().create_exclusive(path, data)
        self._young.add(path)

    def replace(self, path: str, data: bytes) -> None:
        super().replace(path, data)
        self._young.add(path)

    def put_file(self, source: Path, path: str) -> None:
        super().put_file(source, path)
        self._young.add(path)
