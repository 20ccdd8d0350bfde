"""What was saved inside a split: whole or not there, the newest one of the newest attempt, in any kind of store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.saves.intermediate_saves import IntermediateSaves, clear_saves, drop_training, old_saves
from trainflow.checkpoints.saves.training_identity import training_name
from trainflow.errors import StoreFailure
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.testing.chains import attempt_id, day
from trainflow.testing.faulty_store import FaultyStore, When

CHAIN = ChainKey("model")
NAME = training_name(attempt_id(90), "split")


@pytest.fixture(params=["local", "elsewhere"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


@pytest.fixture
def attempt(store: Store, tmp_path: Path) -> Callable[..., IntermediateSaves]:
    """An attempt made on day `number`."""

    def make(number: int, name: str = NAME, not_before: int | None = None, into: Store = store) -> IntermediateSaves:
        moment = None if not_before is None else day(not_before)
        scratch = tmp_path / "scratch" / attempt_id(number)
        return IntermediateSaves(into, CHAIN, name, attempt_id(number), scratch, not_before=moment)

    return make


Attempt = Callable[..., IntermediateSaves]


def save(saves: IntermediateSaves, row: int, text: str = "weights") -> None:
    folder = saves.begin()
    assert list(folder.iterdir()) == []
    (folder / "sub").mkdir()
    (folder / "w").write_text(f"{text} {row}")
    (folder / "sub" / "manifest.json").write_text("the trainer's own")
    saves.complete({"row": row}, {"loss": row / 10}, day(0))


def found(saves: IntermediateSaves) -> tuple[int, str] | None:
    newest = saves.newest()
    if newest is None:
        return None
    one, folder = newest
    assert one.state == {"loss": one.position["row"] / 10}
    assert (folder / "sub" / "manifest.json").read_text() == "the trainer's own"
    return one.position["row"], (folder / "w").read_text()


def names(store: Store) -> list[str]:
    return store.folders(f"{CHAIN.partials}/{NAME}")


def overwrite(store: Store, path: str, data: bytes) -> None:
    store.delete(path)
    store.create_exclusive(path, data)


def test_saves_absent_cost_one_listing(attempt: Attempt) -> None:
    store = FaultyStore(MemoryStore())
    saves = attempt(1, into=store)
    assert saves.newest() is None
    assert store.calls == ["folders"]
    assert not saves.any


def test_newest_one_is_found_and_two_are_kept(store: Store, attempt: Attempt) -> None:
    first = attempt(1)
    for row in (10, 20, 30):
        save(first, row)
    assert first.any
    assert names(store) == [f"{attempt_id(1)}-0000000{number}" for number in (2, 3)]
    second = attempt(2)
    assert found(second) == (30, "weights 30")
    assert second.any
    save(second, 40)
    save(second, 50)
    assert names(store) == [f"{attempt_id(2)}-0000000{number}" for number in (1, 2)]
    assert found(attempt(3)) == (50, "weights 50")


def test_training_of_something_else_finds_nothing(attempt: Attempt) -> None:
    save(attempt(1), 10)
    other = attempt(2, training_name(attempt_id(90), "another split"))
    assert found(other) is None
    # there is something to clear away nevertheless
    assert other.any


def test_newest_after_zombie_is_save_that_is_furthest(store: Store, attempt: Attempt) -> None:
    zombie, successor = attempt(1), attempt(2)
    save(zombie, 10)
    save(successor, 20)
    for row in (100, 110, 120):
        save(zombie, row)
    assert found(attempt(3)) == (120, "weights 120")
    save(successor, 30)
    assert found(attempt(3)) == (120, "weights 120")
    assert names(store) == [
        *(f"{attempt_id(1)}-0000000{number}" for number in (3, 4)),
        f"{attempt_id(2)}-00000002",
    ]


def test_newest_that_its_zombie_deletes_is_still_there(attempt: Attempt) -> None:
    zombie = attempt(1)
    save(zombie, 1)
    newest = attempt(2).newest()
    assert newest is not None
    for row in (2, 3, 4):
        save(zombie, row)
    assert (newest[1] / "w").read_text() == "weights 1"


def test_saves_newest_after_clock_set_back_is_furthest(store: Store, attempt: Attempt) -> None:
    first = attempt(5)
    save(first, 10)
    save(first, 20)
    # days earlier, as its clock says
    second = attempt(2)
    assert found(second) == (20, "weights 20")
    for row in (30, 40, 50):
        save(second, row)
        assert found(attempt(1)) == (row, f"weights {row}")
    assert names(store) == [f"{attempt_id(2)}-0000000{number}" for number in (2, 3)]


def test_newest_of_two_epochs_is_one_whose_rows_are_more(attempt: Attempt) -> None:
    """Rows count through all epochs, and have as many digits as they like."""
    saves = attempt(1)
    for row in (9, 99, 100, 1_000_000):
        save(saves, row)
        assert found(attempt(2)) == (row, f"weights {row}")


def test_saves_after_clear_with_clock_set_back_are_own(attempt: Attempt) -> None:
    late = attempt(2, not_before=3)
    save(late, 10)
    save(late, 20)
    assert found(late) == (20, "weights 20")


def test_complete_after_damaged_saves_that_were_further_keeps_its_own(store: Store, attempt: Attempt) -> None:
    for row in (100, 200):
        save(attempt(row), row)
        overwrite(store, f"{CHAIN.partials}/{NAME}/{attempt_id(row)}-00000001/files/w", b"?")
    again = attempt(300)
    assert found(again) is None
    save(again, 5)
    assert found(attempt(301)) == (5, "weights 5")
    save(again, 10)
    assert found(attempt(301)) == (10, "weights 10")


def test_saves_incomplete_are_absent(store: Store, attempt: Attempt) -> None:
    saves = attempt(1)
    save(saves, 10)
    (saves.begin() / "w").write_text("torn")
    assert found(attempt(2)) == (10, "weights 10")
    saves.abandon()
    assert names(store) == [f"{attempt_id(1)}-00000001"]


@pytest.mark.parametrize("damage", ["file", "manifest", "torn manifest", "position", "missing"])
def test_damaged_one_is_passed_over_for_one_before(store: Store, attempt: Attempt, damage: str) -> None:
    saves = attempt(1)
    save(saves, 10)
    save(saves, 20)
    newest = f"{CHAIN.partials}/{NAME}/{attempt_id(1)}-00000002"
    manifest = store.read(f"{newest}/manifest.{20:020d}.json")
    match damage:
        case "file":
            overwrite(store, f"{newest}/files/w", b"weights 21")
        case "manifest":
            overwrite(store, f"{newest}/manifest.{20:020d}.json", b"{}")
        case "torn manifest":
            overwrite(store, f"{newest}/manifest.{20:020d}.json", manifest[: len(manifest) // 2])
        case "position":
            overwrite(store, f"{newest}/manifest.{20:020d}.json", manifest.replace(b'"row":20', b'"row":21'))
        case "missing":
            store.delete(f"{newest}/files/w")
    assert found(attempt(2)) == (10, "weights 10")


def test_saves_all_damaged_begin_split_anew(store: Store, attempt: Attempt) -> None:
    save(attempt(1), 10)
    overwrite(store, f"{CHAIN.partials}/{NAME}/{attempt_id(1)}-00000001/files/w", b"?")
    assert found(attempt(2)) is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_store_that_fails_leaves_no_half_and_next_save_succeeds(attempt: Attempt, when: When) -> None:
    inner = MemoryStore()
    for call in range(1, 12):
        failing = FaultyStore(inner, fail_at=call, when=when)
        saves = attempt(call, into=failing)
        before, now = found(attempt(100, into=inner)), (call * 10, f"weights {call * 10}")
        try:
            save(saves, call * 10)
        except StoreFailure:
            # the put that failed may have happened all the same
            assert found(attempt(100, into=inner)) in (before, now)
        else:
            assert found(attempt(100, into=inner)) == now
        failing.fail_at = None
        save(saves, call * 10 + 1)
        assert found(attempt(100, into=inner)) == (call * 10 + 1, f"weights {call * 10 + 1}")


def test_saves_cleared_by_hand_are_gone(store: Store, attempt: Attempt) -> None:
    save(attempt(1), 10)
    cleared = attempt(3, not_before=2)
    assert found(cleared) is None
    assert names(store) == []
    # a zombie from before goes on saving
    save(attempt(1), 20)
    assert found(attempt(4, not_before=2)) is None
    save(cleared, 5)
    assert found(attempt(4, not_before=2)) == (5, "weights 5")
    # a database that was lost knows of no clear
    assert found(attempt(5)) == (5, "weights 5")


def test_attempt_made_in_moment_of_clear_counts(store: Store, tmp_path: Path) -> None:
    """Attempt ids know milliseconds only."""
    cleared = day(2) + timedelta(microseconds=900)
    saves = IntermediateSaves(store, CHAIN, NAME, attempt_id(2), tmp_path / "scratch", not_before=cleared)
    save(saves, 10)
    again = IntermediateSaves(store, CHAIN, NAME, attempt_id(3), tmp_path / "again", not_before=cleared)
    assert found(again) == (10, "weights 10")


def test_commit_clears_what_does_not_start_from_new_head(store: Store, attempt: Attempt) -> None:
    next_one = training_name(attempt_id(91), "next split")
    for name in (NAME, training_name(None, "first split"), next_one):
        save(attempt(1, name), 10)
    store.create_exclusive(f"{CHAIN.partials}/of-another-attempt/file", b"")
    assert clear_saves(store, CHAIN, attempt_id(91)) == 2
    assert store.folders(CHAIN.partials) == sorted([next_one, "of-another-attempt"])
    assert clear_saves(store, CHAIN, attempt_id(91)) == 0
    drop_training(store, CHAIN, attempt_id(91))
    assert store.folders(CHAIN.partials) == ["of-another-attempt"]


def test_sweep_finds_what_killed_commit_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    old, current = training_name(None, "old"), training_name(attempt_id(91), "current")
    for name in (old, current):
        save(IntermediateSaves(store, CHAIN, name, attempt_id(1), tmp_path / "scratch"), 10)
    store.create_exclusive(f"{CHAIN.partials}/of-another-attempt/file", b"")
    modified = store.files(f"{CHAIN.partials}/{old}")[0].modified
    assert modified is not None
    assert list(old_saves(store, CHAIN, attempt_id(91), modified - timedelta(days=7))) == []
    ((path, files),) = old_saves(store, CHAIN, attempt_id(91), modified + timedelta(days=1))
    assert (path, len(files)) == (f"{CHAIN.partials}/{old}", 3)


def test_name_is_function_of_what_is_trained() -> None:
    assert training_name("p", "s", {"a": 1, "b": 2}) == training_name("p", "s", {"b": 2, "a": 1})
    different = [("p", "s"), ("q", "s"), (None, "s"), ("p", "t"), ("p", "s", 1)]
    assert len({training_name(*parts) for parts in different}) == len(different)
