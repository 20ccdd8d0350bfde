"""Pipelines with several stages, whole: every row of every chain comes once, in weights that came from the right place.

The model remembers the ids of the rows it was trained on, those of the checkpoints it came from included.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.entries import Checkpoint
from trainflow.checkpoints.ledger import Ledger
from trainflow.checkpoints.store import open_store
from trainflow.testing.live_project import LiveProject
from trainflow.testing.tiny_project import FILE, PIPELINE, ROWS_A_DAY, tiny_project

pytestmark = pytest.mark.slow

Made = Callable[[str], LiveProject]
DAYS = 6
ONE_A_RUN = PIPELINE.replace("split: {partitions: 3}", "split: {partitions: 1}")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Lay out a project of six days whose pipeline has these stages."""
    projects: list[LiveProject] = []

    def make(stages: str, shared: str = ONE_A_RUN) -> LiveProject:
        projects.append(tiny_project(tmp_path / f"p{len(projects)}", days=DAYS, pipeline=f"{shared}stages:\n{stages}"))
        return projects[-1]

    yield make
    for project in projects:
        project.close()


def ledger(project: LiveProject, stage: str) -> Ledger:
    return Ledger(open_store("checkpoints", root=project.root), ChainKey("tiny", stage))


def checkpoints(project: LiveProject, stage: str) -> list[Checkpoint]:
    return [entry for entry in ledger(project, stage).entries() if isinstance(entry, Checkpoint)]


def trained(project: LiveProject, stage: str, number: int = -1) -> list[int]:
    """The days that a checkpoint's model has seen, in order, each as often as it has seen it."""
    store = ledger(project, stage).store
    folder = store.local_path(checkpoints(project, stage)[number].artifacts.path)
    assert folder is not None
    rows = np.load(folder / "rows.npy")
    days = rows.reshape(-1, ROWS_A_DAY) // ROWS_A_DAY
    assert (days == days[:, :1]).all()
    assert all(len(set(each)) == ROWS_A_DAY for each in rows.reshape(-1, ROWS_A_DAY).tolist())
    return [int(day) for day in days[:, 0]]


def origins(project: LiveProject, stage: str) -> list[str | None]:
    """Where the weights of each checkpoint came from: `stage number`."""
    found = []
    for entry in checkpoints(project, stage):
        base = entry.origin and ledger(project, entry.origin.chain.stage).checkpoint(entry.origin.checkpoint_id)
        found.append(f"{entry.origin.chain.stage} {base.sequence}" if entry.origin and base else None)
    return found


def start(project: LiveProject) -> str:
    ended = project.start(FILE)
    assert ended.code == 0, ended.output
    project.wait_until_quiet()
    return ended.output


def assert_audit_is_clean(project: LiveProject, chains: int) -> None:
    ended = project.run("audit", "tiny", "--json")
    facts = json.loads(ended.output)
    assert (ended.code, facts["ok"], len(facts["chains"])) == (0, True, chains), ended.output
    for chain in facts["chains"]:
        assert (chain["gaps"], chain["duplicates"], chain["problems"]) == (0, 0, [])


def test_every_day_the_base_and_then_its_fine_tune(made: Made) -> None:
    project = made("  base:\n  fine: {init_from: {stage: base}}\n")
    start(project)
    assert trained(project, "base") == [0, 1, 2, 3, 4, 5]
    # each fine-tune is the base of that day, and that day once more
    for number in range(DAYS):
        assert trained(project, "fine", number) == [*range(number + 1), number]
    assert origins(project, "fine") == [f"base {number}" for number in range(1, DAYS + 1)]
    parents = [entry.parent_id for entry in checkpoints(project, "fine")]
    assert parents == [None, *(entry.id for entry in checkpoints(project, "fine")[:-1])]
    assert_audit_is_clean(project, chains=2)

    # there is nothing left, also for a database that knows of nothing
    start(project)
    (project.home.path / "trainflow.db").unlink(missing_ok=True)
    start(project)
    assert len(checkpoints(project, "fine")) == DAYS
