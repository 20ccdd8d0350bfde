from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from trainflow.checkpoints import verified_artifacts
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit import artifacts as artifacts_module
from trainflow.checkpoints.commit.artifacts import output_folder, seal
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.ledger.entries import ArtifactFile, Artifacts, Author, Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger.rules import sources_problem
from trainflow.checkpoints.ledger_changes.accept_loss import damage_of, put_right
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.stages.dependents import registered_chains
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.checkpoints.verified_artifacts import fetch, verify, verify_uploaded
from trainflow.errors import ArtifactCorrupt, ArtifactsRefused
from trainflow.storage.local import LocalStore
from trainflow.storage.store import SEAL, Store
from trainflow.storage.urls import open_store
from trainflow.testing.chains import ChainWriter, attempt_id, day
from trainflow.testing.faulty_store import FaultyStore

ME = Author("person")
EMBEDDING = b"embedding that never changes"


@pytest.fixture(autouse=True)
def small_shared_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts_module, "SHARED_BYTES", len(EMBEDDING))


@pytest.fixture
def remote() -> Iterator[Store]:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    yield store
    store.delete_folder("")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store")


def files_of(number: int) -> dict[str, bytes]:
    return {"embedding.bin": EMBEDDING, "head.bin": b"weights %d" % number}


def three(store: Store, scratch: Path) -> tuple[ChainWriter, list[Checkpoint]]:
    writer = ChainWriter(store, scratch)
    return writer, [writer.commit(files=files_of(number)) for number in range(3)]


def test_unchanged_file_in_object_store_is_named_and_not_uploaded(remote: Store, tmp_path: Path) -> None:
    store = FaultyStore(remote)
    writer, made = three(store, tmp_path / "scratch")

    owner = f"{made[0].artifacts.path}/embedding.bin"
    assert [file.source for each in made for file in each.artifacts.files] == ["", "", owner, "", owner, ""]
    assert store.calls.count("put_file") == 4
    assert [len(remote.files(each.artifacts.path)) for each in made] == [2, 1, 1]
    assert (writer.ledger.state().shared, made[2].artifacts.size) == ({made[0].artifacts.path: 2}, len(EMBEDDING) + 9)


def test_trainer_is_given_one_folder(remote: Store, tmp_path: Path) -> None:
    _, made = three(remote, tmp_path / "scratch")

    folder = fetch(remote, made[2], tmp_path / "into")

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files_of(2)
    assert verify(remote, made[2].artifacts) == verify_uploaded(remote, made[2].artifacts) == []


def test_damaged_shared_file_is_told_of_each_checkpoint_and_read_once(remote: Store, tmp_path: Path) -> None:
    writer, made = three(remote, tmp_path / "scratch")
    remote.replace(f"{made[0].artifacts.path}/embedding.bin", EMBEDDING[:-1] + b"?")
    store = FaultyStore(remote)

    report = audit(Ledger(store, writer.chain), None)

    assert len([each for each in report.problems if "embedding.bin" in each]) == 3
    assert len([path for path in store.read_paths if path.endswith("embedding.bin")]) == 1


def test_missing_shared_file_refuses_commit(remote: Store, tmp_path: Path) -> None:
    writer, made = three(remote, tmp_path / "scratch")
    request = writer.request(parent=made[2], files=files_of(3))
    remote.delete(f"{made[0].artifacts.path}/embedding.bin")

    with pytest.raises(ArtifactCorrupt, match=r"embedding\.bin is missing"):
        commit(remote, request, day(4))


def test_prune_keeps_what_others_have_until_none_does(remote: Store, tmp_path: Path) -> None:
    writer, made = three(remote, tmp_path / "scratch")

    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(4)) == [made[0].id, made[1].id]
    assert {file.path for file in remote.files(writer.chain.artifacts)} == {
        f"{made[0].artifacts.path}/embedding.bin",
        f"{made[2].artifacts.path}/head.bin",
        f"{made[2].artifacts.path}{SEAL}",
    }
    assert [each for each in sweep_garbage(writer.ledger, day(400)) if each.files] == []

    last = writer.commit(files={"embedding.bin": EMBEDDING[::-1], "head.bin": b"weights"})
    assert prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(5)) == [made[2].id]
    assert {file.path.split("/")[4] for file in remote.files(writer.chain.artifacts)} == {last.id, f"{last.id}{SEAL}"}
    assert writer.ledger.state().shared == {}


