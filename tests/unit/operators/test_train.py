"""TrainOperator with functions: what they are told, and what is said when they do it wrong."""

from __future__ import annotations

import errno
import math
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operators.training_runs import committed
from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.ledger_changes.manual_decisions import retry_refused
from trainflow.errors import ArtifactsRefused, FailException, InputError, TaskError
from trainflow.operators import (
    EvaluateContext,
    TrainContext,
    TrainOperator,
)
from trainflow.storage.urls import open_store
from trainflow.task_signals import TaskPreempted, TaskTerminated


def write(ctx: TrainContext, text: str = "model") -> None:
    (ctx.output / "model").write_text(text)


def test_secret_reaches_function_and_no_record(lab: Any, training: Any) -> None:
    seen: list[str] = []

    def train(ctx: Any) -> None:
        seen.append(ctx.params["api_key"])
        (ctx.output / "model").write_text("m")

    trained = lab.run(training(train, params={"api_key": "geheim"}), "train")
    assert (seen, trained["params"]) == (["geheim"], {"api_key": "***"})


def test_context_tells_everything(lab: Any, training: Any) -> None:
    seen: dict[str, Any] = {}

    def train(ctx: TrainContext) -> dict[str, float]:
        assert list(ctx.output.iterdir()) == []
        seen.update(seed=ctx.seed, params=ctx.params, parent=ctx.parent, run=ctx.run_id, root=ctx.project_root)
        ctx.progress(3, 10, "rows", loss=math.nan, auc=1)
        write(ctx)
        return {"auc": 0.75}

    build = training(train, params={"depth": 3, "layers": [1, 2]}, dag={"params": {"lr": 0.1, "depth": 1}})
    trained = lab.run(build, "train", conf={"lr": 0.5})
    assert seen["params"] == {"lr": 0.5, "depth": 3, "layers": [1, 2]}
    assert seen["parent"] is None
    assert (seen["run"], seen["root"]) == ("run-1", lab.root)
    # a loss that is no number is news
    assert lab.ti.progress == [(3.0, 10.0, "rows", pytest.approx({"loss": math.nan, "auc": 1.0}, nan_ok=True))]
    assert trained["metrics"] == {"auc": 0.75}
    assert trained["rows"] == 10
    assert trained["attempt_id"] == lab.ti.attempt_id
    assert [file["path"] for file in trained["artifacts"]["files"]] == ["model"]
    first = seen["seed"]
    lab.run(build, "train")
    assert seen["seed"] == first


def test_function_by_name_finds_module_of_project(lab: Any, training: Any) -> None:
    module = lab.root / "lab_training.py"
    module.write_text("def train(ctx):\n    (ctx.output / 'm').write_text('x')\n")
    path = list(sys.path)
    try:
        trained = lab.run(training("lab_training:train"), "train")
        assert trained["metrics"] == {}
        with pytest.raises(FailException, match="has no 'trian'; did you mean 'train'"):
            lab.run(training("lab_training:trian"), "train")
    finally:
        sys.path[:] = path
        sys.modules.pop("lab_training", None)


def test_train_without_output_fails_and_is_retried(lab: Any, training: Any) -> None:
    with pytest.raises(ArtifactsRefused, match="wrote nothing") as caught:
        lab.run(training(lambda ctx: {"auc": 1.0}), "train")
    assert not isinstance(caught.value, FailException)


def test_train_uncommittable_output_is_found_at_next_save(lab: Any, training: Any, tmp_path: Path) -> None:
    saves: list[int] = []

    def train(ctx: TrainContext) -> dict[str, float]:
        write(ctx)
        for number in (1, 2, 3):
            saves.append(number)
            if number == 2:
                (ctx.output / "latest").symlink_to(tmp_path)
            ctx.save({"row": number}, lambda folder: (folder / "w").write_text("w"), every=0)
        return {}

    with pytest.raises(FailException, match=r"latest is a link to .*, outside of the output folder") as caught:
        lab.run(training(train), "train")
    assert saves == [1, 2]
    kept = str(caught.value).rpartition("is kept in ")[2]
    assert (Path(kept) / "model").read_text() == "model"


def test_train_uncommittable_output_at_end_is_not_retried(lab: Any, training: Any) -> None:
    def train(ctx: TrainContext) -> dict[str, float]:
        write(ctx)
        os.mkfifo(ctx.output / "pipe")
        return {}

    with pytest.raises(FailException, match=r"pipe is a socket, a pipe or a device.* is kept in "):
        lab.run(training(train), "train")


