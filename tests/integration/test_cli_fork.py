"""`checkpoints fork`: of one chain, of all stages, at the head and at a date."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.integration.cli_history import History
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import CheckpointRef, Fork
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.testing.chains import ChainWriter, split_of
from trainflow.workspace.branches import overrides_of_branch
from trainflow.workspace.workspace import open_workspace


def of_branch(history: History, branch: str, given: dict[str, str]) -> dict[str, str]:
    path = history.root / "pipelines/flights.yaml"
    return overrides_of_branch(open_workspace(path), path, branch, given)


def test_fork_records_origin_and_changed_params(history: History) -> None:
    made = history.main.commit_many(3)
    command = ["checkpoints", "fork", "flights", "--from", "2", "--branch", "deep", "--set", "split.partitions=2"]

    said = history.json(*command)

    forked = {
        "chain": "flights/main/deep",
        "origin": {"chain": "flights/main/main", "id": made[1].id, "number": 2},
        "watermark": "2013-01-03T00:00:00Z",
        "overrides": {"split.partitions": "2"},
    }
    assert said == {"forked": [forked], "dry_run": False}
    state = Ledger(history.store, ChainKey("flights", "main", "deep")).state()
    assert (state.sequence, state.watermark) == (1, made[1].watermark)
    assert history.json(*command) == said
    code, out = history.run("checkpoints", "fork", "flights", "--from", "1", "--branch", "deep")
    assert (code, "has begun already" in out) == (1, True)
    assert of_branch(history, "deep", {"split.partitions": "5"}) == {
        "split.partitions": "5",
        "branch": "deep",
    }
    code, out = history.run("checkpoints", "rewind", "flights", "--branch", "deep", "--to", "beginning")
    assert (code, "no checkpoint: there is nothing to rewind" in out) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--branch", "main"], "is the branch that would be forked"),
        (["--branch", "a b"], "cannot name a branch"),
        (["--branch", "deep", "--set", "splat.partitions=2"], "splat"),
        (["--branch", "deep", "--from", "7"], "never had a checkpoint 7: its newest is 2"),
        (["--branch", "deep", "--set", "params.hf_token=abc"], "params.hf_token looks like a secret"),
    ],
)
def test_fork_that_cannot_be_trained_is_not_begun(history: History, arguments: list[str], said: str) -> None:
    history.main.commit_many(2)

    code, out = history.run("checkpoints", "fork", "flights", *arguments)

    assert (code, said in out) == (2, True), out
    assert history.store.folders("flights/main") == ["main"]


def test_start_of_branch_never_forked_is_refused(history: History) -> None:
    code, out = history.run("start", "flights", "--branch", "deep")

    assert (code, "trainflow checkpoints fork flights --branch deep" in out) == (2, True)


STAGES = """
pipeline: flights
samples: {path: "data/date={start:%Y-%m-%d}/", length: 1d, start: 2013-01-01}
train: {command: ["true"]}
retention: {keep_latest: 1}
stages:
  base: {}
  fine: {init_from: {stage: base}}
