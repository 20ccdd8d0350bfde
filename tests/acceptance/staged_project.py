"""A project whose pipeline has stages."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from tests.support.live_project import LiveProject
from tests.support.tiny_project import FILE, PIPELINE, ROWS_A_DAY

Made = Callable[..., LiveProject]


DAYS = 4


ONE_A_RUN = PIPELINE.replace("split: {partitions: 3}", "split: {partitions: 1}")


def trained(project: LiveProject, stage: str, number: int = -1) -> list[int]:
    """The days that a checkpoint's model has seen, each as often as it has seen it: all of its rows, or none."""
    store = project.ledger("tiny").store
    folder = store.local_path(project.checkpoints("tiny", stage)[number].artifacts.path)
    assert folder is not None
    times = np.bincount(np.load(folder / "rows.npy")).reshape(-1, ROWS_A_DAY)
    assert (times == times[:, :1]).all()
    return [day for day, often in enumerate(times[:, 0].tolist()) for _ in range(often)]


def origins(project: LiveProject, stage: str) -> list[str | None]:
    """Where the weights of each checkpoint came from: `stage number`; None: from the one before it, or from nothing."""
    found: list[str | None] = []
    for entry in project.checkpoints("tiny", stage):
        base = entry.origin and project.ledger("tiny", stage=entry.origin.chain.stage).find(entry.origin.checkpoint_id)
        found.append(f"{entry.origin.chain.stage} {base.number}" if entry.origin and base else None)
    return found


def start(project: LiveProject) -> str:
    ended = project.start(FILE)
    assert ended.code == 0, ended.output
    project.wait_until_quiet()
    return ended.output


def assert_audit_is_clean(project: LiveProject, *partitions: int) -> None:
    """Of every chain, with so many partitions each, in the order of their names."""
    ended = project.ask("audit", "tiny", "--json")
    facts = json.loads(ended.output)
    assert (ended.code, facts["ok"]) == (0, True), ended.output
    chains = sorted(facts["chains"], key=lambda chain: chain["stage"])
    found = [(chain["partitions"], chain["gaps"], chain["duplicates"], chain["problems"]) for chain in chains]
    assert found == [(each, 0, 0, []) for each in partitions]
