"""The commands about chains, where a file trains several: all of them, or the one that is chosen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.support.command_line import CommandLine
from trainflow.actions.dags import read_into_database
from trainflow.checkpoints.chain import ChainKey
from trainflow.clock import SystemClock
from trainflow.settings.project import Project
from trainflow.storage.local import LocalStore
from trainflow.testing.chains import START, ChainWriter
from trainflow.workspace.workspace import open_workspace

YAML = """
pipeline: p
samples:
  {path: "d/{start:%Y-%m-%d}/", length: 1d, start: 2013-01-01, end: 2014-01-01, ready: {min_files: 1}, files: "*"}
split: {partitions: 2}
train: {command: ["true"]}
stages:
  base:
  fine: {init_from: {stage: base}}
"""


class Stages(CommandLine):
    """Six days, a base that has trained four of them and a fine-tune that has trained one."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(project, capsys)
        for number in range(6):
            folder = project.root / "d" / f"{START + timedelta(days=number):%Y-%m-%d}"
            folder.mkdir(parents=True)
            (folder / "samples").write_text("x")
        store = LocalStore(project.root / "checkpoints")
        self.base = ChainWriter(store, project.root / "scratch" / "b", ChainKey("p", "base"))
        self.fine = ChainWriter(store, project.root / "scratch" / "f", ChainKey("p", "fine"))
        self.base.commit(days=1)
        self.base.commit(days=3)
        self.fine.commit(days=1)


@pytest.fixture
def stages(inside: Callable[..., Stages]) -> Stages:
    return inside(Stages, {"pipelines/p.yaml": YAML})


def test_plan_of_stages_shows_each_as_far_as_its_base(stages: Stages) -> None:
    base, fine = stages.json("plan", "p")["chains"]
    assert [(run["start"][:10], run["end"][:10]) for run in base["runs"]] == [("2013-01-05", "2013-01-07")]
    assert [(run["start"][:10], run["end"][:10]) for run in fine["runs"]] == [
        ("2013-01-02", "2013-01-04"),
        ("2013-01-04", "2013-01-05"),
    ]
    assert "the upstream has come to 2013-01-05T00:00Z" in fine["reason"]
    one = stages.json("plan", "p", "--stage", "fine")
    assert (one["stage"], one["chains"]) == ("fine", [fine | {"finish_at": one["finish_at"]}])
    assert "p/base/main" in stages.said("plan", "p")


def test_plan_of_stage_that_waits(stages: Stages) -> None:
    stages.fine.commit(days=3)
    fine = stages.json("plan", "p", "--stage", "fine")
    assert (fine["outcome"], fine["runs"]) == ("waiting", [])
    assert fine["reason"].startswith("waits for stage base, which has no checkpoint beyond 2013-01-05T00:00Z")
    assert "then waits: for stage base, which has no checkpoint" in stages.said("plan", "p", "--stage", "fine")


def test_audit_proves_every_chain_and_fails_when_one_is_wrong(stages: Stages) -> None:
    assert [chain["stage"] for chain in stages.json("audit", "p", "--no-samples")["chains"]] == ["base", "fine"]
    file = next((stages.root / "checkpoints/p/fine/main/artifacts").rglob("*.bin"))
    file.write_bytes(b"something else")
    report = stages.json("audit", "p", "--no-samples", code=1)
    assert [(chain["stage"], chain["ok"]) for chain in report["chains"]] == [("base", True), ("fine", False)]
    assert stages.json("audit", "p", "--no-samples", "--stage", "base")["ok"] is True
    stages.json("audit", "p", "--no-samples", "--stage", "fine", code=1)


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (["checkpoints", "list", "p"], ["base", "base", "fine"]),
        (["checkpoints", "ledger", "p"], ["base", "base", "fine"]),
        (["samples", "list", "p", "--to", "2013-01-03"], ["base", "base", "fine", "fine"]),
    ],
)
def test_listing_shows_every_stage(stages: Stages, command: list[str], rows: list[str]) -> None:
    assert [(row["pipeline"], row["stage"], row["branch"]) for row in stages.json(*command)] == [
        ("p", stage, "main") for stage in rows
    ]
    shown = stages.said(*command).splitlines()
    assert {line.split()[0] for line in shown if not line.startswith("STAGE")} == {"base", "fine"}
    one = stages.json(*command, "--stage", "fine")
    assert [row["stage"] for row in one] == [stage for stage in rows if stage == "fine"]
    assert not any(line.startswith(("STAGE", "fine")) for line in stages.said(*command, "--stage", "fine").splitlines())


def test_verify_and_prune_go_through_every_stage(stages: Stages) -> None:
    heads = stages.json("checkpoints", "verify", "p")["checkpoints"]
    assert [(each["stage"], each["number"]) for each in heads] == [("base", 2), ("fine", 1)]
    assert len(stages.json("checkpoints", "verify", "p", "--all")["checkpoints"]) == 3
    assert "base  checkpoint 2  intact  1 file, " in stages.said("checkpoints", "verify", "p")
    assert "no retention is set" in stages.said("checkpoints", "prune", "p", code=2)
    stages.fine.commit(days=1)
    pruned = stages.json("checkpoints", "prune", "p", "--keep-latest", "1", "--dry-run")["pruned"]
    assert [(each["stage"], each["number"]) for each in pruned] == [("base", 1), ("fine", 1)]


def test_checkpoint_commands_of_several_stages_ask_which_stage(stages: Stages) -> None:
    for command in (["checkpoints", "show", "p"], ["checkpoints", "verify", "p", "1"]):
        said = stages.said(*command, code=2)
        assert "p.base (p/base/main), p.fine (p/fine/main); choose with --stage" in said
    assert len(stages.json("checkpoints", "list", "p", "--stage", "base")) == 2
    assert len(stages.json("checkpoints", "list", "p.fine")) == 1
    assert len(stages.json("samples", "list", "p", "--stage", "fine", "--to", "2013-01-07")) == 6


def test_branch_of_stage_that_only_store_knows(stages: Stages) -> None:
    ChainWriter(stages.base.store, stages.root / "scratch" / "x", ChainKey("p", "fine", "trial")).commit(days=1)
    assert len(stages.json("checkpoints", "list", "p", "--stage", "fine", "--branch", "trial")) == 1


def test_branch_is_trained_when_every_stage_was_forked(stages: Stages) -> None:
    stages.said("checkpoints", "fork", "p", "--stage", "base", "--from", "1", "--branch", "trial")
    said = stages.said("start", "p", "--branch", "trial", code=2)
    assert "branch 'trial' of pipelines/p.yaml lacks fine" in said
    assert "trainflow checkpoints fork p --branch trial" in said


def test_status_and_why_say_what_stage_waits_for(stages: Stages) -> None:
    with open_workspace() as workspace:
        read_into_database(workspace, stages.root / "pipelines/p.yaml", SystemClock().now())
    base, fine = stages.json("status", "p")["pipelines"]
    assert (base["stage"], base["waits"], base["lag"]) == ("base", None, 2)
    assert (fine["stage"], fine["waits"], fine["lag"]) == ("fine", None, 5)
    stages.fine.commit(days=3)
    _, fine = stages.json("status", "p")["pipelines"]
    assert fine["waits"].startswith("waits for stage base")
    said = stages.said("why", "p.fine")
    assert said.startswith("p.fine: no run of it is in this home: it waits for stage base, which has no checkpoint")
