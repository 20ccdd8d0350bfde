"""A whole chain on every kind of store, and real threads racing for one place in it."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tests.support.local_object_stores import LocalS3
from trainflow.checkpoints.audit.audit import audit
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import CommitRequest
from trainflow.checkpoints.ledger.entries import Author, Checkpoint
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.ledger_changes.rewind import rewind
from trainflow.checkpoints.upkeep.garbage import sweep_garbage
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.checkpoints.verified_artifacts import fetch
from trainflow.errors import ChainMoved
from trainflow.samples.spec import Samples
from trainflow.storage.store import Store
from trainflow.storage.urls import open_store
from trainflow.testing.chains import START, ChainWriter, attempt_id, day

SAMPLES = Samples(path="{start:%Y%m%d}/", length_seconds=86_400, start=START)
ME = Author("person")


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store("store", root=tmp_path)
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4().hex}")
    server: LocalS3 = request.getfixturevalue("s3")
    return open_store(f"s3://{server.make_bucket()}/ck", storage_options=server.storage_options)


def test_chain_lives_on_any_store(store: Store, tmp_path: Path) -> None:
    writer = ChainWriter(store, tmp_path / "scratch")
    made = writer.commit_many(5, days=2)
    writer.request(parent=made[-1])
    rewind(writer.ledger, made[3].id, expected_head=made[4].id, by=ME, now=day(20))
    head = writer.commit(files={"a/model.bin": b"new weights"})
    gone = prune(writer.ledger, [KeepLatest(2)], by=ME, now=day(21))

    ledger = Ledger(store, writer.chain)
    folder = fetch(store, ledger.checkpoint(), tmp_path / "into")
    report = audit(ledger, SAMPLES)

    assert gone == [made[0].id, made[1].id, made[2].id, made[4].id]
    assert (folder / "a" / "model.bin").read_bytes() == b"new weights"
    assert (report.problems, report.partitions, report.head_id, report.entries) == ([], 9, head.id, 8)
    assert [orphan.path for orphan in sweep_garbage(ledger, day(9_999))] == [writer.chain.attempt(attempt_id(6))]
    assert store.folders(writer.chain.artifacts) == sorted([made[3].id, head.id])


def test_racing_runs_extend_chain_once(store: Store, tmp_path: Path) -> None:
    writer = ChainWriter(store, tmp_path / "scratch")
    parent = writer.commit()
    requests = [writer.request(parent=parent, days=number + 1) for number in range(6)]
    start = Barrier(len(requests))

    def race(request: CommitRequest) -> Checkpoint | ChainMoved:
        start.wait()
        try:
            return commit(store, request, day(5))
        except ChainMoved as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        outcomes = list(pool.map(race, requests))

    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Checkpoint)]
    assert Ledger(store, writer.chain).checkpoint() == winner
    assert audit(Ledger(store, writer.chain), SAMPLES).problems == []


def test_attempts_of_one_run_that_race_get_same_checkpoint(store: Store, tmp_path: Path) -> None:
    writer = ChainWriter(store, tmp_path / "scratch")
    parent = writer.commit()
    requests = [writer.request(parent=parent, run_id="same") for _ in range(4)]
    start = Barrier(len(requests))

    def race(request: CommitRequest) -> Checkpoint:
        start.wait()
        return commit(store, request, day(5))

    with ThreadPoolExecutor(len(requests)) as pool:
        outcomes = list(pool.map(race, requests))

    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert Ledger(store, writer.chain).state().sequence == 2
