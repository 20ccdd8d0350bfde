"""What the tasks of one run ask of a store in the network, counted: a request that is not needed is money and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.simulation.memory_store import MemoryStore
from trainflow.authoring.dag import DAG
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import FailException, StoreFailure
from trainflow.operators.checkpoint import CheckpointOperator
from trainflow.operators.commit import CommitCheckpointOperator
from trainflow.operators.data_checker import DataCheckerOperator
from trainflow.operators.evaluate import EvaluateOperator
from trainflow.operators.train import TrainOperator
from trainflow.operators.training.training_context import EvaluateContext, TrainContext
from trainflow.samples.spec import SplitLimits
from trainflow.settings.home import Home
from trainflow.settings.project import Project
from trainflow.storage.errors import failure
from trainflow.testing.faulty_store import FaultyStore

#: what each of them asks once the chain has checkpoints, by the methods of the store
STEADY = {
    "checkpoint": {"files_if_few": 1},
    "samples": {},
    "evaluate": {},
    "train": {"put_file": 1},
    "commit": {"files_if_few": 1, "create_exclusive": 1, "replace": 1, "seal": 1},
}
#: `files`: once the prune is recorded, the chains that are about to begin with what it would delete
PRUNE = {"files_if_few": 1, "create_exclusive": 1, "replace": 1, "files": 1, "delete_many": 1}
#: answered from copies on this machine, or without a request
FREE = {"read_many", "read_digested"}


def train(ctx: TrainContext) -> dict[str, float]:
    (ctx.output / "model").write_text(str(ctx.split.start))
    return {"loss": 1.0}


def evaluate(ctx: EvaluateContext) -> dict[str, float]:
    assert (ctx.parent.path / "model").is_file()  # type: ignore[union-attr]
    return {"loss": 1.0}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """What the store in the network was asked since the last time."""
    inner, opened = MemoryStore("s3://bucket/checkpoints", remote=True), list[FaultyStore]()

    def open_store(*_: Any, **__: Any) -> FaultyStore:
        opened.append(FaultyStore(inner))
        return opened[-1]

    def counted() -> Counter[str]:
        found = Counter(name for store in opened for name in store.calls if name not in FREE)
        opened.clear()
        return found

    monkeypatch.setattr("trainflow.operators.chain.storage_options.open_store", open_store)
    return counted


@pytest.mark.parametrize("keep", [1, 100])
def test_run_of_a_chain_asks_for_no_more_than_it_needs(training: Any, lab: Any, asked: Any, keep: int) -> None:
    build = training(train, evaluate=evaluate, commit={"retention": KeepLatest(keep)})
    for number in range(4):
        lab.write_day(number)
        asked()
        found = {}
        for task in STEADY:
            lab.run(build, task, run_id=f"run-{number}", first_attempt=True)
            found[task] = asked()
    pruning = Counter(PRUNE if keep == 1 else {})
    assert found == {**STEADY, "commit": Counter(STEADY["commit"]) + pruning}


def test_host_that_takes_turns_with_another_one_fetches_what_that_made_and_no_more(
    training: Any, lab: Any, asked: Any
) -> None:
    build = training(train, evaluate=evaluate)
    fetched = []
    for number, host in enumerate("aabbaa"):
        lab.write_day(number)
        lab.project = Project(lab.root, Home(lab.root / host))
        asked()
        for task in STEADY:
            lab.run(build, task, run_id=f"run-{number}", first_attempt=True)
        fetched.append(asked()["get_file"])
    assert fetched == [0, 0, 1, 0, 1, 0]


def stage_of(lab: Any, stage: str, **options: Any) -> Callable[[], DAG]:
    def build() -> DAG:
        with DAG(f"model.{stage}") as made:
            head = CheckpointOperator(pipeline="model", stage=stage, **options).output
            limits = SplitLimits(partitions=1)
            split = DataCheckerOperator(samples=lab.samples, limits=limits, checkpoint=head).output
            trained = TrainOperator(function=train, checkpoint=head, split=split).output
            evaluated = EvaluateOperator(function=evaluate, checkpoint=head, split=split).output
            CommitCheckpointOperator(
                checkpoint=head, split=split, trained=trained, evaluated=evaluated, retention=KeepLatest(1)
            )
        return made

    return build


def test_run_of_a_stage_looks_at_its_upstream_once(lab: Any, asked: Any) -> None:
    base, mobile = stage_of(lab, "base"), stage_of(lab, "mobile", init_from={"stage": "base"})
    found: dict[str, dict[str, Counter[str]]] = {}
    for number in range(4):
        lab.write_day(number)
        for name, build in (("base", base), ("mobile", mobile)):
            asked()
            for task in STEADY:
                lab.run(build, task, run_id=f"run-{number}", dag_id=f"model.{name}", first_attempt=True)
                found.setdefault(name, {})[task] = asked()
    looks = {"files_if_few": 1, "first_files_after": 1}
    commit = Counter(STEADY["commit"]) + Counter(PRUNE)
    assert found["mobile"] == {**STEADY, "checkpoint": looks, "commit": commit}
    # what the other stage goes on from is looked at before something is deleted, and before its files are
    assert found["base"] == {**STEADY, "commit": commit + Counter({"first_files_after": 2})}


@pytest.mark.parametrize("spoiled", [b"", b"other bytes"])
def test_file_spoiled_in_the_cache_is_fetched_from_the_store(
    training: Any, lab: Any, asked: Any, spoiled: bytes
) -> None:
    build = training(train, evaluate=evaluate)
    for task in STEADY:
        lab.run(build, task)
    [kept] = lab.project.home.artifact_cache.iterdir()
    kept.chmod(0o644)
    kept.write_bytes(spoiled)
    lab.write_day(1)
    asked()
    for task in STEADY:
        lab.run(build, task, run_id="run-2")
    assert asked()["get_file"] == 1


def test_train_that_was_begun_before_looks_for_saves(training: Any, lab: Any, asked: Any) -> None:
    build = training(train)
    asked()
    lab.run(build, "train", first_attempt=False)
    assert asked() == {"files_if_few": 1, "put_file": 1}


def test_warming_up_imports_what_reaches_the_stores_with_their_options(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that is not imported by the warm process is imported by every attempt of every run."""
    loaded: list[tuple[str, dict[str, Any]]] = []
    for module in ("checkpoint", "data_checker"):
        monkeypatch.setattr(
            f"trainflow.operators.{module}.load_before_fork", lambda url, options: loaded.append((url, dict(options)))
        )
    (lab.root / "configs").mkdir(exist_ok=True)
    (lab.root / "configs" / "trainflow.toml").write_text(
        '[checkpoints.storage_options]\nendpoint_url = "http://a"\n[samples.storage_options]\nanon = true\n'
    )
    samples = msgspec.structs.replace(lab.samples, path="s3://rows/{start:%Y-%m-%d}", storage_options={"key": "k"})
    with DAG("model"):
        head = CheckpointOperator(pipeline="model", store="gs://bucket/x", storage_options={"token": "anon"})
        checker = DataCheckerOperator(samples=samples, checkpoint=head.output)
    head.warm_up(lab.root)
    checker.warm_up(lab.root)
    assert loaded == [
        ("gs://bucket/x", {"endpoint_url": "http://a", "token": "anon"}),
        ("s3://rows/{start:%Y-%m-%d}", {"anon": True, "key": "k"}),
    ]


@pytest.mark.parametrize(
    ("refused", "raised"), [(PermissionError("AccessDenied"), FailException), (TimeoutError("slow"), StoreFailure)]
)
def test_store_that_lets_nothing_be_created_is_told_without_another_try(
    training: Any, lab: Any, asked: Any, monkeypatch: pytest.MonkeyPatch, refused: Exception, raised: type[Exception]
) -> None:
    """Credentials that may list and not write pass what `start` asks; another try in a while changes nothing."""

    def create(store: MemoryStore, path: str, data: bytes) -> None:
        raise failure("create", path, refused)

    monkeypatch.setattr(MemoryStore, "create_exclusive", create)
    with pytest.raises(raised, match="cannot be created"):
        lab.run(training(train), "checkpoint", first_attempt=True)
