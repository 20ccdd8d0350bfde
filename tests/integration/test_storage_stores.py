"""Every kind of checkpoint store keeps the contract, and says clearly why it cannot be used."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_object_stores import LocalAzure, LocalGCS, LocalS3
from tests.support.local_sftp import LocalSFTP
from trainflow.errors import InputError, StoreFailure, StoreMissing, StoreNotExclusive
from trainflow.storage.exclusive_creation import probe
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.store_contract import StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store("some/checkpoints", root=tmp_path)


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = open_store(f"memory://{uuid.uuid4().hex}/checkpoints")
        yield store
        store.delete_folder("")


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, s3: LocalS3) -> Store:
        return open_store(f"s3://{s3.make_bucket()}/some/checkpoints", storage_options=s3.storage_options)


#: of aiohttp, which the drivers give the whole content of a file to
_OF_DRIVERS = pytest.mark.filterwarnings("ignore:Sending a large body")


@_OF_DRIVERS
class TestGcsStore(StoreContract):
    @pytest.fixture
    def store(self, gcs: LocalGCS) -> Store:
        return open_store(f"gs://{gcs.make_bucket()}/some/checkpoints", storage_options=gcs.storage_options)


@_OF_DRIVERS
class TestAzureStore(StoreContract):
    @pytest.fixture
    def store(self, azure: LocalAzure) -> Store:
        return open_store(f"az://{azure.make_bucket()}/some/checkpoints", storage_options=azure.storage_options)


class TestSFTPStore(StoreContract):
    @pytest.fixture
    def store(self, sftp: LocalSFTP) -> Store:
        return open_store(f"{sftp.make_url()}/some/checkpoints", storage_options=sftp.storage_options)


class TestSFTPStoreOfAsyncssh(StoreContract):
    @pytest.fixture
    def store(self, asyncssh_sftp: LocalSFTP) -> Store:
        options = asyncssh_sftp.storage_options
        return open_store(f"{asyncssh_sftp.make_url()}/some/checkpoints", storage_options=options)


def test_path_is_relative_to_project(tmp_path: Path) -> None:
    assert open_store("checkpoints", root=tmp_path).url == str(tmp_path / "checkpoints")
    assert open_store("/elsewhere", root=tmp_path).url == "/elsewhere"
    assert open_store("file:///elsewhere", root=tmp_path).url == "/elsewhere"


@pytest.mark.parametrize("url", ["http://host/x", "ftp://user:hunter2@host/x", "hdfs://host/x", "github://a:b@c/x"])
def test_store_that_cannot_create_exclusively_is_refused(url: str) -> None:
    with pytest.raises(StoreNotExclusive, match="cannot create a file only if it is absent") as caught:
        open_store(url)

    assert "hunter2" not in str(caught.value)


def test_protocol_that_does_not_exist_is_told_which_one_is_like_it() -> None:
    with pytest.raises(InputError, match=r"s4://bucket/x: no store is reached by s4://; did you mean 's3://'\?"):
        open_store("s4://bucket/x")


def test_missing_driver_names_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ImportError("Install gcsfs")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)

    with pytest.raises(InputError, match=r"pip install 'trainflow\[gcs\]'"):
        open_store("gs://bucket/x", storage_options={"driver": "fsspec"})


def test_store_that_overwrites_is_found_out_by_probe(tmp_path: Path) -> None:
    class Overwriting(LocalStore):
        def create_exclusive(self, path: str, data: bytes) -> None:
            self.replace(path, data)

    store = Overwriting(tmp_path)

    with pytest.raises(StoreNotExclusive, match="created the same file twice"):
        probe(store)

    assert list(tmp_path.iterdir()) == []


def test_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)

    with pytest.raises(StoreNotExclusive, match="no hard links"):
        probe(LocalStore(tmp_path))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free space"), (errno.EROFS, "read-only"), (errno.EACCES, "the right to")],
)
def test_store_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(StoreFailure, match=advice) as caught:
        LocalStore(tmp_path).create_exclusive("entry.json", b"{}")

    assert caught.value.location == str(tmp_path / "entry.json")
    assert list(tmp_path.iterdir()) == []


def test_store_below_file_is_store_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreFailure, match="a part of the path is a file"):
        probe(open_store("file/checkpoints", root=tmp_path))


def test_credentials_never_reach_message(s3: LocalS3) -> None:
    options = {**s3.storage_options, "secret": "hunter2"}
    store = open_store("s3://bucket-that-is-not-there/x", storage_options=options)

    with pytest.raises(StoreFailure, match="does not exist") as caught:
        probe(store)

    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(store.url)


def test_store_bucket_missing_is_named_before_any_write(s3: LocalS3) -> None:
    store = open_store("s3://bucket-that-is-not-there/x", storage_options=s3.storage_options)
    with pytest.raises(StoreMissing, match=r"container\) 'bucket-that-is-not-there' does not exist"):
        probe(store)


def test_crash_before_link_leaves_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*args: object, **kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", killed)
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            LocalStore(tmp_path).create_exclusive("ledger/1.json", b"{}")
    store = LocalStore(tmp_path)

    assert store.files("ledger") == []
    store.create_exclusive("ledger/1.json", b"whole")
    assert store.read("ledger/1.json") == b"whole"
