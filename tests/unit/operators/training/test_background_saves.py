"""Saves that are uploaded while training goes on: what the trainer waits for, what a kill costs, what is reported."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit import artifacts
from trainflow.checkpoints.commit.artifacts import digest_folder
from trainflow.checkpoints.ledger.entries import Artifacts
from trainflow.checkpoints.saves import intermediate_saves
from trainflow.checkpoints.saves.intermediate_saves import IntermediateSaves
from trainflow.errors import ArtifactsRefused, StoreFailure
from trainflow.operators.training.background_saves import BackgroundSaves
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import attempt_id

NOW = datetime(2024, 1, 1, tzinfo=UTC)
CHAIN = ChainKey("clicks")
SPLIT = "sha256:split"
WAIT = 30.0


class SlowStore(MemoryStore):
    """Uploads files when it is let; `on_its_way` while it waits for that."""

    def __init__(self) -> None:
        super().__init__("s3://bucket", remote=True)
        self.let = threading.Semaphore(0)
        self.on_its_way = threading.Semaphore(0)
        self.uploaded: list[str] = []
        #: raised for a path that holds this
        self.failing = "\n"

    def put_file(self, source: Path, path: str) -> None:
        self.on_its_way.release()
        assert self.let.acquire(timeout=WAIT)
        if self.failing in path:
            raise StoreFailure("the store is away", location=path)
        super().put_file(source, path)
        self.uploaded.append(path.rpartition("/")[2])

    def let_all(self) -> None:
        self.let.release(1000)

    def manifests(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.contents if "/manifest." in path]


class Machine:
    """A home, and the attempts in it."""

    def __init__(self, store: SlowStore, home: Path) -> None:
        self.store, self.home, self.attempts = store, home, 0

    def attempt(self, number: int, earlier: list[Artifacts] | None = None) -> BackgroundSaves:
        there = IntermediateSaves(self.store, CHAIN, "start." + "0" * 24, attempt_id(number), self.home / "scratch")
        here = there.in_store(LocalStore(self.home / "saves"), kept=1)
        return BackgroundSaves(here, there, lambda: earlier or [], logging.getLogger("test"))

    def folders(self) -> list[str]:
        return sorted(path.name for path in (self.home / "saves" / CHAIN.partials).glob("*/*"))


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def machine(store: SlowStore, tmp_path: Path) -> Iterator[Machine]:
    yield Machine(store, tmp_path / "home")
    store.let_all()


def save(saves: BackgroundSaves, row: int, **files: bytes) -> None:
    folder = saves.begin()
    for name, data in (files or {"model": b"after %d" % row}).items():
        (folder / name).write_bytes(data)
    saves.complete({"row": row}, {}, NOW, SPLIT)


def row_of(found: Any) -> int | None:
    return None if found is None else found[0].position["row"]


def test_trainer_goes_on_while_save_is_uploaded(machine: Machine, store: SlowStore) -> None:
    saves = machine.attempt(1)
    save(saves, 10)
    assert store.on_its_way.acquire(timeout=WAIT)

    assert (saves.arrived(), store.manifests()) == ([], [])

    store.let_all()
    saves.finish(needed=True)
    assert (saves.arrived(), saves.arrived()) == ([10], [])
    assert store.manifests() == [f"manifest.{10:020d}.json"]


def test_killed_in_an_upload_this_machine_goes_on_from_it_and_another_from_the_one_before(
    machine: Machine, store: SlowStore, tmp_path: Path
) -> None:
    first = machine.attempt(1)
    store.let.release()
    save(first, 10)
    assert store.on_its_way.acquire(timeout=WAIT)
    first.finish(needed=True)
    killed = machine.attempt(2)
    assert row_of(killed.newest(SPLIT)) == 10
    save(killed, 20, a=b"1", b=b"2")
    store.let.release()  # one of two files
    for _ in range(2):
        assert store.on_its_way.acquire(timeout=WAIT)

    elsewhere = Machine(store, tmp_path / "other")
    assert row_of(elsewhere.attempt(3).newest(SPLIT)) == 10

    store.uploaded.clear()
    again = machine.attempt(4)
    found = again.newest(SPLIT)
    assert row_of(found) == 20
    assert found
    assert {path.name: path.read_bytes() for path in found[1].iterdir()} == {"a": b"1", "b": b"2"}
    store.let_all()
    again.finish(needed=True)
    assert "a" not in store.uploaded
    assert row_of(Machine(store, tmp_path / "third").attempt(5).newest(SPLIT)) == 20


def test_of_saves_that_come_meanwhile_newest_is_uploaded(machine: Machine, store: SlowStore) -> None:
    saves = machine.attempt(1)
    save(saves, 10)
    assert store.on_its_way.acquire(timeout=WAIT)
    for row in (20, 30, 40):
        save(saves, row)
    assert len(machine.folders()) == 2

    store.let_all()
    saves.finish(needed=True)

    assert saves.arrived() == [10, 40]
    assert machine.folders() == [f"{attempt_id(1)}-{4:08d}"]


def test_save_that_is_written_to_before_its_digests_are_taken_is_none(
    machine: Machine, store: SlowStore, caplog: pytest.LogCaptureFixture
) -> None:
    saves = machine.attempt(1)
    save(saves, 10)
    assert store.on_its_way.acquire(timeout=WAIT)  # what comes meanwhile waits
    save(saves, 20)
    folder = machine.home / "saves" / CHAIN.partials / ("start." + "0" * 24) / f"{attempt_id(1)}-{2:08d}" / "files"
    (folder / "model").write_bytes(b"after 30")

    store.let_all()
    saves.finish(needed=True)

    assert saves.arrived() == [10]
    assert "was written after ctx.save had returned" in caplog.text
    assert machine.folders() == [f"{attempt_id(1)}-{1:08d}"]
    assert row_of(machine.attempt(2).newest(SPLIT)) == 10


def test_save_that_is_written_to_while_it_is_uploaded_is_none(
    machine: Machine, store: SlowStore, caplog: pytest.LogCaptureFixture
) -> None:
    saves = machine.attempt(1)
    store.let.release()
    save(saves, 10)
    assert store.on_its_way.acquire(timeout=WAIT)
    save(saves, 20)
    assert store.on_its_way.acquire(timeout=WAIT)  # its digests are taken
    folder = machine.home / "saves" / CHAIN.partials / ("start." + "0" * 24) / f"{attempt_id(1)}-{2:08d}" / "files"
    (folder / "model").write_bytes(b"after thirty")

    store.let_all()
    saves.finish(needed=True)

    assert (saves.arrived(), store.manifests()) == ([10], [f"manifest.{10:020d}.json"])
    assert "was written after ctx.save had returned" in caplog.text
    assert row_of(machine.attempt(2).newest(SPLIT)) == 10


def test_end_of_training_waits_for_file_that_is_on_its_way_alone(
    machine: Machine, store: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intermediate_saves, "SMALL_FILE_BYTES", 0)
    saves = machine.attempt(1)
    save(saves, 10, a=b"1", b=b"2", c=b"3")
    assert store.on_its_way.acquire(timeout=WAIT)
    thread = saves._thread
    assert thread is not None
    join = thread.join
    # waited for by who has said that nothing more is needed
    monkeypatch.setattr(thread, "join", lambda: (store.let_all(), join(WAIT)))

    saves.finish(needed=False)

    assert (store.uploaded, store.manifests(), saves.arrived()) == (["a"], [], [])


def test_upload_that_fails_is_not_reported_and_next_one_is(
    machine: Machine, store: SlowStore, caplog: pytest.LogCaptureFixture
) -> None:
    saves = machine.attempt(1)
    store.failing = f"{attempt_id(1)}-{1:08d}"
    save(saves, 10)
    assert store.on_its_way.acquire(timeout=WAIT)
    save(saves, 20)
    store.let_all()
    saves.finish(needed=True)

    assert "training goes on: the store is away" in caplog.text
    assert saves.arrived() == [20]


def test_save_that_can_never_be_one_is_refused_at_once(machine: Machine) -> None:
    saves = machine.attempt(1)
    folder = saves.begin()
    (folder / "link").symlink_to("/etc/hostname")

    with pytest.raises(ArtifactsRefused, match="outside of the output folder"):
        saves.complete({"row": 1}, {}, NOW, SPLIT)


def test_file_of_the_parent_is_named_and_not_uploaded(
    machine: Machine, store: SlowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "SHARED_BYTES", 5)
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "embedding").write_bytes(b"embedding")
    parent = Artifacts(CHAIN.attempt(attempt_id(0)), digest_folder(tmp_path / "parent"))
    store.contents[f"{parent.path}/embedding"] = b"embedding"
    store.let_all()
    saves = machine.attempt(1, [parent])
    save(saves, 10, embedding=b"embedding", model=b"m")
    saves.finish(needed=True)

    assert store.uploaded == ["model"]
    found = Machine(store, tmp_path / "other").attempt(2).newest(SPLIT)
    assert found
    assert {path.name: path.read_bytes() for path in found[1].iterdir()} == {"embedding": b"embedding", "model": b"m"}