def test_prune_cut_short_is_finished_by_next_and_by_sweep(remote: Store, tmp_path: Path) -> None:
    writer, _ = three(remote, tmp_path / "scratch")
    writer.commit(files={"embedding.bin": EMBEDDING[::-1], "head.bin": b"weights"})
    prune(writer.ledger, [KeepLatest(2)], by=ME, now=day(5))

    class Killed(BaseException):
        pass

    before = {path: remote.read(path) for path in (file.path for file in remote.files(""))}
    for number in range(1, 80):
        for file in remote.files(""):
            remote.delete(file.path)
        for path, data in before.items():
            remote.replace(path, data)
        cut = FaultyStore(remote, fail_at=number, when="half", error=lambda _: Killed())
        try:
            prune(Ledger(cut, writer.chain), [KeepLatest(1)], by=ME, now=day(6))
            break
        except Killed:
            ledger = Ledger(remote, writer.chain)
            prune(ledger, [KeepLatest(1)], by=ME, now=day(6))
            sweep_garbage(ledger, day(400))
            assert audit(ledger, None).problems == []
            left = {file.path.split("/")[4].removesuffix(SEAL) for file in remote.files(writer.chain.artifacts)}
            assert left == {writer.ledger.state().head.id}  # type: ignore[union-attr]
    assert number > 10


def test_last_file_of_its_own_is_always_written(remote: Store, tmp_path: Path) -> None:
    writer = ChainWriter(remote, tmp_path / "scratch")
    files = {"a.bin": EMBEDDING, "b.bin": EMBEDDING * 2}
    writer.commit(files=files)

    again = writer.commit(files=files)

    assert [bool(file.source) for file in again.artifacts.files] == [False, True]


def test_renamed_file_is_found_by_its_digest_and_small_one_is_written(remote: Store, tmp_path: Path) -> None:
    writer = ChainWriter(remote, tmp_path / "scratch")
    writer.commit(files={"old name.bin": EMBEDDING, "log": b"same"})

    again = writer.commit(files={"new name.bin": EMBEDDING, "log": b"same"})

    assert {file.path: file.source.rpartition("/")[2] for file in again.artifacts.files} == {
        "new name.bin": "old name.bin",
        "log": "",
    }


def test_local_store_gives_committed_file_a_second_name(local: Store, tmp_path: Path) -> None:
    writer, made = three(local, tmp_path / "scratch")

    places = [local.local_path(f"{each.artifacts.path}/embedding.bin") for each in made]

    assert len({place.stat().st_ino for place in places if place}) == 1
    assert [file.source for each in made for file in each.artifacts.files] == [""] * 6
    prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(4))
    assert audit(writer.ledger, None).problems == []
    assert [place.stat().st_nlink for place in places if place and place.exists()] == [1]


def test_second_name_is_of_committed_file_and_not_of_what_trainer_may_have_open(local: Store, tmp_path: Path) -> None:
    writer = ChainWriter(local, tmp_path / "scratch")
    first = writer.commit(files=files_of(0))
    folder = output_folder(local, writer.chain, attempt_id(9), tmp_path / "scratch")
    (folder / "embedding.bin").write_bytes(EMBEDDING)
    (folder / "head.bin").write_bytes(b"weights")

    with (folder / "embedding.bin").open("r+b") as held:
        made = seal(local, writer.chain, attempt_id(9), folder, [first.artifacts])
        held.write(b"?")

    assert verify(local, made) == verify(local, first.artifacts) == []


def test_damaged_parent_is_not_shared(local: Store, tmp_path: Path) -> None:
    writer = ChainWriter(local, tmp_path / "scratch")
    first = writer.commit(files=files_of(0))
    path = local.local_path(f"{first.artifacts.path}/embedding.bin")
    assert path
    path.chmod(0o644)
    path.write_bytes(EMBEDDING[:-1] + b"?")

    request = writer.request(parent=first, files=files_of(1))

    assert verify(local, request.artifacts) == []
    with pytest.raises(ArtifactCorrupt, match="is damaged"):
        commit(local, request, day(2))


