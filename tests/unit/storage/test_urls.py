from __future__ import annotations

import os
import shutil
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from trainflow.errors import InputError, SampleBucketMissing, SampleUnreadable
from trainflow.observability.redaction import redact_text, texts_of
from trainflow.storage.errors import SampleFailures
from trainflow.storage.fsspec_driver import FsspecDriver
from trainflow.storage.local import written
from trainflow.storage.object_store import ObjectStore
from trainflow.storage.store import Storage
from trainflow.storage.urls import open_storage


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
    """A storage and an empty folder on it."""
    url = "folder" if request.param == "local" else f"memory://{request.node.name}"
    return open_storage(url, {}, tmp_path), url


def test_sample_files_written_are_listed_and_read(place: tuple[Storage, str]) -> None:
    storage, folder = place
    storage.replace(f"{folder}/b.txt", b"bb")
    storage.replace(f"{folder}/a/x.txt", b"x")
    flat = storage.listing(folder, recursive=False)
    deep = storage.listing(folder, recursive=True)
    assert flat is not None
    assert deep is not None
    assert [(file.path, file.size_bytes) for file in flat] == [("b.txt", 2)]
    assert [file.path for file in deep] == ["a/x.txt", "b.txt"]
    assert all(file.modified is not None and file.modified.tzinfo is not None and file.version for file in deep)
    assert sorted(storage.names(folder) or []) == ["a", "b.txt"]
    assert storage.read(f"{folder}/b.txt") == b"bb"


def test_sample_files_absent_are_refused(place: tuple[Storage, str]) -> None:
    storage, folder = place
    assert storage.listing(f"{folder}/none", recursive=False) is None
    assert storage.listing(f"{folder}/none", recursive=True) is None
    assert storage.names(f"{folder}/none") is None
    with pytest.raises(SampleUnreadable, match=r"none\.txt cannot be read"):
        storage.read(f"{folder}/none.txt")


def test_writing_again_replaces(place: tuple[Storage, str]) -> None:
    storage, folder = place
    storage.replace(f"{folder}/a", b"one")
    storage.replace(f"{folder}/a", b"two")
    assert storage.read(f"{folder}/a") == b"two"
    assert storage.names(folder) == ["a"]


def test_copy_that_keeps_its_times_is_as_old_as_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainflow.storage.local.written", written)
    (tmp_path / "from").mkdir()
    source, copy = tmp_path / "from" / "a.parquet", tmp_path / "a.parquet"
    source.write_bytes(b"x")
    os.utime(source, (1e9, 1e9))
    shutil.copy2(source, copy)
    assert copy.stat().st_mtime == 1e9
    [found] = open_storage(".", {}, None).listing(str(tmp_path), recursive=False) or []
    assert found.modified is not None
    assert found.modified >= datetime.now(UTC) - timedelta(minutes=1)


def test_link_to_nothing_is_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").symlink_to("gone")
    storage = open_storage(".", {}, None)
    [found] = storage.listing(str(tmp_path), recursive=False) or []
    assert (found.path, found.size_bytes) == ("a.parquet", 0)
    with pytest.raises(SampleUnreadable, match=r"a\.parquet cannot be read"):
        storage.read(str(tmp_path / found.path))


def test_relative_paths_belong_to_root(tmp_path: Path) -> None:
    open_storage("a", {}, tmp_path).replace("a/b", b"")
    assert (tmp_path / "a" / "b").exists()
    assert open_storage("file:///x", {}, tmp_path).names(f"file://{tmp_path}/a") == ["b"]


def test_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SampleUnreadable, match=r"data cannot be read: .*Permission denied.*check the credentials"):
        open_storage("data", {}, tmp_path).listing("data", recursive=False)


def test_unknown_protocol_and_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("Install gcsfs")

    with pytest.raises(InputError, match=r"no store is reached by nowhere://; there is: abfs://, .*, s3://"):
        open_storage("nowhere://x", {}, None)
    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises(InputError, match="needs a package that is not installed"):
        open_storage("gs://bucket/x", {"driver": "fsspec"}, None)


@pytest.mark.parametrize(
    ("text", "options", "shown"),
    [
        ("key AKIA123 refused", {"key": "AKIA123"}, "key *** refused"),
        ("nested s3cr3t!", {"client_kwargs": {"headers": ["s3cr3t!"]}}, "nested ***"),
        ("at http://host:9000", {"endpoint_url": "http://host:9000"}, "at http://host:9000"),
        ("sftp://me:pass@host/x", {}, "sftp://me:***@host/x"),
        ("s3://bucket/a@b/x", {}, "s3://bucket/a@b/x"),
    ],
)
def test_secrets_are_taken_out(text: str, options: dict[str, Any], shown: str) -> None:
    assert redact_text(text, texts_of(options)) == shown


def test_sample_files_secrets_are_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("signature of topsecret rejected")

    memory = fsspec.filesystem("memory", skip_instance_cache=True, token="topsecret")
    monkeypatch.setattr(memory, "ls", refuse)
    driver = FsspecDriver(memory, "memory")
    storage = ObjectStore(lambda: (driver, "x"), url="memory://x", failures=SampleFailures({"token": "topsecret"}))
    with pytest.raises(SampleUnreadable, match=r"signature of \*\*\* rejected") as caught:
        storage.listing("memory://x", recursive=False)
    assert "topsecret" not in "".join(traceback.format_exception(caught.value, chain=True))


class _Containers:
    """A driver that says the same of a missing container and of a missing folder."""

    def __init__(self, *there: str, denied: bool = False) -> None:
        self.there, self.denied, self.asked = there, denied, 0

    def _strip_protocol(self, path: str) -> str:
        return path.partition("://")[2]

    def invalidate_cache(self) -> None:
        pass

    def ls(self, path: str, detail: bool = True) -> list[Any]:
        raise FileNotFoundError(path)

    def exists(self, path: str) -> bool:
        self.asked += 1
        if self.denied:
            raise PermissionError(path)
        return path in self.there


@pytest.mark.parametrize("protocol", ["az", "abfs", "gs"])
def test_missing_container_is_told_from_missing_folder(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for driver, missing in ((_Containers("c"), False), (_Containers("d"), True), (_Containers(denied=True), False)):
        monkeypatch.setattr("fsspec.core.url_to_fs", lambda url, driver=driver, **_: (driver, ""))
        storage = open_storage(f"{protocol}://c/table", {"driver": "fsspec"}, None)
        for _ in range(2):
            if missing:
                with pytest.raises(SampleBucketMissing, match=r"container\) 'c' does not exist"):
                    storage.listing(f"{protocol}://c/table/dt=1", recursive=False)
            else:
                assert storage.listing(f"{protocol}://c/table/dt=1", recursive=False) is None
        assert driver.asked == (2 if missing else 1)
