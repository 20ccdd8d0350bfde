"""The commands that change the history of a chain, or look far back into it, over a real store."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit.artifacts import output_folder
from trainflow.checkpoints.ledger.entries import CheckpointRef, Fork
from trainflow.checkpoints.ledger.ledger import Ledger
from trainflow.checkpoints.stages.dependents import Dependent
from trainflow.checkpoints.stages.dependents_registry import add_dependent
from trainflow.metadata import outbox_queries
from trainflow.settings.project import Project
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import ChainWriter, attempt_id, split_of
from trainflow.testing.command_line import CommandLine
from trainflow.workspace.branches import overrides_of_branch
from trainflow.workspace.workspace import open_workspace

YAML = """
pipeline: flights
samples:
  path: "data/date={start:%Y-%m-%d}/"
  length: 1d
  start: 2013-01-01
split: {partitions: 1}
train: {command: ["true"]}
retention: {keep_latest: 2, keep_weekly: 4}
"""
LONG_AGO = datetime(2014, 1, 1, tzinfo=UTC).timestamp()


class History(CommandLine):
    """A project whose chain is written directly, a day a checkpoint."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(project, capsys)
        self.store = LocalStore(self.root / "checkpoints")
        self.main = ChainWriter(self.store, self.root / "scratch")

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, ChainKey("flights"))


@pytest.fixture
def history(inside: Callable[..., History]) -> History:
    return inside(History, {"pipelines/flights.yaml": YAML})


# -- prune and sweep -----------------------------------------------------------------------------------------------


def of_branch(history: History, branch: str, given: dict[str, str]) -> dict[str, str]:
    path = history.root / "pipelines/flights.yaml"
    return overrides_of_branch(open_workspace(path), path, branch, given)


def test_prune_keeps_one_week_of_what_was_trained(history: History) -> None:
    # 2013-01-01 was a Tuesday: Sundays are the days 6, 13, 20
    made = [each.id for each in history.main.commit_many(16)]

    said = history.json("checkpoints", "prune", "flights", "--dry-run")
    assert (said["dry_run"], len(said["pruned"]), len(history.ledger.kept())) == (True, 12, 16)
    history.json("checkpoints", "prune", "flights")

    assert [each.id for each in history.ledger.kept()] == [made[5], made[12], made[14], made[15]]
    assert history.json("checkpoints", "prune", "flights")["pruned"] == []


def leave_behind(history: History, chain: ChainKey, number: int) -> Path:
    folder = output_folder(history.store, chain, attempt_id(number), history.root)
    (folder / "model.bin").write_bytes(b"12345")
    os.utime(folder / "model.bin", (LONG_AGO, LONG_AGO))
    return folder


def test_sweep_takes_what_dead_attempts_left_in_every_branch(history: History) -> None:
    history.main.commit_many(2)
    left = [leave_behind(history, ChainKey("flights", "main", branch), 50) for branch in ("main", "deeper")]
    other = leave_behind(history, ChainKey("nights"), 50)

    said = history.json("checkpoints", "sweep", "flights", "--dry-run")
    assert [each["chain"] for each in said["swept"]] == ["flights/main/main", "flights/main/deeper"]
    assert (said["bytes"], said["dry_run"], said["swept"][0]["kind"]) == (10, True, "orphan")
    assert all(folder.exists() for folder in left)
    code, out = history.run("checkpoints", "sweep", "flights", "--branch", "deeper")
    assert (code, "1 leftover, 5 bytes deleted" in out) == (0, True)
    assert [folder.exists() for folder in left] == [True, False]

    history.json("checkpoints", "sweep", "flights")

    assert [folder.exists() for folder in (*left, other)] == [False, False, True]
    assert history.run("checkpoints", "sweep", "flights") == (0, "nothing to sweep\n")
    assert history.json("audit", "flights", "--no-samples")["ok"]


