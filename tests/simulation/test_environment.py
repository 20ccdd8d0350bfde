"""A history has its environment for itself, whatever else the process has done, or does meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from threading import Thread

import pytest

from tests.simulation.environment import isolated_project, storage_redirected
from tests.simulation.fiber import Fiber
from tests.simulation.memory_store import MemoryStore
from tests.simulation.table import SampleTable
from trainflow.clock import ManualClock
from trainflow.storage import urls
from trainflow.storage.store import Store


class _Provider:
    """What processes reach."""

    def __init__(self, clock: ManualClock) -> None:
        self.table = SampleTable(clock, 1)

    def store_of(self, process: Fiber | None) -> Store:
        return MemoryStore()

    def read_pipeline(self, _workspace: object, path: Path, overrides: Mapping[str, str]) -> None:
        raise AssertionError((path, overrides))


def test_names_of_history_while_another_thread_takes_some_are_the_same() -> None:
    with isolated_project(1):
        alone = [os.urandom(8), os.urandom(8)]

    taken: list[bytes] = []
    other = Thread(target=lambda: taken.append(os.urandom(8)))
    fiber = Fiber(lambda: os.urandom(8))
    with isolated_project(1):
        names = [os.urandom(8)]
        other.start()
        other.join()
        fiber.run()

    assert [*names, fiber.result] == alone
    assert taken[0] not in alone


def test_module_imported_during_history_has_its_real_storage_afterwards(
    monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    name = "trainflow.checkpoints.ledger_changes.import_external"
    monkeypatch.setitem(sys.modules, name, import_module(name))
    del sys.modules[name]
    real = urls.open_storage

    with storage_redirected(_Provider(clock)):
        module = import_module(name)
        assert module.open_storage is not real

    assert module.open_storage is urls.open_storage is real


def test_module_loaded_anew_is_redirected_though_there_are_no_more_than_before(
    monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    name = "trainflow.checkpoints.ledger_changes.import_external"
    monkeypatch.setitem(sys.modules, name, import_module(name))
    real = urls.open_storage
    with storage_redirected(_Provider(clock)):
        pass

    del sys.modules[name]
    module = import_module(name)

    with storage_redirected(_Provider(clock)):
        assert module.open_storage is not real


def test_project_of_history_has_nothing_that_a_killed_process_left() -> None:
    with isolated_project(1) as project:
        folder = project.root

    (folder / "left").mkdir(parents=True)
    with isolated_project(1) as project:
        assert project.root == folder
        assert not folder.exists()
