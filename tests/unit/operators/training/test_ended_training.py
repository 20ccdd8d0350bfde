"""A training that ended and was killed while its files were uploaded: they are, and nothing is trained again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.memory_store import MemoryStore
from tests.unit.operators.conftest import NOW
from trainflow.checkpoints import transfers
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.commit import artifacts
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.errors import ArtifactsRefused, FailException, StoreFailure
from trainflow.identifiers import new_attempt_id
from trainflow.operators.training.training_context import TrainContext

FILES = {"a": b"first", "b": b"second", "c": b"third"}


class Killed(BaseException):
    """The process is gone."""


class Bucket(MemoryStore):
    """Takes `takes` files (None: all), then raises `error`."""

    def __init__(self) -> None:
        super().__init__("s3://bucket/checkpoints", remote=True)
        self.takes: int | None = None
        self.error: BaseException = Killed()
        self.taken: list[str] = []

    def put_file(self, source: Path, path: str) -> None:
        if self.takes is not None and len(self.taken) == self.takes:
            raise self.error
        super().put_file(source, path)
        self.taken.append(path)

    def cut(self, takes: int, error: BaseException) -> None:
        self.taken.clear()
        self.takes, self.error = takes, error

    def mend(self) -> None:
        self.taken.clear()
        self.takes = None


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    store = Bucket()
    monkeypatch.setattr("trainflow.operators.chain.storage_options.open_store", lambda *_, **__: store)
    monkeypatch.setattr(transfers, "SMALL_FILE_BYTES", 0)
    return store


class Trainer:
    """Writes the files; how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, ctx: TrainContext) -> dict[str, float]:
        self.calls += 1
        for name, data in FILES.items():
            (ctx.output / name).write_bytes(data)
        return {"loss": float(self.calls), "auc": float("nan")}


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def cut_short(lab: Any, training: Any, bucket: Bucket, trainer: Trainer) -> Callable[..., Any]:
    """A training of which the upload is cut short after the first file: its DAG."""

    def made(error: BaseException) -> Any:
        build = training(trainer)
        bucket.cut(1, error)
        with pytest.raises(type(error)):
            run(lab, build)
        bucket.mend()
        return build

    return made


def run(lab: Any, build: Any, **facts: Any) -> Any:
    return lab.run(build, "train", attempt_id=new_attempt_id(lab.clock.now()), **facts)


@pytest.mark.parametrize("error", [Killed(), StoreFailure("away", location="s3://bucket")], ids=["killed", "away"])
def test_upload_goes_on_where_it_was_cut_short(
    lab: Any, bucket: Bucket, trainer: Trainer, cut_short: Any, error: BaseException
) -> None:
    build = cut_short(error)

    trained = run(lab, build)

    assert trainer.calls == 1
    assert [path.rpartition("/")[2] for path in bucket.taken] == ["b", "c"]
    assert (trained["metrics"]["loss"], trained["metrics"]["auc"]) == (1.0, "nan")
    folder = trained["artifacts"]["path"]
    assert {path.rpartition("/")[2]: data for path, data in bucket.contents.items() if folder in path} == FILES

    lab.run(build, "commit")
    assert Ledger(bucket, ChainKey("model")).checkpoint().artifacts.path == folder
    assert list(lab.project.home.local_saves.iterdir()) == []
    assert [path for path in lab.project.home.attempts_scratch.rglob("*") if path.is_file()] == []


def test_outcome_that_was_not_heard_costs_no_second_upload(
    lab: Any, training: Any, bucket: Bucket, trainer: Trainer
) -> None:
    build = training(trainer)
    first = run(lab, build)
    bucket.taken.clear()

    again = run(lab, build)

    assert (trainer.calls, bucket.taken) == (1, [])
    assert again["artifacts"] == first["artifacts"]


@pytest.mark.parametrize("change", ["output", "cleared", "another run", "samples", "gone from the store"])
def test_what_is_another_training_is_trained(
    lab: Any, training: Any, bucket: Bucket, trainer: Trainer, cut_short: Any, change: str
) -> None:
    build = cut_short(Killed())
    facts: dict[str, Any] = {}
    match change:
        case "output":
            [path] = lab.project.home.attempts_scratch.glob("*/output/b")
            path.write_bytes(b"anothe")
        case "cleared":
            facts["cleared_at"] = NOW + timedelta(days=1)
        case "another run":
            for task_id in ("checkpoint", "samples"):
                lab.run(build, task_id, run_id="run-2")
            facts["run_id"] = "run-2"
        case "samples":
            lab.write_day(0, rows=11)
            lab.run(build, "samples")
        case "gone from the store":
            run(lab, build)
            for path in bucket.taken:
                bucket.delete(path)

    run(lab, build, **facts)

    assert trainer.calls == 2


def test_output_that_is_refused_is_not_remembered(lab: Any, training: Any, bucket: Bucket) -> None:
    calls: list[int] = []

    def train(ctx: TrainContext) -> None:
        calls.append(1)
        if len(calls) > 1:
            (ctx.output / "model").write_bytes(b"m")

    build = training(train)
    with pytest.raises(ArtifactsRefused, match="wrote nothing"):
        run(lab, build)

    run(lab, build)

    assert len(calls) == 2


@pytest.mark.usefixtures("bucket")
def test_output_of_an_earlier_attempt_that_can_never_be_committed_is_named(
    lab: Any, training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Path] = []

    def train(ctx: TrainContext) -> None:
        left.append(ctx.output)
        (ctx.output / "link").symlink_to("/etc/hostname")

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    build = training(train)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(artifacts, "seal", killed)
        run(lab, build)

    with pytest.raises(FailException) as refused:
        run(lab, build)

    assert len(left) == 1
    assert str(refused.value).endswith(f"is kept in {left[0]}")
    assert (left[0] / "link").is_symlink()
