"""Runs of a training task, for its tests."""

from __future__ import annotations

from typing import Any

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.storage.urls import open_store


def committed(lab: Any, store: str = "checkpoints") -> Any:
    return Ledger(open_store(store, root=lab.root), ChainKey("model")).checkpoint()
