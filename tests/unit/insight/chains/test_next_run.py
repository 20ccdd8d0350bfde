from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.stages.init_from import InitFrom
from trainflow.insight.chains.next_run import NextRun, next_run_of
from trainflow.samples.spec import Samples
from trainflow.serialization.document import ChainDocument
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, day

DAYS = Samples(path="t/{start:%Y%m%d}/", length_seconds=86_400, start=day(0), end=day(10))
BASE = ChainKey("flights", "base")


@pytest.fixture
def base(tmp_path: Path) -> ChainWriter:
    return ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "base", BASE)


@pytest.fixture
def own(tmp_path: Path, base: ChainWriter) -> ChainWriter:
    return ChainWriter(base.store, tmp_path / "own", ChainKey("flights", "fine", "b"))


def chain(init: InitFrom | None, stage: str = "fine") -> ChainDocument:
    return ChainDocument("flights", stage, "b", "", samples=DAYS, init_from=init)


def test_chain_without_base_goes_on_at_its_head(own: ChainWriter) -> None:
    assert next_run_of(chain(None), own.ledger) == NextRun(None, begun=True)
    own.commit(days=2)
    assert next_run_of(chain(None), own.ledger) == NextRun(day(2), begun=True)


def test_next_run_goes_as_far_as_its_base(base: ChainWriter, own: ChainWriter) -> None:
    init = InitFrom(BASE, "same_watermark")
    assert next_run_of(chain(init), own.ledger).waits == "waits for stage base, which has no checkpoint yet"
    for _ in range(3):
        newest = base.commit(days=2, run_id="r")
    own.commit(days=3)
    ahead = next_run_of(chain(init), own.ledger)
    assert (ahead.watermark, ahead.bounds, ahead.waits) == (day(3), (day(4), day(6)), None)
    assert ahead.pin == {"pipeline": "flights", "stage": "base", "branch": "main", "id": newest.id, "number": 3}
    assert ahead.pinned_run == "r"


def test_next_run_of_branch_begins_at_its_fork(base: ChainWriter, own: ChainWriter, tmp_path: Path) -> None:
    base.commit(days=2)
    branch = ChainWriter(base.store, tmp_path / "branch", ChainKey("flights", "base", "b"))
    fork = InitFrom(BASE, once=True)
    assert next_run_of(chain(fork, "base"), branch.ledger).watermark == day(2)
    # another stage has samples of its own, and begins with the first of them
    assert next_run_of(chain(fork), own.ledger).watermark is None
    branch.commit(days=3)
    assert next_run_of(chain(fork, "base"), branch.ledger) == NextRun(day(3), begun=True)


def test_circle_begins_with_nothing(own: ChainWriter) -> None:
    init = InitFrom(BASE, "same_watermark", feedback=True)
    assert next_run_of(chain(init), own.ledger) == NextRun(None)
