"""A branch is trained beside the chain it was forked from, and a chain that was rewound is trained forward again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.live_project import LiveProject
from tests.support.tiny_project import NAME, PARTITIONS_A_SPLIT, PIPELINE, ROWS_A_DAY, tiny_project
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import CheckpointRef
from trainflow.checkpoints.ledger.ledger_writer import Ledger

pytestmark = pytest.mark.slow

DAYS = 9


@pytest.fixture
def project(tmp_path: Path) -> LiveProject:
    return tiny_project(tmp_path / "branches", days=DAYS)


def rows_of(ledger: Ledger) -> list[int]:
    """The rows that the head's weights know, in the order they learnt them."""
    path = ledger.store.local_path(ledger.checkpoint().artifacts.path)
    assert path is not None
    return [int(row) for row in np.load(path / "rows.npy")]


@pytest.mark.exhaustive
def test_branch_with_other_params_trains_same_samples_then_rewound_chain_goes_on(
    project: LiveProject,
) -> None:
    assert project.start(NAME, "--plain").code == 0
    trained = project.ledger(NAME)
    expected = rows_of(trained)
    assert sorted(expected) == sorted(range(DAYS * ROWS_A_DAY))

    fork = ["checkpoints", "fork", NAME, "--from", "1", "--branch", "small", "--set", "split.partitions=1"]
    assert project.ask(*fork).code == 0
    done = project.start(NAME, "--branch", "small", "--plain")

    assert done.code == 0, done.output
    branch = Ledger(trained.store, ChainKey(NAME, "main", "small"))
    splits = [len(entry.split.partitions) for entry in map(branch.checkpoint, [each.id for each in branch.line()])]
    assert splits == [1] * (DAYS - PARTITIONS_A_SPLIT)
    assert sorted(rows_of(branch)) == sorted(expected)
    said = project.ask("audit", NAME, "--branch", "small", "--lineage", "head", "--json")
    assert [each["chain"] for each in json.loads(said.output)["partitions"]] == [f"{NAME}/main/main"] * 3 + [
        f"{NAME}/main/small"
    ] * 6

    assert project.ask("checkpoints", "rewind", NAME, "--to", "1").code == 0
    assert project.start(NAME, "--plain").code == 0
    again = rows_of(project.ledger(NAME))
    # what was kept is as it was, what came after was trained anew, in an order of its own
    assert again[: PARTITIONS_A_SPLIT * ROWS_A_DAY] == expected[: PARTITIONS_A_SPLIT * ROWS_A_DAY]
    assert sorted(again) == sorted(expected)
    assert again != expected
    assert project.ask("audit", NAME, "--all", "--no-samples").code == 0


def days_of(ledger: Ledger, number: int) -> list[int]:
    """The days that the weights of a checkpoint of the line have learnt from, each as often as they did."""
    path = ledger.store.local_path(ledger.checkpoint(ledger.line()[number].id).artifacts.path)
    assert path is not None
    first_rows = [int(row) for row in np.load(path / "rows.npy") if row % ROWS_A_DAY == 0]
    return sorted(row // ROWS_A_DAY for row in first_rows)


STAGES = {
    "forwards": "  first:\n  second: {init_from: {stage: first}}\n",
    "circle": "  first: {init_from: {stage: second}}\n  second: {init_from: {stage: first}}\n",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("form", ["forwards", "circle"])
def test_stages_of_branch_start_from_each_other(tmp_path: Path, form: str) -> None:
    late = "  late: {init_from: {stage: first}, samples: {start: 2024-01-03}}\n" if form == "forwards" else ""
    pipeline = PIPELINE.replace("split: {partitions: 3}", "split: {partitions: 1}")
    project = tiny_project(tmp_path / form, days=4, pipeline=f"{pipeline}stages:\n{STAGES[form]}{late}")
    assert project.start(NAME, "--plain").code == 0
    fork = ["checkpoints", "fork", NAME, "--before", "2024-01-03", "--branch", "hot"]
    forked = project.ask(*fork, "--set", "params.rate=2")
    assert forked.code == 0, forked.output

    done = project.start(NAME, "--branch", "hot", "--plain")

    assert done.code == 0, done.output
    store = project.ledger(NAME).store
    found = {stage: Ledger(store, ChainKey(NAME, stage, "hot")) for stage in ("first", "second", "late")}
    again = {stage: Ledger(store, ChainKey(NAME, stage)) for stage in found}
    for stage in ("first", "second"):
        line = [found[stage].checkpoint(each.id) for each in found[stage].line()]
        assert [entry.params["rate"] for entry in line] == [2, 2]
        # from the same weights on the same days as the chains that it was forked from
        assert [days_of(found[stage], number) for number in (0, 1)] == [
            days_of(again[stage], number) for number in (2, 3)
        ]
        # each judged by the weights it has itself, also the first one
        assert all(entry.evaluation for entry in line)
    origins = [found["first"].checkpoint(each.id).origin for each in found["first"].line()]
    if form == "circle":
        # the first one from where the other stage was forked, the next one from the branch
        assert origins == [
            CheckpointRef(again["second"].chain, again["second"].line()[1].id),
            CheckpointRef(found["second"].chain, found["second"].line()[0].id),
        ]
    else:
        assert [days_of(found["late"], number) for number in (0, 1)] == [[0, 1, 2, 2], [0, 1, 2, 3, 3]]
    assert project.ask("audit", NAME, "--all", "--no-samples").code == 0
