"""What a store in the network is asked: little, and nothing in vain; what changes there is seen all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.local_object_stores import LocalS3, RequestLog, logged_s3
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author, Skip
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.state import ChainState
from trainflow.errors import LedgerCorrupt
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.chains import DAY, day

CHAIN = ChainKey("flights")
ENTRIES = 5
Asked = list[str]


@pytest.fixture(scope="module")
def logged() -> Iterator[tuple[LocalS3, RequestLog]]:
    with logged_s3() as server:
        yield server


@pytest.fixture
def s3(logged: tuple[LocalS3, RequestLog]) -> LocalS3:
    return logged[0]


@pytest.fixture
def asked(logged: tuple[LocalS3, RequestLog], chain: Ledger) -> Asked:
    """The requests that are made once there is a chain: what is asked of S3, and about what."""
    logged[1].asked.clear()
    return logged[1].asked


@pytest.fixture
def opened(s3: LocalS3, tmp_path: Path) -> Callable[[], Store]:
    """Opens the store as one more attempt on this machine does."""
    bucket = s3.make_bucket()
    return lambda: open_store(f"s3://{bucket}/some", storage_options=s3.storage_options, copies=tmp_path / "copies")


@pytest.fixture
def chain(opened: Callable[[], Store]) -> Ledger:
    """A chain that has some entries."""
    ledger = Ledger(opened(), CHAIN)
    for _ in range(ENTRIES):
        ledger.append(skip_of)
    return ledger


def skip_of(state: ChainState) -> Skip:
    edge = state.edge or day(0)
    return Skip(**state.header(Author(), day(1000)), parent_id=None, start=edge, end=edge + DAY, reason="x")


@pytest.mark.usefixtures("chain")
def test_ledger_that_was_written_from_here_is_read_by_one_listing(opened: Callable[[], Store], asked: Asked) -> None:
    task = Ledger(opened(), CHAIN, of_one_task=True)
    assert task.state().sequence == ENTRIES
    task.raise_unless_whole()
    assert [each.partition(" ")[0] for each in asked] == ["list_objects_v2"]
    task.append(skip_of)
    assert [each.partition(" ")[0] for each in asked] == ["list_objects_v2", "put_object", "put_object"]


def test_ledger_that_was_written_elsewhere_is_read_once(
    chain: Ledger, s3: LocalS3, tmp_path: Path, asked: Asked
) -> None:
    def read() -> int:
        copies = tmp_path / "of another machine"
        store = open_store(chain.store.url, storage_options=s3.storage_options, copies=copies)
        return Ledger(store, CHAIN).state().sequence

    asked.clear()
    assert read() == ENTRIES
    assert len(asked) == 1 + ENTRIES + 1  # the listing, the entries, the mark
    asked.clear()
    assert read() == ENTRIES
    assert len(asked) == 1


@pytest.mark.parametrize("number", range(1, ENTRIES + 1))
def test_entry_that_was_edited_in_the_store_is_noticed_in_spite_of_its_copy(
    chain: Ledger, opened: Callable[[], Store], number: int
) -> None:
    place = CHAIN.entry(number)
    chain.store.read_listed(chain.store.files(CHAIN.ledger))
    edited = chain.store.read(place).replace(b'"reason":"x"', b'"reason":"y"')
    chain.store._driver.write(f"{chain.store._base}/{place}", edited)  # type: ignore[attr-defined]
    with pytest.raises(LedgerCorrupt, match="it was edited"):
        Ledger(opened(), CHAIN, of_one_task=True).state()


@pytest.mark.parametrize("number", range(1, ENTRIES + 1))
def test_entry_that_was_lost_in_the_store_is_noticed_in_spite_of_its_copy(
    chain: Ledger, opened: Callable[[], Store], number: int
) -> None:
    chain.store.delete(CHAIN.entry(number))
    with pytest.raises(LedgerCorrupt, match="missing"):
        Ledger(opened(), CHAIN, of_one_task=True).state()


def test_listing_of_nothing_and_deletion_of_a_sealed_folder_are_few_requests(
    opened: Callable[[], Store], asked: Asked
) -> None:
    store = opened()
    assert (store.files("none"), store.folders("none"), store.names("none")) == ([], [], None)
    assert len(asked) == 3
    for name in ("a/x", "a/deep/y", "ab/z"):
        store.create_exclusive(name, b"")
    store.seal("a", b"note")
    asked.clear()
    store.delete_sealed("a")
    assert [each.partition(" ")[0] for each in asked] == ["list_objects_v2", "delete_objects"]
    assert [file.path for file in store.files("") if not file.path.startswith(CHAIN.pipeline)] == ["ab/z"]


def test_files_after_name_are_those_and_no_others(opened: Callable[[], Store]) -> None:
    store = opened()
    for name in ("c/artifacts/a", "c/artifacts/z/z", "c/ledger/1", "c/newest", "c2/ledger/1", "b/x"):
        store.create_exclusive(name, b"")
    assert [file.path for file in store.files_after("c", "artifacts0")] == ["c/ledger/1", "c/newest"]
    assert store.files_after("nothing", "a") == []
