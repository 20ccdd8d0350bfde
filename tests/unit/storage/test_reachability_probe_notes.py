"""When a store is tried for exclusive creation again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.errors import StoreFailure, StoreNotExclusive
from trainflow.storage.reachability import NOTE_AGE, identity_of, probe_once_a_day
from trainflow.testing.faulty_store import FaultyStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Overwriting(MemoryStore):
    def create_exclusive(self, path: str, data: bytes) -> None:
        self.replace(path, data)


def asked(notes: Path, now: datetime, identity: str = "a", *, remote: bool = True) -> int:
    store = FaultyStore(MemoryStore(remote=remote))
    probe_once_a_day(store, identity, notes, now)
    return len(store.calls)


def test_store_is_tried_once_a_day_and_another_one_for_itself(tmp_path: Path) -> None:
    assert asked(tmp_path, NOW) == 4
    assert asked(tmp_path, NOW + NOTE_AGE - timedelta(seconds=1)) == 0
    assert asked(tmp_path, NOW, "b") == 4
    assert asked(tmp_path, NOW + NOTE_AGE) == 4
    assert asked(tmp_path / "a new home", NOW) == 4


def test_store_on_this_machine_is_tried_each_time(tmp_path: Path) -> None:
    assert [asked(tmp_path, NOW, remote=False) for _ in range(2)] == [4, 4]


@pytest.mark.parametrize("content", [b"", b"{", b'{"at": "2026-01-01T00:00:00"}', b'{"at": "2026-01-03T00:00:00Z"}'])
def test_note_torn_or_of_the_future_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert asked(tmp_path, NOW) == 4
    assert asked(tmp_path, NOW) == 0


def test_store_that_overwrites_or_refuses_is_never_noted(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(StoreNotExclusive):
            probe_once_a_day(Overwriting(remote=True), "a", tmp_path, NOW)
    with pytest.raises(StoreFailure):
        probe_once_a_day(FaultyStore(MemoryStore(remote=True), fail_at=1), "a", tmp_path, NOW)
    assert list(tmp_path.iterdir()) == []


def test_home_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    assert [asked(tmp_path / "notes", NOW) for _ in range(2)] == [4, 4]


def test_identity_is_of_place_and_account_and_holds_no_secret() -> None:
    options = {"key": "id", "secret": "abcd1234", "client_kwargs": {"endpoint_url": "http://one"}}
    known = identity_of("s3://b/c", options, {})
    assert known == identity_of("s3://b/c", {**options, "secret": "another"}, {})
    others = [
        identity_of("s3://b/d", options, {}),
        identity_of("s3://b/c", {**options, "client_kwargs": {"endpoint_url": "http://two"}}, {}),
        identity_of("s3://b/c", {**options, "key": "another"}, {}),
        identity_of("s3://b/c", options, {"AWS_ENDPOINT_URL": "http://two"}),
    ]
    assert len({known, *others}) == 5
