"""What was written from this machine is not read again, whatever the mark is that the store gives a content."""

from __future__ import annotations

from pathlib import Path

import fsspec
import msgspec
import pytest

from trainflow.storage.fsspec_driver import FsspecDriver
from trainflow.storage.local_copies import LocalCopies
from trainflow.storage.object_store import ObjectStore
from trainflow.storage.store import StoreFile


class Marking(FsspecDriver):
    """Gives each content a mark that is no digest of it, as Azure does, and S3 where it encrypts with keys of KMS."""

    def __init__(self, *, tells: bool) -> None:
        super().__init__(fsspec.filesystem("memory"), "memory")
        self.remote = True
        self.reads: list[str] = []
        self._tells = tells
        self._marks: dict[str, str] = {}

    def create(self, path: str, data: bytes) -> str:
        super().create(path, data)
        return self._mark(path)

    def write(self, path: str, data: bytes) -> str:
        super().write(path, data)
        return self._mark(path)

    def _mark(self, path: str) -> str:
        self._marks[path.strip("/")] = f"mark {len(self._marks)} of {path}, {len(self.reads)}"
        return self._marks[path.strip("/")] if self._tells else ""

    def list_below(self, folder: str, *, after: str = "") -> list[StoreFile]:
        found = super().list_below(folder, after=after)
        return [msgspec.structs.replace(file, version=self._marks[file.path.strip("/")]) for file in found]

    def read(self, path: str) -> bytes:
        self.reads.append(path)
        return super().read(path)

    def read_many(self, paths):  # type: ignore[no-untyped-def]
        self.reads += paths
        return super().read_many(paths)


@pytest.mark.parametrize(("tells", "read"), [(True, 0), (False, 2)])
def test_file_written_from_here_is_read_once_at_most(tmp_path: Path, tells: bool, read: int) -> None:
    driver, base = Marking(tells=tells), f"/bucket-{tmp_path.name}"
    store = ObjectStore(lambda: (driver, base), url="s3://bucket", copies=LocalCopies(tmp_path / "copies", "s3"))
    store.create_exclusive("a", b"first")
    store.replace("b", b"second")
    assert store.read_listed(store.files("")) == [b"first", b"second"]
    assert len(driver.reads) == read
    store.read_listed(store.files(""))
    assert len(driver.reads) == read


def test_file_written_over_elsewhere_is_read_again(tmp_path: Path) -> None:
    driver, base = Marking(tells=True), f"/bucket-{tmp_path.name}"
    store = ObjectStore(lambda: (driver, base), url="s3://bucket", copies=LocalCopies(tmp_path / "copies", "s3"))
    store.replace("a", b"first")
    driver.write(f"{base}/a", b"other")
    assert store.read_listed(store.files("")) == [b"other"]
