from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from trainflow.checkpoints import verified_artifacts
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit import artifacts
from trainflow.checkpoints.commit import artifacts as artifacts_module
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.ledger.entries import Author, Checkpoint, CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.checkpoints.verified_artifacts import fetch, verify, verify_uploaded
from trainflow.errors import ArtifactCorrupt, ArtifactsRefused, StoreFailure
from trainflow.storage.local import LocalStore
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.chains import ChainWriter, attempt_id, day, split_of
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
    assert {f.path: f.size_bytes for f in store.files(artifacts.path)} == {
        f"{artifacts.path}/{name}": len(content) for name, content in FILES.items()
    }
    assert verify(store, artifacts) == verify_uploaded(store, artifacts) == []
    assert seal(store, CHAIN, attempt_id(1), folder) == artifacts


def test_fetch_from_local_store_copies_small_and_lends_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("store", root=tmp_path)
    writer = ChainWriter(store, tmp_path / "scratch")
    made = writer.commit()

    copy = fetch(store, made, tmp_path / "into")
    (copy / "model.bin").write_bytes(b"?")

    assert copy == tmp_path / "into" / made.id
    assert verify(store, made.artifacts) == []
    assert (fetch(store, made, tmp_path / "into") / "model.bin").read_bytes() != b"?"

    treat_as_large(monkeypatch)
    assert fetch(store, made, tmp_path / "into") == store.local_path(made.artifacts.path)


def treat_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified_artifacts, "SMALL_BYTES", 3)


def test_fetch_large_untouched_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    treat_as_large(monkeypatch)
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    writer.commit_many(2)
    read: list[str] = []
    monkeypatch.setattr(LocalStore, "read", lambda store, path: _noted(read, store, path))

    third = writer.commit()
    folder = fetch(writer.store, third, tmp_path / "into")
    writer.commit()

    assert [path for path in read if "/artifacts/" in path] == []
    path = folder / "model.bin"
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"W" + path.read_bytes()[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ArtifactCorrupt, match=r"model\.bin has \d+ bytes and sha256:.*, committed were \d+ bytes"):
        fetch(writer.store, third, tmp_path / "into")


def _noted(read: list[str], store: LocalStore, path: str) -> bytes:
    read.append(path)
    return (store.root / path).read_bytes()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("which", ["head", "base"])
def test_commit_after_trainer_damaged_what_it_trained_from_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, large: bool
) -> None:
    """Root is stopped by no mode: what it wrote into a committed checkpoint is found before a child is committed."""
    if large:
        treat_as_large(monkeypatch)
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    head = writer.commit()
    base = ChainWriter(writer.store, tmp_path / "scratch", ChainKey("flights", "base")).commit()
    request = writer.request(parent=head, origin=CheckpointRef(ChainKey("flights", "base"), base.id))
    damaged = head if which == "head" else base
    path = writer.store.local_path(f"{damaged.artifacts.path}/model.bin")
    assert path is not None
    path.chmod(0o644)
    whole = path.read_bytes()
    path.write_bytes(b"damaged")

    said = rf"checkpoint 1 \({damaged.id}\) is damaged: .*model.bin has 7 bytes and sha256:.*rewind"
    with pytest.raises(ArtifactCorrupt, match=said):
        commit(writer.store, request, day(3))

    assert Ledger(writer.store, writer.chain).checkpoint() == head
    path.write_bytes(whole)
    assert commit(writer.store, request, day(3)).sequence == 2


def test_training_function_that_wrote_nothing_is_told_so(store: Store, tmp_path: Path) -> None:
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    (folder / "empty").mkdir()

    with pytest.raises(ArtifactsRefused, match=r"wrote nothing into its output folder .* \(ctx.output\)") as caught:
        seal(store, CHAIN, attempt_id(1), folder)

    assert caught.value.location == str(folder)


@pytest.mark.parametrize("kind", ["link", "folder link"])
def test_link_to_what_is_in_folder_becomes_that(store: Store, tmp_path: Path, kind: str) -> None:
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    write(folder)
    (folder / "odd").symlink_to("model.bin" if kind == "link" else folder / "nested")

    sealed = seal(store, CHAIN, attempt_id(1), folder)

    kept = {file.path: file.sha256 for file in sealed.files}
    for name in [name for name in kept if name.startswith("odd")]:
        assert kept[name] == kept["model.bin" if kind == "link" else name.replace("odd", "nested")]
    assert len(kept) > len(FILES)
    assert verify(store, sealed) == []