def test_returning_something_else_is_error(lab: Any, training: Any) -> None:
    def train(ctx: TrainContext) -> Any:
        write(ctx)
        return 0.5

    with pytest.raises(TaskError, match=r"test_train:.*train returned float 0.5: return a dict of metrics"):
        lab.run(training(train), "train")


def test_nan_reaches_gate_and_ledger(lab: Any, training: Any) -> None:
    def train(ctx: TrainContext) -> dict[str, float]:
        write(ctx)
        return {"loss": math.nan, "auc": 0.5}

    build = training(train, commit={"gates": ["loss is finite"]})
    lab.run(build, "train")
    with pytest.raises(FailException, match="loss is finite: it is nan"):
        lab.run(build, "commit")
    ledger = Ledger(open_store("checkpoints", root=lab.root), ChainKey("model"))
    refused = ledger.state().stopped
    retry_refused(ledger, refused.id, by=Author(), now=lab.clock.now())

    build = training(train)
    lab.run(build, "train")
    lab.run(build, "commit")
    checkpoint = committed(lab)
    assert (checkpoint.metrics, checkpoint.not_finite) == ({"auc": 0.5}, {"loss": "nan"})


def test_artifacts_that_change_after_training_are_not_committed(lab: Any, training: Any) -> None:
    build = training(write)
    trained = lab.run(build, "train")
    (lab.root / "checkpoints" / trained["artifacts"]["path"] / "model").write_text("other")
    with pytest.raises(Exception, match="changed after"):
        lab.run(build, "commit")


def test_train_each_try_has_own_folder(lab: Any, training: Any) -> None:
    def dies(ctx: TrainContext) -> None:
        (ctx.output / "half").write_text("…")
        raise TaskTerminated("killed")

    with pytest.raises(TaskTerminated):
        lab.run(training(dies), "train")
    build = training(write)
    trained = lab.run(build, "train", try_number=2)
    assert [file["path"] for file in trained["artifacts"]["files"]] == ["model"]


def test_train_after_kill_resumes_and_after_clear_does_not(lab: Any, training: Any) -> None:
    found: list[Any] = []

    def train(ctx: TrainContext) -> None:
        found.append(ctx.saved and (ctx.saved.position["row"], ctx.saved.state, (ctx.saved.path / "w").read_text()))
        assert ctx.start == (ctx.saved.path if ctx.saved else None)
        batches = ctx.batches(batch_size=2)
        for batch in batches:
            save = lambda folder: (folder / "w").write_text("weights")  # noqa: E731
            ctx.save(batches.position, save, state={"rows": batch.num_rows}, every=0)
            if len(found) < 3:
                raise TaskTerminated("killed")
        write(ctx)

    build = training(train)
    for _ in range(2):
        with pytest.raises(TaskTerminated):
            lab.run(build, "train")
    # on another host, with a database that knows nothing
    shutil.rmtree(lab.project.home.path, ignore_errors=True)
    trained = lab.run(build, "train", first_started_at=lab.clock.now() + timedelta(days=1))
    assert found == [None, (2, {"rows": 2}, "weights"), (4, {"rows": 2}, "weights")]
    assert lab.ti.saved_rows == [6, 8, 10]
    assert trained["saves"]
    lab.run(build, "train", cleared_at=lab.clock.now() + timedelta(days=365))
    assert found[-1] is None


def test_train_on_full_disk_says_which_and_gives_its_room_back(
    lab: Any, training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[Path] = []

    def train(ctx: TrainContext) -> None:
        write(ctx)
        outputs.append(ctx.output)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 95, 5))  # type: ignore[attr-defined]
    with pytest.raises(TaskError, match=r"5 B of 100 B are free on the disk of .*'trainflow checkpoints sweep model'"):
        lab.run(training(train), "train")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 5, 95))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space left"):  # on another disk
        lab.run(training(train), "train")
    assert [output.exists() for output in outputs] == [False, True]


@pytest.mark.parametrize(
    ("most", "epochs", "said"),
    [
        (1, 1, "has read 3 of the 10 rows of ctx.batches"),
        (1, 2, "has read 3 of the 10"),
        (4, 2, ""),
        (4, 1, ""),
        (0, 1, ""),
    ],
)
def test_train_that_reads_a_part_of_its_rows_says_so(
    lab: Any, training: Any, most: int, epochs: int, said: str
) -> None:
    def train(ctx: TrainContext) -> None:
        for _, _batch in zip(range(most), ctx.batches(batch_size=3, epochs=epochs), strict=False):
            pass
        write(ctx)

    lab.run(training(train), "train")
    assert bool(lab.ti.notes) == bool(said)
    assert said in "".join(lab.ti.notes)


def saving(ctx: TrainContext) -> dict[str, float]:
    ctx.save({"row": 3}, lambda folder: (folder / "w").write_text("weights"), every=0)
    write(ctx)
    return {"auc": 0.5}