def test_dependents_of_another_pipeline_are_listed(history: History) -> None:
    made = history.main.commit_many(4)
    add_dependent(history.store, history.main.chain, Dependent(ChainKey("nights"), "same_watermark"))
    nights = ChainWriter(history.store, history.root / "nights", ChainKey("nights"))
    nights.commit(days=3, origin=CheckpointRef(history.main.chain, made[2].id))

    said = history.json("checkpoints", "followers", "flights")
    assert said == {
        "followers": [{"chain": "nights/main/main", "at": "same_watermark", "once": False, "held": 2}],
    }
    code, out = history.run("checkpoints", "followers", "flights", "--forget", "nights/other/main")
    assert (code, "does not follow" in out) == (2, True)
    code, out = history.run("checkpoints", "followers", "flights", "--forget", "nights/main/main/more")
    assert (code, "write PIPELINE/STAGE/BRANCH" in out) == (2, True)
    code, out = history.run("checkpoints", "followers", "flights", "--forget", "nights/main/main")
    assert (code, out) == (0, "no stage of another pipeline follows\n")


def test_sweep_leaves_young_alone_and_what_it_does_not_know(history: History) -> None:
    folder = leave_behind(history, ChainKey("flights"), 50)
    unknown = leave_behind(history, ChainKey("flights"), 51)
    unknown = unknown.rename(unknown.with_name("my-own-folder"))

    assert history.json("checkpoints", "sweep", "flights", "--grace", "36000d")["swept"] == []
    assert len(history.json("checkpoints", "sweep", "flights", "--grace", "36h")["swept"]) == 1
    assert (folder.exists(), unknown.exists()) == (False, True)
    code, said = history.run("checkpoints", "sweep", "flights", "--grace", "soon")
    assert (code, "--grace soon: 'soon' is not a duration" in said) == (2, True)


def test_sweep_spares_what_run_that_has_not_ended_made(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leave_behind(history, ChainKey("flights"), 50)
    monkeypatch.setattr("trainflow.actions.chains.sweep.living_attempts", lambda *_: {attempt_id(50)})

    assert history.json("checkpoints", "sweep", "flights")["swept"] == []
    assert folder.exists()


# -- rewind --------------------------------------------------------------------------------------------------------


def test_rewind_to_number(history: History) -> None:
    made = history.main.commit_many(4)

    said = history.json("checkpoints", "rewind", "flights", "--to", "2", "--dry-run")
    assert said == {
        "rewound": [
            {
                "chain": "flights/main/main",
                "from": 4,
                "from_id": made[3].id,
                "to": 2,
                "to_id": made[1].id,
                "watermark": "2013-01-03T00:00:00Z",
                "undone": 2,
                "pruned_up_to": None,
                "aliases": {},
            }
        ],
        "dry_run": True,
    }
    assert history.ledger.state().head == made[3]
    code, out = history.run("checkpoints", "rewind", "flights", "--to", "2", "--reason", "the table was wrong")

    assert (code, out) == (
        0,
        "flights/main/main is rewound from checkpoint 4 to checkpoint 2, trained up to 2013-01-03T00:00Z: "
        "2 checkpoints undone\n",
    )
    assert history.ledger.state().head == made[1]
    code, out = history.run("checkpoints", "ledger", "flights")
    assert f"rewind by person to {made[1].id} (the table was wrong)" in out


def test_rewind_says_what_becomes_of_aliases_and_queues_it_for_mlflow(history: History) -> None:
    made = history.main.commit_many(4)
    (history.root / "configs/trainflow.toml").write_text("[tracking]\nenabled = true\n")
    assert history.run("db", "migrate")[0] == 0
    for number, alias in [("1", "champion"), ("3", "champion"), ("4", "newest")]:
        history.json("checkpoints", "promote", "flights", number, "--alias", alias)

    said = history.json("checkpoints", "rewind", "flights", "--to", "2", "--dry-run")
    assert said["rewound"][0]["aliases"] == {"champion": made[0].id, "newest": None}
    code, out = history.run("checkpoints", "rewind", "flights", "--to", "2")

    assert code == 0
    assert out.splitlines()[1:] == [
        f"'champion' goes back to checkpoint {made[0].id}",
        "'newest' names no checkpoint any more",
    ]
    assert history.ledger.state().promoted == {"champion": made[0].id}
    with open_workspace() as workspace, workspace.database.reading() as connection:
        rows = outbox_queries.pending(connection, datetime.now(UTC))
    moved = [row.payload["moved"] for row in rows if row.kind == "demoted"]
    assert [(each["alias"], each["lost"], (each.get("now") or {}).get("sequence")) for each in moved] == [
        ("champion", [made[2].id], 1),
        ("newest", [made[3].id], None),
    ]


@pytest.mark.parametrize(
    ("before", "left"), [("2013-01-03", 2), ("2013-01-03T23:59", 2), ("2013-01-04", 3), ("2013-01-01", 0)]
)
def test_rewind_to_before_date(history: History, before: str, left: int) -> None:
    history.main.commit_many(4)

    history.json("checkpoints", "rewind", "flights", "--before", before)

    assert len(history.ledger.line()) == left


def test_rewind_past_start_of_another_stage_is_refused_unless_cascading(history: History) -> None:
    base = history.main.commit_many(3)
    fine = ChainWriter(history.store, history.root / "fine", ChainKey("flights", "fine"))
    fine.commit(origin=CheckpointRef(history.main.chain, base[2].id))

    code, said = history.run("checkpoints", "rewind", "flights", "--to", "1")
    assert (code, "flights/fine/main (checkpoint 1) went on from checkpoints of flights/main/main" in said) == (2, True)
    assert history.ledger.state().sequence == 3

    found = history.json("checkpoints", "rewind", "flights", "--to", "1", "--cascade")

    assert [(each["chain"], each["to"]) for each in found["rewound"]] == [
        ("flights/fine/main", 0),
        ("flights/main/main", 1),
    ]
    assert Ledger(history.store, fine.chain).state().head is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say where to"),
        (["--to", "1", "--before", "2013-01-01"], "say where to"),
        (["--before", "soon"], "--before soon:"),
        (["--to", "9"], "keeps no checkpoint 9"),
    ],
)
def test_rewind_to_nowhere_is_wrong_input(history: History, arguments: list[str], said: str) -> None:
    history.main.commit_many(2)

    code, out = history.run("checkpoints", "rewind", "flights", *arguments)

    assert (code, said in out) == (2, True), out
    assert history.ledger.state().sequence == 2


