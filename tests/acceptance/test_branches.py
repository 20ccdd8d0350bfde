"""A branch is trained beside the chain it was forked from, and a chain that was rewound is trained forward again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger import Ledger
from trainflow.testing.live_project import LiveProject
from trainflow.testing.tiny_project import NAME, PARTITIONS_A_SPLIT, ROWS_A_DAY, tiny_project

pytestmark = pytest.mark.slow

DAYS = 9


@pytest.fixture
def project(tmp_path: Path) -> Iterator[LiveProject]:
    project = tiny_project(tmp_path / "branches", days=DAYS)
    yield project
    project.close()


def rows_of(ledger: Ledger) -> list[int]:
    """The rows that the head's weights know, in the order they learnt them."""
    path = ledger.store.local_path(ledger.checkpoint().artifacts.path)
    assert path is not None
    return [int(row) for row in np.load(path / "rows.npy")]


def test_a_branch_trains_the_same_samples_another_way_and_a_rewound_chain_goes_forward_again(
    project: LiveProject,
) -> None:
    assert project.start(NAME, "--plain").code == 0
    trained = project.ledger(NAME)
    expected = rows_of(trained)
    assert sorted(expected) == sorted(range(DAYS * ROWS_A_DAY))

    fork = ["checkpoints", "fork", NAME, "--from", "1", "--branch", "small", "--set", "split.partitions=1"]
    assert project.run(*fork).code == 0
    done = project.start(NAME, "--branch", "small", "--plain")

    assert done.code == 0, done.output
    branch = Ledger(trained.store, ChainKey(NAME, "main", "small"))
    splits = [len(entry.split.partitions) for entry in map(branch.checkpoint, [each.id for each in branch.line()])]
    assert splits == [1] * (DAYS - PARTITIONS_A_SPLIT)
    assert sorted(rows_of(branch)) == sorted(expected)
    said = project.run("audit", NAME, "--branch", "small", "--diet", "head", "--json")
    assert [each["chain"] for each in json.loads(said.output)["partitions"]] == [f"{NAME}/main/main"] * 3 + [
        f"{NAME}/main/small"
    ] * 6

    assert project.run("checkpoints", "rewind", NAME, "--to", "1").code == 0
    assert project.start(NAME, "--plain").code == 0
    again = rows_of(project.ledger(NAME))
    # what was kept is as it was, what came after was trained anew, in an order of its own
    assert again[: PARTITIONS_A_SPLIT * ROWS_A_DAY] == expected[: PARTITIONS_A_SPLIT * ROWS_A_DAY]
    assert sorted(again) == sorted(expected)
    assert again != expected
    assert project.run("audit", NAME, "--all", "--no-samples").code == 0
