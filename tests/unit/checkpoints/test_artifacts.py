from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainflow.checkpoints.artifacts import fetch, output_folder, seal, verify, verify_uploaded
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.store import Store, open_store
from trainflow.errors import ArtifactCorrupt, ArtifactsRefused
from trainflow.testing.chains import ChainWriter, attempt_id
from trainflow.testing.faulty_store import FaultyStore

CHAIN = ChainKey("flights")
FILES = {"model.bin": b"weights", "nested/deep/notes.txt": b"", "nested/table": bytes(1000)}


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield open_store("store", root=tmp_path)
        return
    store = open_store(f"memory://{uuid.uuid4().hex}")
    yield store
    store.delete_folder("")


def write(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_files_arrive_with_size_and_digest(store: Store, tmp_path: Path) -> None:
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    write(folder)

    artifacts = seal(store, CHAIN, attempt_id(1), folder)

    assert artifacts.path == f"flights/main/main/artifacts/{attempt_id(1)}"
    assert {file.path: file.size for file in artifacts.files} == {n: len(c) for n, c in FILES.items()}
    assert artifacts.size == 1007
    assert {f.path: f.size for f in store.files(artifacts.path)} == {
        f"{artifacts.path}/{name}": len(content) for name, content in FILES.items()
    }
    assert verify(store, artifacts) == verify_uploaded(store, artifacts) == []
    assert seal(store, CHAIN, attempt_id(1), folder) == artifacts


def test_on_a_local_store_nothing_is_copied(tmp_path: Path) -> None:
    store = open_store("store", root=tmp_path)
    writer = ChainWriter(store, tmp_path / "scratch")
    made = writer.commit()

    assert fetch(store, made, tmp_path / "into") == store.local_path(made.artifacts.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_training_function_that_wrote_nothing_is_told_so(store: Store, tmp_path: Path) -> None:
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    (folder / "empty").mkdir()

    with pytest.raises(ArtifactsRefused, match=r"wrote nothing into its output folder .* \(ctx.output\)") as caught:
        seal(store, CHAIN, attempt_id(1), folder)

    assert caught.value.location == str(folder)


@pytest.mark.parametrize("kind", ["link", "folder link"])
def test_a_link_to_what_is_in_the_folder_becomes_that(store: Store, tmp_path: Path, kind: str) -> None:
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    write(folder)
    (folder / "odd").symlink_to("model.bin" if kind == "link" else folder / "nested")

    sealed = seal(store, CHAIN, attempt_id(1), folder)

    kept = {file.path: file.sha256 for file in sealed.files}
    for name in [name for name in kept if name.startswith("odd")]:
        assert kept[name] == kept["model.bin" if kind == "link" else name.replace("odd", "nested")]
    assert len(kept) > len(FILES)
    assert verify(store, sealed) == []


def test_a_pipe_is_refused(store: Store, tmp_path: Path) -> None:
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    write(folder)
    os.mkfifo(folder / "odd")

    with pytest.raises(ArtifactsRefused, match=r"odd is a socket, a pipe or a device"):
        seal(store, CHAIN, attempt_id(1), folder)


def test_names_that_begin_with_a_dot_or_look_temporary_are_files_like_any(store: Store, tmp_path: Path) -> None:
    files = {".metadata": b"m", "__0_0.distcp": b"s", ".tmp-weights": b"w", "_x/.y": b"y", ".hidden/z": b"z"}
    made = ChainWriter(store, tmp_path / "scratch").commit(files=files)
    assert {file.path for file in made.artifacts.files} == files.keys()
    assert {file.path.removeprefix(f"{made.artifacts.path}/") for file in store.files(made.artifacts.path)} == (
        files.keys()
    )
    assert store.temporary(made.artifacts.path) == []
    folder = fetch(store, made, tmp_path / "into")
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_fetching_gives_the_files_and_fetching_again_downloads_nothing(store: Store, tmp_path: Path) -> None:
    made = ChainWriter(store, tmp_path / "scratch").commit(files=FILES)
    counting = FaultyStore(store)

    for _ in range(2):
        folder = fetch(counting, made, tmp_path / "into")
        assert {name: (folder / name).read_bytes() for name in FILES} == FILES

    assert counting.calls.count("get_file") in (0, len(FILES))


def test_a_damaged_copy_is_fetched_anew(tmp_path: Path) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    made = ChainWriter(store, tmp_path / "scratch").commit(files=FILES)
    folder = fetch(store, made, tmp_path / "into")
    (folder / "model.bin").write_bytes(b"changed")

    assert (fetch(store, made, tmp_path / "into") / "model.bin").read_bytes() == b"weights"
    store.delete_folder("")


def test_a_download_that_breaks_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    made = ChainWriter(store, tmp_path / "scratch").commit(files=FILES)

    with pytest.raises(OSError, match="made to fail"):
        fetch(FaultyStore(store, fail_at=2), made, tmp_path / "into")

    assert list((tmp_path / "into").iterdir()) == []
    store.delete_folder("")


@pytest.mark.parametrize("damage", ["missing", "shorter", "other bytes"])
def test_damage_is_found_and_named(store: Store, tmp_path: Path, damage: str) -> None:
    made = ChainWriter(store, tmp_path / "scratch").commit(files=FILES)
    path = f"{made.artifacts.path}/model.bin"
    store.delete(path)
    if damage != "missing":
        store.create_exclusive(path, b"weight" if damage == "shorter" else b"weighty")

    (problem,) = verify(store, made.artifacts)
    assert store.uri(path) in problem
    with pytest.raises(ArtifactCorrupt, match="rewind the chain to an earlier checkpoint") as caught:
        fetch(store, made, tmp_path / "into")
    assert made.id in str(caught.value)
    assert bool(verify_uploaded(store, made.artifacts)) is (damage != "other bytes" or store.local_path("") is not None)
