"""Files on an SFTP server: what the protocol does not say, what a killed writer leaves, and connections that end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_sftp import PASSWORD, USER, LocalSFTP
from trainflow.errors import InputError, StoreFailure, StoreNotExclusive
from trainflow.observability.store_requests import REQUESTS
from trainflow.storage.errors import CheckpointFailures
from trainflow.storage.exclusive_creation import created, probe
from trainflow.storage.reachability import check_reachable
from trainflow.storage.sftp import SFTPStore
from trainflow.storage.urls import open_storage, open_store
from trainflow.testing.processes import DEADLINE_SECONDS


@pytest.fixture
def url(sftp: LocalSFTP) -> str:
    return sftp.make_url()


@pytest.fixture
def store(sftp: LocalSFTP, url: str) -> SFTPStore:
    found = open_store(url, storage_options=sftp.storage_options)
    assert isinstance(found, SFTPStore)
    return found


def folder_of(url: str) -> Path:
    """The folder of the server, which is on this machine."""
    return Path("/" + url.split("/", 3)[3])


def test_server_without_hard_links_is_refused_and_nothing_is_left(
    store: SFTPStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncssh

    async def unsupported(*arguments: object) -> None:
        raise asyncssh.SFTPOpUnsupported("link not supported")

    monkeypatch.setattr(asyncssh.SFTPClient, "link", unsupported)
    with pytest.raises(StoreNotExclusive, match="makes no hard links"):
        probe(store)
    assert list(folder_of(url).iterdir()) == []


def test_writer_that_is_cut_off_leaves_no_entry(store: SFTPStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncssh

    async def lost(*arguments: object) -> None:
        raise asyncssh.ConnectionLost("Connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(asyncssh.SFTPClient, "link", lost)
        patch.setattr(asyncssh.SFTPClient, "remove", lost)
        with pytest.raises(StoreFailure, match="check the endpoint"):
            store.create_exclusive("ledger/1.json", b"{}")

    [left] = (folder_of(url) / "ledger").iterdir()
    assert store.files("") == []
    assert [file.path for file in store.temporary("")] == [f"ledger/{left.name}"]
    store.create_exclusive("ledger/1.json", b"whole")
    assert store.read("ledger/1.json") == b"whole"


def test_creation_whose_reply_is_lost_is_known_by_its_content(
    store: SFTPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncssh

    real = asyncssh.SFTPClient.link

    async def linked_and_lost(*arguments: Any) -> None:
        await real(*arguments)
        raise asyncssh.SFTPConnectionLost("Connection lost")

    monkeypatch.setattr(asyncssh.SFTPClient, "link", linked_and_lost)
    assert created(store, "1.json", b"mine")
    assert not created(store, "1.json", b"of another")
    assert store.read("1.json") == b"mine"


def test_creation_whose_connection_is_lost_afterwards_is_done(
    store: SFTPStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncssh

    async def lost(*arguments: object) -> None:
        raise asyncssh.ConnectionLost("Connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(asyncssh.SFTPClient, "remove", lost)
        store.create_exclusive("a/entry", b"1")
    assert store.read("a/entry") == b"1"


def test_connection_that_was_lost_is_made_again(store: SFTPStore) -> None:
    store.create_exclusive("a", b"content")
    store._connection._connection.abort()
    assert store.read("a") == b"content"
    store._connection._connection.abort()
    assert created(store, "b", b"content")


def test_stores_of_one_server_share_a_connection(store: SFTPStore, sftp: LocalSFTP) -> None:
    other = open_store(sftp.make_url(), storage_options=sftp.storage_options)
    assert isinstance(other, SFTPStore)
    assert other._connection is store._connection


def test_file_that_is_open_stays_the_one_that_it_was(store: SFTPStore) -> None:
    store.replace("a", b"0123456789")
    with store.open("a") as file:
        assert file.read(3) == b"012"
        store.replace("a", b"other content")
        assert file.read() == b"3456789"
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"89"


def test_samples_are_read_where_links_lead(sftp: LocalSFTP, url: str) -> None:
    folder = folder_of(url)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "part").write_bytes(b"rows")
    (folder / "day").symlink_to("elsewhere")
    (folder / "dead").symlink_to("nothing")
    samples = open_storage(url, sftp.storage_options, None)

    listed = samples.listing(url, recursive=True)

    assert [(file.path, file.size_bytes) for file in listed or ()] == [
        ("day/part", 4),
        ("dead", 0),
        ("elsewhere/part", 4),
    ]
    assert samples.read(f"{url}/day/part") == b"rows"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"password": "wrong", "client_keys": None}, "check the credentials"),
        ({"known_hosts": None}, ""),
        ({"known_hosts": "/dev/null"}, "Host key is not trusted for host 127.0.0.1"),
        ({"port": 9}, "check the endpoint"),
    ],
)
def test_check_reachable_what_sftp_refuses_is_told(
    sftp: LocalSFTP, url: str, changed: dict[str, Any], said: str
) -> None:
    options = {**sftp.storage_options, **changed}

    found = check_reachable(url, options, CheckpointFailures(options), seconds=DEADLINE_SECONDS)

    if not said:
        assert found is None
        return
    assert said in str(found)
    assert str(found).startswith(f"{url} cannot be used: ")
    assert PASSWORD not in str(found)
    assert "\n" not in str(found)


def test_check_reachable_place_that_is_a_file_is_told(sftp: LocalSFTP, url: str) -> None:
    (folder_of(url) / "file").touch()
    options = sftp.storage_options
    found = check_reachable(f"{url}/file", options, CheckpointFailures(options), seconds=DEADLINE_SECONDS)
    assert str(found).endswith("a part of the path is a file: move it away or name another store")
    assert check_reachable(f"{url}/nothing/yet", options, CheckpointFailures(options), seconds=DEADLINE_SECONDS) is None


def test_options_of_fsspec_mean_what_they_do_there(sftp: LocalSFTP, url: str) -> None:
    options = {"username": USER, "password": PASSWORD, "host_key_policy": "auto_add"}
    assert check_reachable(url, options, CheckpointFailures(options), seconds=DEADLINE_SECONDS) is None
    options = {**sftp.storage_options, "nonsense": 1}
    with pytest.raises(InputError, match="nonsense"):
        open_store(url, storage_options=options).files("")
    assert isinstance(check_reachable(url, options, CheckpointFailures(options), seconds=DEADLINE_SECONDS), InputError)


def test_folder_that_may_not_be_written_is_told(sftp: LocalSFTP) -> None:
    store = open_store(f"sftp://127.0.0.1:{sftp.port}/proc/nowhere", storage_options=sftp.storage_options)
    with pytest.raises(StoreFailure, match="cannot be created"):
        probe(store)


def test_requests_are_counted_by_server_and_kind(store: SFTPStore, url: str) -> None:
    store.replace("b", b"1")
    REQUESTS.clear()
    store.create_exclusive("a", b"12345")
    with pytest.raises(FileExistsError):
        store.create_exclusive("a", b"123")
    assert store.read_many(["a", "b", "c"]) == [b"12345", b"1", None]
    assert len(store.files("")) == 2
    found = {each.op: (each.requests, each.bytes_sent, each.bytes_received, each.errors) for each in REQUESTS.take()}
    assert found == {"create": (2, 8, 0, {}), "read": (1, 0, 6, {}), "list": (1, 0, 0, {})}
    with pytest.raises(FileNotFoundError):
        store.read("c")
    [each] = REQUESTS.take()
    assert (each.store, each.errors) == (f"sftp://{url.split('@')[-1].split('://')[-1].split('/')[0]}", {})
