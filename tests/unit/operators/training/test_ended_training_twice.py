"""An ended training that two attempts upload: the one that was given up lives on unheard."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.artifact_cache import ArtifactCache
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.errors import StoreFailure
from trainflow.operators.training.ended_training import OutputSealer
from trainflow.testing.chains import attempt_id


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("s3://bucket", remote=True)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    for name in ("model", "optimizer"):
        (folder / name).write_text(name)
    return folder


def sealer(store: MemoryStore, output: Path, number: int) -> OutputSealer:
    """That of an attempt, which writes into a folder of its own when it trains itself."""
    home = output.parent
    ti: Any = SimpleNamespace(attempt_id=attempt_id(number), cleared_at=None, log=logging.getLogger("test"))
    own = output if number == 1 else home / "other"
    return OutputSealer(
        Ledger(store, ChainKey("clicks")), home / "saves", own, ti, ArtifactCache(home / "cache", 0), list
    )


def test_attempt_whose_files_another_one_has_uploaded_and_removed_goes_on_with_those(
    store: MemoryStore, output: Path
) -> None:
    first, second = sealer(store, output, 1), sealer(store, output, 2)
    ended = first.end({"loss": 0.5})
    found = second.ended()
    assert found == ended

    made = first.seal(ended)
    assert not output.exists()
    assert second.seal(found) == made
    assert second.kept is None


def test_attempt_whose_files_are_gone_and_nowhere_else_fails(store: MemoryStore, output: Path) -> None:
    sealer(store, output, 1).end({"loss": 0.5})
    second = sealer(store, output, 2)
    found = second.ended()
    assert found is not None
    (output / "model").unlink()
    with pytest.raises(StoreFailure, match="gone"):
        second.seal(found)


def test_attempt_does_not_go_on_with_files_that_are_not_whole_in_the_store(store: MemoryStore, output: Path) -> None:
    first, second = sealer(store, output, 1), sealer(store, output, 2)
    ended = first.end({"loss": 0.5})
    found = second.ended()
    assert found is not None
    made = first.seal(ended)
    store.delete(f"{made.path}/model")
    with pytest.raises(StoreFailure, match="gone"):
        second.seal(found)
