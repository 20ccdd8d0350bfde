"""A chain that tests write."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    """A chain in an empty store."""
    return ChainWriter(LocalStore(tmp_path / "store"), tmp_path / "scratch")