def test_file_being_written_is_refused_although_it_is_the_parents_so_far(
    remote: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ChainWriter(remote, tmp_path / "scratch")
    first = writer.commit(files=files_of(0))
    folder = output_folder(remote, writer.chain, attempt_id(9), tmp_path / "scratch")
    for name, data in files_of(1).items():
        (folder / name).write_bytes(data)
    put_files = artifacts_module.put_files

    def written_meanwhile(*arguments: object) -> None:
        put_files(*arguments)  # type: ignore[arg-type]
        (folder / "embedding.bin").write_bytes(EMBEDDING[::-1])
        os.utime(folder / "embedding.bin", (1, 1))

    monkeypatch.setattr(artifacts_module, "put_files", written_meanwhile)
    with pytest.raises(ArtifactsRefused, match=r"embedding\.bin was written while"):
        seal(remote, writer.chain, attempt_id(9), folder, [first.artifacts])


def test_large_shared_files_are_read_once(local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second name changes the time of the last change of status, when it is given and when it goes."""
    monkeypatch.setattr(verified_artifacts, "SMALL_BYTES", 3)
    writer, _ = three(local, tmp_path / "scratch")
    read: list[str] = []
    inner = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda store, path: (read.append(path), inner(store, path))[1])

    prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(4))
    fetch(local, writer.ledger.checkpoint(), tmp_path / "into")
    writer.commit(files=files_of(4))
    prune(writer.ledger, [KeepLatest(1)], by=ME, now=day(5))
    fetch(local, writer.ledger.checkpoint(), tmp_path / "into")

    assert [path for path in read if path.endswith(".bin")] == []


def test_other_chains_that_own_files_are_registered_before_entry(remote: Store, tmp_path: Path) -> None:
    _, made = three(remote, tmp_path / "scratch")
    stage = ChainWriter(remote, tmp_path / "stage", ChainKey("flights", "mobile"))

    stage.runs = 50
    stage.commit(files=files_of(7), earlier=[made[2].artifacts])

    assert registered_chains(remote, ChainKey("flights")) == [stage.chain]


def test_recovered_ledger_goes_on_with_shared_files(remote: Store, tmp_path: Path) -> None:
    writer, _ = three(remote, tmp_path / "scratch")
    remote.delete(writer.chain.entry(2))
    remote.delete(writer.chain.entry(3))
    ledger = Ledger(remote, writer.chain)
    damage = damage_of(ledger)
    assert damage is not None

    put_right(ledger, damage, by=ME, now=day(9))

    again = Ledger(remote, writer.chain)
    assert [each.sequence for each in again.kept()] == [1, 2, 3]
    assert audit(again, None).problems == []


HEAD = Artifacts("flights/main/main/artifacts/a", [ArtifactFile("x", 3, "sha256:1"), ArtifactFile("y", 3, "sha256:2")])


@pytest.mark.parametrize(
    ("source", "size", "problem"),
    [
        ("flights/main/main/artifacts/a/x", 3, None),
        ("flights/main/main/artifacts/a/x", 4, "no file of the checkpoint it was trained from"),
        ("flights/main/main/artifacts/older/x", 3, "no file of the checkpoint it was trained from"),
        ("flights/other/main/artifacts/older/x", 3, None),
        ("flights/main/main/artifacts/../../x", 3, "no file of a checkpoint"),
        ("flights/main/main/ledger/0000000001.json", 3, "no file of a checkpoint"),
        ("/etc/passwd", 3, "no file of a checkpoint"),
        ("flights/main/main/artifacts/a", 3, "no file of a checkpoint"),
    ],
)
def test_sources_problem_names_what_cannot_be_there(source: str, size: int, problem: str | None) -> None:
    head = msgspec.convert(
        {
            "sequence": 1,
            "previous": "",
            "at": day(0),
            "by": {},
            "id": "a",
            "parent_id": None,
            "watermark": day(1),
            "split": {"start": day(0), "end": day(1), "partitions": []},
            "artifacts": msgspec.to_builtins(HEAD),
            "kind": "checkpoint",
        },
        Checkpoint,
    )
    made = Artifacts("flights/main/main/artifacts/b", [ArtifactFile("z", size, "sha256:1", source)])

    found = sources_problem(head, made)

    assert (found is None) if problem is None else (found is not None and problem in found)