def test_rewind_waits_for_runs_that_have_not_ended(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    history.main.commit_many(2)
    asked: list[str] = []

    def active(_workspace: object, dag_id: str) -> list[str]:
        asked.append(dag_id)
        return ["manual__1"]

    monkeypatch.setattr("trainflow.actions.chains.rewind.active_runs", active)

    code, out = history.run("checkpoints", "rewind", "flights", "--to", "1")

    assert (code, asked, history.ledger.state().sequence) == (2, ["flights"], 2)
    assert "run manual__1 of flights has not ended" in out
    assert "trainflow runs cancel flights manual__1" in out


# -- fork, compare, diet -------------------------------------------------------------------------------------------


def test_fork_records_origin_and_changed_params(history: History) -> None:
    made = history.main.commit_many(3)
    command = ["checkpoints", "fork", "flights", "--from", "2", "--branch", "deep", "--set", "split.partitions=2"]

    said = history.json(*command)

    forked = {
        "chain": "flights/main/deep",
        "origin": {"chain": "flights/main/main", "id": made[1].id, "sequence": 2},
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
        (["--branch", "deep", "--from", "7"], "keeps no checkpoint 7"),
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


def forked(history: History) -> ChainWriter:
    """main: [0, 4); deep: forked after day 1, [2, 5) with day 3 a hole."""
    made = [history.main.commit(evaluation={"auc": 0.5 + number / 10}) for number in range(4)]
    history.json("checkpoints", "fork", "flights", "--from", "2", "--branch", "deep")
    branch = ChainWriter(history.store, history.root / "deep", ChainKey("flights", "main", "deep"))
    origin = CheckpointRef(history.main.chain, made[1].id)
    branch.commit(split=split_of(2, 3, [3]), origin=origin, evaluation={"auc": 0.9})
    return branch


def test_compare_two_branches(history: History) -> None:
    forked(history)

    said = history.json("checkpoints", "compare", "flights", "main", "deep")

    assert (said["a"]["sequence"], said["b"]["sequence"], said["measured"]) == (4, 2, "evaluation")
    assert said["scores"][-1] == {"watermark": "2013-01-06T00:00:00Z", "a": None, "b": {"auc": 0.9}}
    assert (said["common"], len(said["only_a"]), len(said["only_b"]), said["changed"]) == (3, 1, 1, [])
    assert said["only_b"][0]["chain"] == "flights/main/deep"
    code, out = history.run("checkpoints", "compare", "flights", "main", "deep")
    assert code == 0
    shown = ("scores on samples not seen before", "2013-01-06T00:00Z", "A auc", "3 partitions in common")
    assert all(words in out for words in (*shown, "only A: 1 partition"))


def test_compare_branch_that_has_trained_nothing_yet(history: History) -> None:
    made = [history.main.commit(evaluation={"auc": 0.5 + number / 10}) for number in range(4)]
    history.json("checkpoints", "fork", "flights", "--from", "2", "--branch", "deep")

    said = history.json("checkpoints", "compare", "flights", "main", "deep")

    assert said["b"] == {
        "chain": "flights/main/deep",
        "id": made[1].id,
        "sequence": 2,
        "watermark": "2013-01-03T00:00:00Z",
        "partitions": 2,
        "forked_from": "flights/main/main",
    }
    assert (said["a"]["forked_from"], said["common"], len(said["only_a"]), said["only_b"]) == (None, 2, 2, [])
    code, out = history.run("checkpoints", "compare", "flights", "deep", "main")
    shown = "A  flights/main/deep  no checkpoint of its own yet: checkpoint 2 of flights/main/main, from which it was"
    assert (code, shown in out) == (0, True), out


@pytest.mark.parametrize(("a", "b"), [("1", "3"), ("main@1", "main@3")])
def test_compare_two_checkpoints(history: History, a: str, b: str) -> None:
    forked(history)

    said = history.json("checkpoints", "compare", "flights", a, b)

    assert (said["a"]["partitions"], said["b"]["partitions"], said["common"]) == (1, 3, 1)
    code, out = history.run("checkpoints", "compare", "flights", "main", "nobody")
    assert (code, "never had a checkpoint nobody" in out) == (2, True)


def test_lineage_follows_weights_to_origin_of_branch(history: History) -> None:
    branch = forked(history)

    said = history.json("audit", "flights", "--branch", "deep", "--diet", "head")

    assert (said["id"], said["rows"], said["began_with"]) == (branch.ledger.checkpoint().id, 40, None)
    assert [(each["start"][:10], each["chain"], each["run_id"]) for each in said["partitions"]] == [
        ("2013-01-01", "flights/main/main", "run-1"),
        ("2013-01-02", "flights/main/main", "run-2"),
        ("2013-01-03", "flights/main/deep", "run-1"),
        ("2013-01-05", "flights/main/deep", "run-1"),
    ]
    code, out = history.run("audit", "flights", "--diet", "3")
    assert (code, "3 partitions, 30 rows" in out) == (0, True)


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
    assert [each["sequence"] for each in pruned["pruned"]] == [2]

    said = history.json("checkpoints", "fork", "flights", "--branch", "deep")
    assert [(each["chain"], each["origin"]["sequence"]) for each in said["forked"]] == [
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

    assert [(each["chain"], each["origin"] and each["origin"]["sequence"]) for each in found["forked"]] == [
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

    assert [each["origin"] and each["origin"]["sequence"] for each in found["forked"]] == [3, 2, None]
    assert of_branch(history, "hot", {}) == {"branch": "hot"}


def test_rest_of_branch_that_was_begun_by_hand(history: History, stages: Stages) -> None:
    by_hand = ["checkpoints", "fork", "flights", "--branch", "hot", "--stage", "base", "--from", "1"]
    assert history.run(*by_hand)[0] == 0
    code, said = history.run("start", "flights", "--branch", "hot")
    assert (code, "lacks fine, late, which would begin with nothing: fork it as well" in said) == (2, True)

    found = history.json("checkpoints", "fork", "flights", "--branch", "hot")

    assert [each["origin"] and each["origin"]["sequence"] for each in found["forked"]] == [1, 1, None]
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