def test_pipe_is_refused(store: Store, tmp_path: Path) -> None:
    folder = output_folder(store, CHAIN, attempt_id(1), tmp_path / "scratch")
    write(folder)
    os.mkfifo(folder / "odd")

    with pytest.raises(ArtifactsRefused, match=r"odd is a socket, a pipe or a device"):
        seal(store, CHAIN, attempt_id(1), folder)


def once_digested(monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]) -> None:
    """Call `change` with each file after its digest was taken: as a file of a local store, or before it is uploaded."""
    describe, take = artifacts_module._describe, artifacts_module.Digests.take

    def described(folder: Path, path: Path) -> object:
        found = describe(folder, path)
        change(path)
        return found

    def taken(digests: artifacts_module.Digests, path: Path) -> None:
        take(digests, path)
        change(path)

    monkeypatch.setattr(artifacts_module, "_describe", described)
    monkeypatch.setattr(artifacts_module.Digests, "take", taken)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("change", ["same size", "grown", "new", "gone"])
def test_seal_file_written_meanwhile_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, moved: bool
) -> None:
    """A saver in the background that the training function did not wait for."""
    monkeypatch.setattr(artifacts_module, "COPIED_BYTES", -1 if moved else artifacts.COPIED_BYTES)
    output = output_folder(store, CHAIN, attempt_id(1), tmp_path)
    for name in ("a.bin", "b.bin"):
        (output / name).write_bytes(b"weights")
        os.utime(output / name, ns=(1, 1))  # the clock of a file system ticks slowly

    def write_meanwhile(path: Path) -> None:
        if path.name == "a.bin":
            match change:
                case "same size" | "grown":
                    content = b"WEIGHTS" if change == "same size" else b"weights and more"
                    path.write_bytes(content)
                    (output / "a.bin").write_bytes(content)
                case "new":
                    (output / "deeper").mkdir(exist_ok=True)
                    (output / "deeper/c.bin").write_bytes(b"")
                case "gone":
                    for folder in (output, path.parent):
                        (folder / "a.bin").unlink(missing_ok=True)

    once_digested(monkeypatch, write_meanwhile)
    with pytest.raises(
        (ArtifactsRefused, StoreFailure), match=r"was written while|cannot be (read|written)"
    ) as refused:
        seal(store, CHAIN, attempt_id(1), output)
    assert change == "gone" or (isinstance(refused.value, ArtifactsRefused) and not refused.value.for_good)


