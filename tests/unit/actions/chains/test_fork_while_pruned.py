"""A branch that is begun while what it goes on from is pruned."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainflow.actions.chains import fork
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.fork import LineCheckpoint
from trainflow.checkpoints.ledger_changes.fork import fork as begin
from trainflow.checkpoints.ledger_changes.prune import prune
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import CheckpointError
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, day

ME = Author("person")


@pytest.mark.parametrize("pruned", [True, False])
def test_fork_of_what_is_pruned_meanwhile_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruned: bool
) -> None:
    store = LocalStore(tmp_path / "store")
    writer = ChainWriter(store, tmp_path / "scratch")
    first, *_ = writer.commit_many(3)

    def begins(*words: Any, **options: Any) -> None:
        if pruned:  # it has looked at what is registered before
            prune(Ledger(store, writer.chain), [KeepLatest(1)], by=ME, now=day(0))
        begin(*words, **options)

    monkeypatch.setattr(fork, "begin", begins)
    key = ChainKey(writer.chain.pipeline, branch="hot")
    chain: Any = SimpleNamespace(
        key=writer.chain, ledger=lambda key=writer.chain: Ledger(store, key), by=lambda who: who
    )
    place = LineCheckpoint(first.id, first.sequence, first.watermark)
    forked = fork._Forked(chain, key, place)

    if pruned:
        with pytest.raises(CheckpointError, match=r"was pruned while .* was forked from it"):
            fork._begin(forked, fork.BranchRequest(branch="hot"), [], ME, day(0))
    else:
        fork._begin(forked, fork.BranchRequest(branch="hot"), [], ME, day(0))
        assert prune(Ledger(store, writer.chain), [KeepLatest(1)], by=ME, now=day(0)) != [first.id]
        assert Ledger(store, writer.chain).find(first.id) is not None