"""


def test_fork_at_head_forks_every_stage_and_keeps_what_stage_has_not_passed(history: History) -> None:
    (history.root / "pipelines/flights.yaml").write_text(STAGES)
    base = ChainWriter(history.store, history.root / "base", ChainKey("flights", "base"))
    fine = ChainWriter(history.store, history.root / "fine", ChainKey("flights", "fine"))
    made = base.commit_many(3)
    fine.commit(origin=CheckpointRef(base.chain, made[0].id))

    pruned = history.json("checkpoints", "prune", "flights", "--stage", "base", "--dry-run")
    assert pruned["pruned"] == []
    for each in made[1:]:
        fine.commit(origin=CheckpointRef(base.chain, each.id))
    pruned = history.json("checkpoints", "prune", "flights", "--stage", "base", "--dry-run")
    # the first is what the stage would begin with again
    assert [each["number"] for each in pruned["pruned"]] == [2]

    said = history.json("checkpoints", "fork", "flights", "--branch", "deep")
    assert [(each["chain"], each["origin"]["number"]) for each in said["forked"]] == [
        ("flights/base/deep", 3),
        ("flights/fine/deep", 3),
    ]
    code, out = history.run("checkpoints", "fork", "flights", "--branch", "other", "--from", "1")
    assert (code, "choose with --stage" in out) == (2, True)


class Stages(NamedTuple):
    base: ChainWriter
    fine: ChainWriter


@pytest.fixture
def stages(history: History) -> Stages:
    """Three days of a base; its fine-tune has trained two of them."""
    text = STAGES + "  late: {init_from: {stage: base}, samples: {start: 2013-01-04}}\n"
    (history.root / "pipelines/flights.yaml").write_text(text)
    base = ChainWriter(history.store, history.root / "base", ChainKey("flights", "base"))
    fine = ChainWriter(history.store, history.root / "fine", ChainKey("flights", "fine"))
    for each in base.commit_many(3)[:2]:
        fine.commit(origin=CheckpointRef(base.chain, each.id))
    return Stages(base, fine)


HOT = ["checkpoints", "fork", "flights", "--before", "2013-01-03", "--branch", "hot"]


def test_fork_at_date_forks_every_stage(history: History, stages: Stages) -> None:
    code, said = history.run(*HOT, "--dry-run")
    assert (code, said.splitlines()) == (
        0,
        [
            "flights/base/hot would go on from checkpoint 2 of flights/base/main, trained up to 2013-01-03T00:00Z",
            "flights/fine/hot would go on from checkpoint 2 of flights/fine/main, trained up to 2013-01-03T00:00Z",
            "flights/late/hot would begin with nothing",
        ],
    )
    assert history.store.folders("flights/base") == ["main"]

    found = history.json(*HOT, "--set", "split.partitions=2")

    assert [(each["chain"], each["origin"] and each["origin"]["number"]) for each in found["forked"]] == [
        ("flights/base/hot", 2),
        ("flights/fine/hot", 2),
        ("flights/late/hot", None),
    ]
    # the stage without a ledger is meant to have none
    assert of_branch(history, "hot", {}) == {
        "split.partitions": "2",
        "branch": "hot",
    }
    assert history.json(*HOT, "--set", "split.partitions=2") == found
    code, said = history.run(*HOT[:3], "--branch", "hot")
    assert (code, "forked otherwise (--before 2013-01-03T00:00:00+00:00 --set split.partitions=2)" in said) == (2, True)
    code, said = history.run(*HOT[:3], "--before", "2013-01-01", "--branch", "old")
    assert (code, "no stage has a checkpoint that is trained up to 2013-01-01" in said) == (2, True)
    code, said = history.run(*HOT[:3], "--before", "2013-01-01", "--branch", "old", "--stage", "base")
    assert (code, "keeps no checkpoint that is trained up to 2013-01-01" in said) == (2, True)
    code, said = history.run(*HOT, "--from", "1")
    assert (code, "say --from" in said) == (2, True)


class Killed(BaseException):
    pass


def test_fork_that_was_cut_short_is_completed_as_it_began(
    history: History, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_step: str) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("trainflow.actions.chains.fork.hit", die)
        history.run("checkpoints", "fork", "flights", "--branch", "hot")
    assert [history.store.folders(f"flights/{stage}") for stage in ("base", "fine")] == [["hot", "main"], ["main"]]
    code, said = history.run("start", "flights", "--branch", "hot")
    assert (code, "lacks fine, which would begin with nothing: give the command that forked it again" in said) == (
        2,
        True,
    )
    # meanwhile the chains go on
    newest = stages.base.ledger.checkpoint()
    stages.fine.commit(origin=CheckpointRef(stages.base.chain, newest.id))
    stages.base.commit()

    found = history.json("checkpoints", "fork", "flights", "--branch", "hot")

    assert [each["origin"] and each["origin"]["number"] for each in found["forked"]] == [3, 2, None]
    assert of_branch(history, "hot", {}) == {"branch": "hot"}


def test_rest_of_branch_that_was_begun_by_hand(history: History, stages: Stages) -> None:
    by_hand = ["checkpoints", "fork", "flights", "--branch", "hot", "--stage", "base", "--from", "1"]
    assert history.run(*by_hand)[0] == 0
    code, said = history.run("start", "flights", "--branch", "hot")
    assert (code, "lacks fine, late, which would begin with nothing: fork it as well" in said) == (2, True)

    found = history.json("checkpoints", "fork", "flights", "--branch", "hot")

    assert [each["origin"] and each["origin"]["number"] for each in found["forked"]] == [1, 1, None]
    assert of_branch(history, "hot", {}) == {"branch": "hot"}


def test_rewind_of_origin_leaves_forked_branch_of_stages_alone(history: History, stages: Stages) -> None:
    history.json(*HOT)
    # the fine-tune of the branch went on from where its base was forked
    fine = ChainWriter(history.store, history.root / "hot", ChainKey("flights", "fine", "hot"))
    forked = fine.ledger.state().start
    assert isinstance(forked, Fork)
    point = stages.base.ledger.line()[1]
    fine.commit(split=split_of(2), origin=CheckpointRef(stages.base.chain, point.id))

    found = history.json("checkpoints", "rewind", "flights", "--stage", "base", "--to", "1", "--cascade")

    assert [each["chain"] for each in found["rewound"]] == ["flights/fine/main", "flights/base/main"]
