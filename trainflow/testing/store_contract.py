"""What every checkpoint store must do. Inherit, and give a fixture `store` that is an empty store.

class TestMyStore(StoreContract):
    @pytest.fixture
    def store(self): return open_store("my://…")
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from trainflow.identifiers import digest
from trainflow.storage.exclusive_creation import probe
from trainflow.storage.store import FilePage, Store

_RACERS = 8


class StoreContract:
    """The contract of `trainflow.storage.store.Store`."""

    def test_probe_accepts_it_and_leaves_nothing_behind(self, store: Store) -> None:
        probe(store)

        assert store.files("") == []

    def test_a_created_file_reads_back(self, store: Store) -> None:
        store.create_exclusive("a/b/c.json", b"content")

        assert store.read("a/b/c.json") == b"content"
        assert store.exists("a/b/c.json")
        assert b"".join(store.chunks("a/b/c.json")) == b"content"
        assert b"".join(store.part("a/b/c.json", 2, 5)) == b"nte"
        assert b"".join(store.part("a/b/c.json", 5, 99)) == b"nt"
        assert b"".join(store.part("a/b/c.json", 7, 9)) == b""

    def test_an_empty_file_is_a_file(self, store: Store) -> None:
        store.create_exclusive("empty", b"")

        assert store.exists("empty")
        assert store.read("empty") == b""

    def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        assert not store.exists("nothing")
        with pytest.raises(FileNotFoundError):
            store.read("nothing")
        with pytest.raises(FileNotFoundError):
            list(store.chunks("nothing"))

    def test_a_folder_is_no_file(self, store: Store) -> None:
        store.create_exclusive("folder/file", b"")

        assert not store.exists("folder")

    def test_files_after_a_name_are_those_that_sort_after_it(self, store: Store) -> None:
        for path in ("c/a/1", "c/a/z/2", "c/b/3", "c/b/4", "c/n", "c2/b/5"):
            store.create_exclusive(path, b"12")

        found = store.files_after("c", "a0")

        assert [(file.path, file.size_bytes) for file in found] == [("c/b/3", 2), ("c/b/4", 2), ("c/n", 2)]
        assert [file.path for file in store.files_after("c", "b/3")] == ["c/b/4", "c/n"]
        assert store.read_listed(found) == [b"12"] * 3
        assert store.files_after("nothing", "a") == []
        assert store.first_files_after("c", "a0") == FilePage(found, more=False)

    def test_few_files_are_shown_at_once_and_as_a_listing_shows_them(self, store: Store) -> None:
        for path in ("c/a/1", "c/b/3", "c/n", "c2/b/5"):
            store.create_exclusive(path, b"12")

        assert store.files_if_few("c") == store.files("c")
        assert store.files_if_few("nothing") == []

    def test_many_files_are_deleted_at_once_and_no_others(self, store: Store) -> None:
        for path in ("c/a/1", "c/a/10", "c/b/2", "c/n"):
            store.create_exclusive(path, b"12")

        store.delete_many(["c/a/1", "c/not there", "c/n"])
        store.delete_many([])

        assert [file.path for file in store.files("c")] == ["c/a/10", "c/b/2"]

    def test_content_with_a_known_digest_is_what_is_there(self, store: Store) -> None:
        store.create_exclusive("a", b"12")

        assert store.read_digested("a", digest(b"12")) == b"12"
        assert store.read_digested("a", digest(b"another")) == b"12"
        with pytest.raises(FileNotFoundError):
            store.read_digested("nothing", digest(b"12"))

    def test_the_second_creation_is_refused_and_changes_nothing(self, store: Store) -> None:
        store.create_exclusive("once", b"first")

        with pytest.raises(FileExistsError):
            store.create_exclusive("once", b"second")

        assert store.read("once") == b"first"

    def test_a_deleted_name_can_be_created_again(self, store: Store) -> None:
        store.create_exclusive("name", b"first")
        store.delete("name")

        store.create_exclusive("name", b"second")

        assert store.read("name") == b"second"

    def test_of_many_racing_creators_one_wins_and_its_content_is_there(self, store: Store) -> None:
        start = Barrier(_RACERS)

        def race(number: int) -> bool:
            start.wait()
            try:
                store.create_exclusive("race", b"%d" % number * 10_000)
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(_RACERS) as pool:
            won = list(pool.map(race, range(_RACERS)))

        assert won.count(True) == 1
        assert store.read("race") == b"%d" % won.index(True) * 10_000

    def test_replace_writes_over(self, store: Store) -> None:
        store.replace("snapshot", b"old and longer")
        store.replace("snapshot", b"new")

        assert store.read("snapshot") == b"new"

    def test_read_many_keeps_the_order_and_says_what_is_missing(self, store: Store) -> None:
        store.create_exclusive("d/1", b"one")
        store.create_exclusive("d/3", b"three")

        assert store.read_many(["d/3", "d/2", "d/1"]) == [b"three", None, b"one"]
        assert store.read_many(["d/2"]) == [None]
        assert store.read_many([]) == []

    def test_files_are_listed_below_a_folder_and_only_there(self, store: Store) -> None:
        for path in ("x/2", "x/deep/er/1", "x/1", "xy/1", "other"):
            store.create_exclusive(path, path.encode())

        found = store.files("x")

        assert [(file.path, file.size_bytes) for file in found] == [("x/1", 3), ("x/2", 3), ("x/deep/er/1", 11)]
        assert all(file.modified is None or file.modified.tzinfo is not None for file in found)
        assert store.files("nowhere") == []

    def test_a_listing_shows_what_was_written_since_the_last_one(self, store: Store) -> None:
        store.create_exclusive("x/1", b"")
        assert len(store.files("x")) == 1
        assert store.folders("") == ["x"]

        store.create_exclusive("x/2", b"")
        store.create_exclusive("y/1", b"")

        assert len(store.files("x")) == 2
        assert store.folders("") == ["x", "y"]

    def test_listing_of_a_folder_is_relative_to_it_and_none_where_there_is_none(self, store: Store) -> None:
        for path in ("x/1", "x/deep/er/22", "xy/1"):
            store.create_exclusive(path, path.encode())

        flat, deep = store.listing("x", recursive=False), store.listing("x", recursive=True)

        assert [(file.path, file.size_bytes) for file in flat or []] == [("1", 3)]
        assert [(file.path, file.size_bytes) for file in deep or []] == [("1", 3), ("deep/er/22", 12)]
        assert sorted(store.names("x") or []) == ["1", "deep"]
        assert store.listing("nowhere", recursive=True) is None
        assert store.listing("nowhere", recursive=False) is None
        assert store.names("nowhere") is None

    def test_range_of_a_file_is_what_lies_in_it(self, store: Store) -> None:
        store.create_exclusive("a/file", b"0123456789")

        assert store.read_range("a/file", 2, 5) == b"234"
        assert store.read_range("a/file", 8, 20) == b"89"
        assert store.read_range("a/file", 3, 3) == store.read_range("a/file", 5, 3) == b""
        with store.open("a/file") as file:
            file.seek(7)
            assert file.read() == b"789"
        with pytest.raises(FileNotFoundError):
            store.read_range("a/nothing", 0, 1)
        with pytest.raises(FileNotFoundError):
            store.open("a/nothing")

    def test_folders_are_listed_one_level_deep(self, store: Store) -> None:
        for path in ("a/b/c/file", "a/d/file", "a/file"):
            store.create_exclusive(path, b"")

        assert store.folders("a") == ["b", "d"]
        assert store.folders("nowhere") == []

    def test_files_travel_both_ways(self, store: Store, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(bytes(range(256)) * 5_000)

        store.put_file(source, "up/loaded")
        store.get_file("up/loaded", tmp_path / "deep" / "target")

        assert (tmp_path / "deep" / "target").read_bytes() == source.read_bytes()
        with pytest.raises(FileNotFoundError):
            store.get_file("up/missing", tmp_path / "no")

    def test_deleting_is_idempotent(self, store: Store) -> None:
        store.create_exclusive("a/b/1", b"")
        store.create_exclusive("a/b/c/2", b"")
        store.create_exclusive("a/bc/3", b"")

        for _ in range(2):
            store.delete("a/b/1")
            store.delete_folder("a/b")

        assert [file.path for file in store.files("a")] == ["a/bc/3"]

    def test_sealed_folder_is_deleted_but_for_what_is_kept(self, store: Store) -> None:
        for path in ("a/b/1", "a/b/c/2", "a/b/c/3"):
            store.create_exclusive(path, b"")
        store.seal("a/b", b"note")

        store.delete_sealed("a/b", keeping=["a/b/c/3"])
        assert ([file.path for file in store.files("a")], store.is_sealed("a/b")) == (["a/b/c/3"], False)

        store.delete_sealed("a/b")
        assert store.files("a") == []

    def test_second_name_of_a_file_outlives_the_first(self, store: Store) -> None:
        store.create_exclusive("a/first", b"content")
        store.create_exclusive("b/second", b"other")

        shared = store.share("a/first", "b/second")

        assert store.read("b/second") == (b"content" if shared else b"other")
        store.delete("a/first")
        assert store.read("b/second") == (b"content" if shared else b"other")

    def test_addresses_name_the_store(self, store: Store) -> None:
        assert store.uri("a/b") == f"{store.url}/a/b"
        local = store.local_path("a/b")
        assert local is None or local.is_absolute()