def test_seal_file_touched_meanwhile_is_same(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk in the network may say later when a file was written."""
    output = output_folder(store, CHAIN, attempt_id(1), tmp_path)
    write(output)
    once_digested(monkeypatch, lambda path: (output / "model.bin").touch())
    assert not verify(store, seal(store, CHAIN, attempt_id(1), output))


def test_seal_hidden_or_temporary_names_are_ordinary_files(store: Store, tmp_path: Path) -> None:
    files = {".metadata": b"m", "__0_0.distcp": b"s", ".tmp-weights": b"w", "_x/.y": b"y", ".hidden/z": b"z"}
    made = ChainWriter(store, tmp_path / "scratch").commit(files=files)
    assert {file.path for file in made.artifacts.files} == files.keys()
    assert {file.path.removeprefix(f"{made.artifacts.path}/") for file in store.files(made.artifacts.path)} == (
        files.keys()
    )
    assert store.temporary(made.artifacts.path) == []
    folder = fetch(store, made, tmp_path / "into")
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_fetching_gives_files_and_fetching_again_downloads_nothing(store: Store, tmp_path: Path) -> None:
    made = ChainWriter(store, tmp_path / "scratch").commit(files=FILES)
    counted = FaultyStore(store)

    for _ in range(2):
        folder = fetch(counted, made, tmp_path / "into")
        assert {name: (folder / name).read_bytes() for name in FILES} == FILES

    assert counted.calls.count("get_file") in (0, len(FILES))


def test_damaged_copy_is_fetched_anew(tmp_path: Path) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    made = ChainWriter(store, tmp_path / "scratch").commit(files=FILES)
    folder = fetch(store, made, tmp_path / "into")
    (folder / "model.bin").write_bytes(b"changed")

    assert (fetch(store, made, tmp_path / "into") / "model.bin").read_bytes() == b"weights"
    store.delete_folder("")


def test_download_that_breaks_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
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


def test_commit_seals_files_and_prune_deletes_them(store: Store, tmp_path: Path) -> None:
    writer = ChainWriter(store, tmp_path / "scratch")
    first, second = writer.commit_many(2, files=FILES)
    local = store.local_path(first.artifacts.path)
    assert store.is_sealed(first.artifacts.path)
    assert not store.is_sealed(writer.chain.attempt(attempt_id(9)))
    if local is not None:
        modes = {path: path.stat().st_mode & 0o777 for path in [local, *local.rglob("*")]}
        assert {mode for path, mode in modes.items() if path.is_dir()} == {0o555}
        assert {mode for path, mode in modes.items() if path.is_file()} == {0o444}

    prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(9))

    assert {file.path.split("/")[4] for file in store.files(writer.chain.artifacts)} <= {
        second.id,
        f"{second.id}.committed",
    }


@pytest.mark.skipif(os.getuid() != 0, reason="takes on another user's rights")
def test_prune_deletes_sealed_files_without_rights_of_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    with warnings.catch_warnings():
        # the threads of the test runner: the child only writes files
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        with suppress(BaseException):
            os.setuid(65534)
            writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
            first, _ = writer.commit_many(2, files=FILES)
            folder = writer.store.local_path(first.artifacts.path)
            assert folder is not None
            with pytest.raises(PermissionError):
                (folder / "model.bin").write_bytes(b"?")
            with pytest.raises(PermissionError):
                (folder / "more").write_bytes(b"?")
            prune(writer.ledger, [KeepLatest(1)], by=Author(), now=day(9))
            assert not folder.exists()
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


_DETACHED = """
import mmap, os, sys
how, path = sys.argv[1:]
file = open(path, "r+b")
mapped = mmap.mmap(file.fileno(), 7) if how == "mapping" else None
if how == "mapping":
    file.close()
print("has it open", flush=True)
sys.stdin.readline()
if how == "descriptor":
    os.pwrite(file.fileno(), b"DAMAGED", 0)
elif how == "mapping":
    mapped[:] = b"DAMAGED"
else:
    open(path, "r+b").write(b"DAMAGED")
"""


@pytest.mark.parametrize("large", [False, True], ids=["copied", "moved"])
@pytest.mark.parametrize("how", ["descriptor", "mapping", "path"])
def test_seal_leaves_trainer_no_access_to_committed_files(
    tmp_path: Path, how: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also as root, whom modes do not stop: the child holds the file open while it is committed and writes then."""
    if large:
        monkeypatch.setattr(artifacts_module, "COPIED_BYTES", 3)
    writer = ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
    folder = output_folder(writer.store, CHAIN, attempt_id(1), tmp_path / "scratch")
    (folder / "model.bin").write_bytes(b"weights")
    (folder / "other.bin").write_bytes(b"other")
    child = subprocess.Popen(
        [sys.executable, "-c", _DETACHED, how, str(folder / "model.bin")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"has it open\n"
    inode = (folder / "other.bin").stat().st_ino
    artifacts = seal(writer.store, CHAIN, attempt_id(1), folder)
    shutil.rmtree(folder)
    request = CommitRequest(
        chain=CHAIN, parent_id=None, split=split_of(0), artifacts=artifacts, by=Author("run-1", attempt_id(1))
    )
    made = commit(writer.store, request, day(1))
    child.communicate(b"write now\n")

    assert isinstance(made, Checkpoint)
    assert verify(writer.store, artifacts) == []
    kept = writer.store.local_path(f"{artifacts.path}/other.bin")
    assert kept is not None
    # what no process has open is moved, not copied
    assert (kept.stat().st_ino == inode) is large