def partials(lab: Any) -> list[Path]:
    return list((lab.root / "checkpoints" / "model" / "main" / "main" / "partials").glob("*"))


def test_commit_clears_what_was_saved_on_way(lab: Any, training: Any) -> None:
    build = training(saving)
    lab.run(build, "train")
    assert len(partials(lab)) == 1
    lab.run(build, "commit")
    assert partials(lab) == []
    # again: it was killed before it could say so
    lab.run(build, "commit")


def test_train_remains_of_killed_commit_are_cleared_by_next(lab: Any, training: Any) -> None:
    build = training(saving)
    lab.run(build, "train")
    left = partials(lab)[0]
    copy = lab.root / "copy"
    shutil.copytree(left, copy)
    lab.run(build, "commit")
    shutil.copytree(copy, left)
    lab.xcoms.clear()

    def goes_on(ctx: TrainContext) -> None:
        assert ctx.saved is None  # it is of another training
        write(ctx)

    build = training(goes_on)
    assert lab.run(build, "train")["saves"]
    lab.run(build, "commit")
    assert partials(lab) == []


def test_train_refused_by_gate_is_not_resumed(lab: Any, training: Any) -> None:
    build = training(saving, commit={"gates": ["auc >= 2"]})
    lab.run(build, "train")
    with pytest.raises(FailException):
        lab.run(build, "commit")
    assert partials(lab) == []


@pytest.mark.parametrize("params", [{"depth": 3}, {"depth": 4}])
def test_train_with_other_params_begins_split_anew(lab: Any, training: Any, params: dict[str, Any]) -> None:
    found: list[bool] = []

    def train(ctx: TrainContext) -> dict[str, float]:
        found.append(ctx.saved is not None)
        return saving(ctx)

    lab.run(training(train, params={"depth": 3}), "train")
    lab.run(training(train, params=params), "train")
    assert found == [False, params == {"depth": 3}]


def test_train_without_saves_is_interrupted_at_once(lab: Any, training: Any) -> None:
    trained = lab.run(training(write), "train")
    assert not trained["saves"]
    assert partials(lab) == []
    assert "hold" not in lab.ti.held_stop


def test_train_told_to_stop_ends_at_next_save(lab: Any, training: Any) -> None:
    def train(ctx: TrainContext) -> None:
        lab.ti.terminated = True
        ctx.save({"row": 3}, lambda folder: (folder / "w").write_text("weights"))

    with pytest.raises(TaskPreempted, match="row 3"):
        lab.run(training(train), "train")
    assert lab.ti.held_stop == ["hold"]
    assert len(partials(lab)) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either 'function' or 'command'"),
        ({"function": "a:b", "command": ["x"]}, "either 'function' or 'command'"),
        ({"function": "a.b"}, "write 'module.path:name'"),
        ({"command": "python train.py"}, "a list of program and arguments"),
    ],
)
def test_train_wrong_arguments_are_refused_when_dag_is_made(options: Any, says: str) -> None:
    with pytest.raises(InputError, match=says), DAG("model"):
        TrainOperator(checkpoint={}, split={}, **options)


@pytest.mark.parametrize(("field", "says"), [("split", "DataCheckerOperator"), ("checkpoint", "CheckpointOperator")])
def test_train_input_of_no_operator_is_refused(lab: Any, training: Any, field: str, says: str) -> None:
    build = training(write)
    lab.xcoms.pop(("run-1", "samples" if field == "split" else "checkpoint", "return_value"))
    with pytest.raises(FailException, match=says):
        lab.run(build, "train")


def test_store_elsewhere_goes_through_scratch_and_leaves_nothing_there(lab: Any, training: Any) -> None:
    import fsspec

    lab.store = "memory://operators-test"
    texts: list[str] = []

    def train(ctx: TrainContext) -> None:
        texts.append((ctx.parent.path / "model").read_text() if ctx.parent else "none")
        write(ctx, f"model {len(texts)}")

    def evaluate(ctx: EvaluateContext) -> dict[str, float]:
        return {"length": len((ctx.parent.path / "model").read_text())}

    try:
        for _ in range(2):
            lab.xcoms.clear()
            build = training(train, evaluate=evaluate)
            for task_id in ("evaluate", "train", "commit"):
                lab.run(build, task_id)
        assert texts == ["none", "model 1"]
        assert committed(lab, lab.store).evaluation == {"length": 7.0}
        scratch = lab.project.home.scratch
        assert [path for path in scratch.rglob("*") if path.is_file()] == []
    finally:
        fsspec.filesystem("memory").store.clear()
