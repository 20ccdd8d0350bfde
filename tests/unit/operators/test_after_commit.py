"""What comes after the commit, and is not waited for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import FailException, InputError, SkipException, TaskError
from trainflow.operators import (
    AfterCommitContext,
    AfterCommitOperator,
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    Gate,
    SplitLimits,
    TrainContext,
    TrainOperator,
)
from trainflow.storage.urls import open_store

Build = Callable[[], DAG]
SEEN: list[AfterCommitContext] = []
BEFORE = ("checkpoint", "samples", "train", "commit")


def train(ctx: TrainContext) -> dict[str, float]:
    (ctx.output / "model").write_text(str(ctx.split.start.day))
    return {"auc": 0.5}


def export(ctx: AfterCommitContext) -> str:
    SEEN.append(ctx)
    return (ctx.checkpoint.path / "model").read_text()


@pytest.fixture
def chain(lab: Any) -> Callable[..., Build]:
    SEEN.clear()
    for number in range(6):
        lab.write_day(number)

    def of(commit: dict[str, Any] | None = None, **tail: Any) -> Build:
        def build() -> DAG:
            with DAG("model", params={"to": "there"}) as made:
                head = CheckpointOperator().output
                split = DataCheckerOperator(
                    samples=lab.samples, limits=SplitLimits(partitions=1), checkpoint=head
                ).output
                trained = TrainOperator(function=train, checkpoint=head, split=split).output
                committed = CommitCheckpointOperator(checkpoint=head, split=split, trained=trained, **(commit or {}))
                AfterCommitOperator(task_id="tail", checkpoint=head, committed=committed.output, **tail)
            return made

        return build

    return of


def run(lab: Any, build: Build, run_id: str) -> Any:
    return [lab.run(build, task, run_id=run_id) for task in BEFORE][-1]


def test_function_gets_checkpoint_of_its_run_whatever_came_since(lab: Any, chain: Any) -> None:
    build = chain(function=export)
    made = run(lab, build, "r1")
    run(lab, build, "r2")

    assert lab.run(build, "tail", run_id="r1") == "1"

    (ctx,) = SEEN
    assert (ctx.checkpoint.id, ctx.checkpoint.number, ctx.uri) == (made["id"], 1, made["uri"])
    assert (ctx.params, ctx.run_id, ctx.checkpoint.metrics) == ({"to": "there"}, "r1", {"auc": 0.5})


def test_command_finds_it_in_its_variables(lab: Any, chain: Any) -> None:
    program = (
        "import json, os, pathlib; e = os.environ; model = pathlib.Path(e['TRAINFLOW_CHECKPOINT'], 'model')\n"
        "told = {n[21:]: v for n, v in e.items() if n.startswith('TRAINFLOW_CHECKPOINT_')}\n"
        "pathlib.Path('told.json').write_text(json.dumps([model.read_text(), told]))"
    )
    build = chain(command=[sys.executable, "-c", program])
    made = run(lab, build, "r1")
    lab.run(build, "tail", run_id="r1")

    model, told = json.loads((lab.root / "told.json").read_text())
    assert model == "1"
    assert told == {
        "ID": made["id"],
        "NUMBER": "1",
        "WATERMARK": made["watermark"],
        "URI": made["uri"],
    }


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ([sys.executable, "-c", "print('no room'); raise SystemExit(3)"], "ended with exit code 3"),
        (["/no/such"], "cannot be started"),
    ],
)
def test_command_that_fails(lab: Any, chain: Any, command: list[str], told: str) -> None:
    build = chain(command=command)
    run(lab, build, "r1")

    with pytest.raises(TaskError, match=told):
        lab.run(build, "tail", run_id="r1")


def test_after_commit_without_commit_is_skipped(lab: Any, chain: Any) -> None:
    build = chain({"gates": [Gate("auc >= 0.6", "skip")]}, function=export)
    run(lab, build, "r1")

    with pytest.raises(SkipException, match="nothing was committed"):
        lab.run(build, "tail", run_id="r1")


def test_retention_waits_for_it(lab: Any, chain: Any) -> None:
    build = chain({"retention": KeepLatest(1)}, function=export)
    for number in range(5):
        run(lab, build, f"r{number}")

    ledger = Ledger(open_store("checkpoints", root=lab.root), ChainKey("model"))
    # the one of each run that may still be at it
    assert len(ledger.kept()) == 3


@pytest.mark.parametrize(
    "wrong", [{}, {"function": export, "command": ["true"]}, {"command": "true"}, {"function": "nowhere"}]
)
def test_function_or_command(chain: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        chain(**wrong)()


def test_after_commit_with_other_input_is_refused(lab: Any, chain: Any) -> None:
    build = chain(function=export)
    run(lab, build, "r1")
    task = build().get_task("tail")
    task.committed = {"who": "knows"}

    with pytest.raises(FailException, match="give it the output of that task"):
        task.execute({"ti": lab.attempt(task, run_id="r1")})
