"""A log store that is away for longer than a day gets everything all the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from tests.support.control_plane import ControlPlane
from tests.support.log_stores import plane_with_log_store, uploads
from trainflow.engine import log_backlog, log_uploads
from trainflow.engine.log_uploads import LogUploads
from trainflow.errors import StoreFailure
from trainflow.settings.model import LogStoreSettings
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with plane_with_log_store(tmp_path) as plane:
        yield plane


def away() -> Store:
    raise StoreFailure("away", location="s3://logs")


class OrderedStore(LocalStore):
    """Remembers in which order it was given something."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.names: list[str] = []

    def replace(self, name: str, data: bytes) -> None:
        super().replace(name, data)
        self.names.append(name)


def ended(plane: ControlPlane, number: int) -> str:
    """Run one more attempt, a minute later; the name of its log."""
    plane.clock.advance(timedelta(minutes=1))
    plane.add_run("d", f"r{number}")
    (work,) = plane.tick()
    path = Path(work.log_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{number}\n")
    plane.play(work)
    return str(path.relative_to(plane.project.home.logs))


@pytest.fixture
def store(tmp_path: Path) -> OrderedStore:
    return OrderedStore(tmp_path / "logs")


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_uploads, "_AT_ONCE", 1)


def look_until_done(sending: LogUploads, looks: int = 8) -> None:
    for _ in range(looks):
        sending.look()


def test_next_process_sends_what_is_older_than_a_day_oldest_first(
    plane: ControlPlane,
    store: OrderedStore,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_backlog, "PAGE", 2)
    caplog.set_level("INFO")
    first = uploads(plane, lambda: store)
    before = ended(plane, 0)
    first.look()
    plane.clock.advance(timedelta(minutes=10))
    first.look()
    first.close()
    plane.clock.advance(timedelta(days=2))
    lost = uploads(plane, away)
    missing = [ended(plane, number) for number in range(1, 6)]
    lost.look()
    lost.close()
    plane.clock.advance(timedelta(days=40))
    last = uploads(plane, lambda: store)
    look_until_done(last)
    assert store.names == [before, *missing]
    told = [record.getMessage() for record in caplog.records if record.name == log_backlog.log.name]
    assert [sentence.partition(" ")[2] for sentence in told] == [
        f"may lack logs from {missing[0]} on: they are sent now, oldest first",
        "has the logs of before",
    ]
    last.close()
    plane.clock.advance(timedelta(days=2))
    look_until_done(uploads(plane, lambda: store))
    assert store.names == [before, *missing]


def test_another_store_does_not_get_what_was_before_it(plane: ControlPlane, store: OrderedStore) -> None:
    first = uploads(plane, away)
    ended(plane, 0)
    first.look()
    first.close()
    plane.clock.advance(timedelta(days=2))
    plane.settings = msgspec.structs.replace(plane.settings, logs=LogStoreSettings(url="elsewhere"))
    look_until_done(uploads(plane, lambda: store))
    assert store.names == []


def test_few_logs_are_held_and_all_are_sent(
    plane: ControlPlane, store: OrderedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_backlog, "PAGE", 2)
    monkeypatch.setattr(log_uploads, "_MOST", 3)
    is_there = False
    sending = uploads(plane, lambda: store if is_there else away())
    missing: list[str] = []
    for number in range(9):
        missing.append(ended(plane, number))
        sending.look()
        assert len(sending._names) <= 3
    is_there = True
    plane.clock.advance(timedelta(days=3))
    look_until_done(sending)
    assert sorted(store.names) == sorted(missing)
    assert store.names[0] == missing[0]
