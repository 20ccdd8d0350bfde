"""What was saved inside a split comes back from an object store: over the network, whole, no copies left behind."""

from __future__ import annotations

from pathlib import Path

from tests.support.local_object_stores import LocalS3
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.saves.intermediate_saves import IntermediateSaves, clear_saves
from trainflow.checkpoints.saves.training_identity import training_name
from trainflow.storage.urls import open_store
from trainflow.testing.chains import attempt_id, day

CHAIN = ChainKey("model")


def test_saved_on_one_host_it_is_found_on_another(s3: LocalS3, tmp_path: Path) -> None:
    store = open_store(f"s3://{s3.make_bucket()}/checkpoints", storage_options=s3.storage_options)
    name = training_name(None, "split")
    here = IntermediateSaves(store, CHAIN, name, attempt_id(1), tmp_path / "here")
    for row in (10, 20, 30):
        folder = here.begin()
        (folder / "w").write_bytes(b"weights %d" % row)
        here.complete({"row": row}, {"loss": 0.5}, day(0))
    assert [path for path in (tmp_path / "here").rglob("*") if path.is_file()] == []
    assert len(store.folders(f"{CHAIN.partials}/{name}")) == 2

    there = IntermediateSaves(store, CHAIN, name, attempt_id(2), tmp_path / "there")
    newest = there.newest()
    assert newest is not None
    one, found = newest
    assert (one.position, one.state) == ({"row": 30}, {"loss": 0.5})
    assert (found / "w").read_bytes() == b"weights 30"

    # the newest one is damaged: the one before
    store.delete(f"{CHAIN.partials}/{name}/{attempt_id(1)}-00000003/files/w")
    again = IntermediateSaves(store, CHAIN, name, attempt_id(3), tmp_path / "elsewhere").newest()
    assert again is not None
    assert (again[1] / "w").read_bytes() == b"weights 20"

    assert clear_saves(store, CHAIN, attempt_id(9)) == 1
    assert store.folders(CHAIN.partials) == []
