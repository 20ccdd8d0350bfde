"""A whole run of a chain, operator by operator, over real Parquet partitions and a real local store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trainflow.authoring.dag import DAG
from trainflow.checkpoints.chain import ChainKey
from trainflow.checkpoints.ledger.entries import SupersededAttempt
from trainflow.checkpoints.ledger.ledger_writer import Ledger
from trainflow.checkpoints.stages.dependents import register_origin
from trainflow.checkpoints.upkeep.retention import KeepLatest
from trainflow.errors import FailException, InputError, LedgerCorrupt, RestartException, SkipException
from trainflow.messages.execution_api import EarlierAttempt
from trainflow.operators import (
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    EvaluateContext,
    EvaluateOperator,
    SplitLimits,
    TrainContext,
    TrainOperator,
    TriggerDagRunOperator,
)
from trainflow.storage.local import LocalStore
from trainflow.storage.urls import open_store

TASKS = ("checkpoint", "samples", "evaluate", "train", "commit", "next")


def train(ctx: TrainContext) -> dict[str, float]:
    """The "model" is the list of ids it was trained on."""
    seen = json.loads((ctx.parent.path / "model.json").read_text()) if ctx.parent else []
    for batch in ctx.split.batches(batch_size=4, seed=ctx.seed):
        seen += batch["id"].to_pylist()
        ctx.progress(len(seen), ctx.split.rows, loss=1.0)
    (ctx.output / "model.json").write_text(json.dumps(seen))
    return {"rows_seen": len(seen), "scale": ctx.params["scale"]}


def evaluate(ctx: EvaluateContext) -> dict[str, float]:
    seen = set(json.loads((ctx.parent.path / "model.json").read_text()))
    new = [row for batch in ctx.batches() for row in batch["id"].to_pylist()]
    return {"already_seen": float(len(seen & set(new)))}


@pytest.fixture
def pipeline(lab: Any) -> Any:
    """Builds the DAG of a chain over the lab's samples; keywords go to the operators."""

    def with_options(**options: Any) -> Any:
        def build() -> DAG:
            with DAG("model", params={"scale": 2.0}, max_active_runs=1) as dag:
                checkpoint = CheckpointOperator(**options.get("checkpoint", {}))
                samples = DataCheckerOperator(
                    samples=lab.samples,
                    limits=SplitLimits(partitions=2),
                    checkpoint=checkpoint.output,
                    **options.get("samples", {}),
                )
                handed = {"checkpoint": checkpoint.output, "split": samples.output}
                evaluated = EvaluateOperator(function=evaluate, **handed)
                trained = TrainOperator(**{"function": train, **handed, **options.get("train", {})})
                evaluated >> trained
                commit = CommitCheckpointOperator(
                    trained=trained.output, evaluated=evaluated.output, **handed, **options.get("commit", {})
                )
                commit >> TriggerDagRunOperator(task_id="next", trigger_dag_id="model")
            return dag

        return build

    return with_options


def run_all(lab: Any, build: Any, run_id: str) -> None:
    for task_id in TASKS:
        lab.run(build, task_id, run_id=run_id)


def ledger_of(lab: Any) -> Ledger:
    return Ledger(open_store("checkpoints", root=lab.root), ChainKey("model"))


def model_of(lab: Any, checkpoint: Any) -> list[int]:
    ids: list[int] = json.loads((lab.root / "checkpoints" / checkpoint.artifacts.path / "model.json").read_text())
    return ids


def test_chain_trains_every_row_once_in_order_of_partitions(lab: Any, pipeline: Any) -> None:
    for day in range(5):
        lab.write_day(day)
    build = pipeline()
    for number in range(3):
        run_all(lab, build, f"run-{number}")

    line = ledger_of(lab).line()
    assert [summary.watermark.day for summary in line] == [3, 5, 6]
    head = ledger_of(lab).checkpoint()
    expected = {day * 1000 + row for day in range(5) for row in range(10)}
    ids = model_of(lab, head)
    assert len(ids) == 50
    assert set(ids) == expected
    # the split of the second run was scored by the first checkpoint, which had seen none of it
    second = ledger_of(lab).checkpoint(line[1].id)
    assert second.evaluation == {"already_seen": 0.0}
    assert second.metrics == {"rows_seen": 40.0, "scale": 2.0}
    assert second.params == {"scale": 2.0}
    assert second.by.run_id == "run-1"


def test_chain_first_run_has_no_parent_and_skips_nothing(lab: Any, pipeline: Any) -> None:
    lab.write_day(0)
    build = pipeline()
    lab.run(build, "checkpoint")
    lab.run(build, "samples")
    assert lab.run(build, "evaluate") is None
    lab.run(build, "train")
    lab.run(build, "commit")
    assert ledger_of(lab).checkpoint().evaluation == {}


def test_caught_up_ends_skipped_with_note_and_xcom(lab: Any, pipeline: Any) -> None:
    lab.write_day(0)
    build = pipeline()
    run_all(lab, build, "run-0")
    lab.run(build, "checkpoint", run_id="run-1")
    with pytest.raises(SkipException):
        lab.run(build, "samples", run_id="run-1")
    assert lab.ti.notes[-1].startswith("caught up at 2013-01-02T00:00Z: ")
    assert lab.xcoms["run-1", "samples", "caught_up"] is True
    assert ("run-1", "samples", "return_value") not in lab.xcoms


def test_chain_every_task_is_repeatable(lab: Any, pipeline: Any) -> None:
    for day in range(4):
        lab.write_day(day)
    build = pipeline()
    for number in range(2):
        for task_id in TASKS:
            # killed right before its outcome was applied, then tried again by another attempt
            lab.run(build, task_id, run_id=f"run-{number}")
            lab.run(build, task_id, run_id=f"run-{number}")

    line = ledger_of(lab).line()
    assert [summary.watermark.day for summary in line] == [3, 5]
    assert len(model_of(lab, ledger_of(lab).checkpoint())) == 40


def test_commit_again_gives_same_checkpoint(lab: Any, pipeline: Any) -> None:
    lab.write_day(0)
    build = pipeline()
    for task_id in TASKS[:4]:
        lab.run(build, task_id)
    first = lab.run(build, "commit")
    # the task was cleared together with the training: other artifacts, same run, same parent
    lab.run(build, "train")
    assert lab.run(build, "commit") == first
    assert first["number"] == 1
    assert first["watermark"] == "2013-01-02T00:00:00+00:00"


def test_chain_second_run_on_same_head_loses(lab: Any, pipeline: Any) -> None:
    lab.write_day(0)
    build = pipeline()
    for task_id in TASKS[:4]:
        lab.run(build, task_id, run_id="zombie")
    run_all(lab, build, "winner")
    head = ledger_of(lab).checkpoint()
    with pytest.raises(FailException, match="Nothing was changed"):
        lab.run(build, "commit", run_id="zombie")
    assert ledger_of(lab).checkpoint() == head


def test_retention_prunes_after_commit(lab: Any, pipeline: Any) -> None:
    for day in range(6):
        lab.write_day(day)
    build = pipeline(commit={"retention": KeepLatest(1)})
    for number in range(3):
        run_all(lab, build, f"run-{number}")
    state = ledger_of(lab).state()
    assert [summary.id for summary in state.recent] == [state.head.id]
    files = (lab.root / "checkpoints/model/main/main/artifacts").iterdir()
    kept = [path.name for path in files if path.is_dir()]
    assert kept == [state.head.id]


def test_retention_that_fails_does_not_fail_commit(lab: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(4):
        lab.write_day(day)
    build = pipeline(commit={"retention": [KeepLatest(1)]})
    run_all(lab, build, "run-0")

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk on fire")

    for task_id in TASKS[:4]:
        lab.run(build, task_id, run_id="run-1")
    monkeypatch.setattr("trainflow.checkpoints.ledger_changes.prune.prune", broken)
    lab.run(build, "commit", run_id="run-1")
    assert "retention could not be applied: OSError: disk on fire" in lab.ti.notes[-1]
    assert ledger_of(lab).checkpoint().by.run_id == "run-1"


def test_retention_that_finds_corrupt_ledger_fails(lab: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write_day(0)
    build = pipeline(commit={"retention": [KeepLatest(1)]})

    def corrupt(*args: Any, **kwargs: Any) -> None:
        ledger = ledger_of(lab)
        raise LedgerCorrupt("entry 3 is missing", location=ledger.store.uri(ledger.chain.entry(3)))

    for task_id in TASKS[:4]:
        lab.run(build, task_id, run_id="run-1")
    monkeypatch.setattr("trainflow.checkpoints.ledger_changes.prune.prune", corrupt)
    with pytest.raises(LedgerCorrupt):
        lab.run(build, "commit", run_id="run-1")


@pytest.mark.parametrize("entry", [b'{"kind":"later"}', b"torn"])
def test_chain_goes_on_where_ledger_of_another_that_follows_it_cannot_be_read(
    lab: Any, pipeline: Any, entry: bytes
) -> None:
    """It was written by a newer trainflow, or is damaged: that is the business of who trains it."""
    for day in range(4):
        lab.write_day(day)
    build = pipeline(commit={"retention": [KeepLatest(1)]})
    run_all(lab, build, "run-0")
    other, store = ChainKey("other"), ledger_of(lab).store
    register_origin(store, ChainKey("model"), other)
    store.create_exclusive(other.entry(1), entry)

    for task_id in TASKS[:5]:
        lab.run(build, task_id, run_id="run-1")

    assert "retention could not be applied: ledger entry" in lab.ti.notes[-1]
    assert [each.number for each in ledger_of(lab).kept()] == [1, 2]


def test_next_is_pure_function_of_run(lab: Any, pipeline: Any) -> None:
    build = pipeline()
    ids = []
    for _ in range(2):
        lab.run(build, "next", run_id="run-7")
        [(run, now)] = lab.ti.triggered
        assert not now
        ids.append(run.run_id)
    lab.run(build, "next", run_id="run-8")
    ids.append(lab.ti.triggered[0][0].run_id)
    assert ids[0] == ids[1] != ids[2]
    assert lab.xcoms["run-7", "next", "trigger_run_id"] == ids[0]


def test_document_of_chain(pipeline: Any, lab: Any) -> None:
    from trainflow.serialization.from_dag import to_document

    document = to_document(pipeline()())
    assert document.chain is not None
    assert (document.chain.pipeline, document.chain.stage, document.chain.branch) == ("model", "main", "main")
    assert document.chain.samples == lab.samples
    assert document.chain.limits == SplitLimits(partitions=2)
    assert document.chain.mode == "backfill"
    assert [task.task_id for task in document.tasks] == list(TASKS)
    assert document == to_document(pipeline()())


def test_watermark_is_in_head(lab: Any, pipeline: Any) -> None:
    lab.write_day(0)
    lab.write_day(1)
    build = pipeline()
    run_all(lab, build, "run-0")
    head = lab.run(build, "checkpoint", run_id="run-1")
    assert datetime.fromisoformat(head["watermark"]) == datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=2)
    assert head["store"] == "checkpoints"
    assert head["uri"] == str(lab.root / "checkpoints/model/main/main/artifacts" / head["id"])
    assert json.loads(json.dumps(head)) == head


def test_store_that_cannot_fence_is_refused_before_anything_is_trained(
    lab: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrites(self: LocalStore, path: str, data: bytes) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)

    monkeypatch.setattr(LocalStore, "create_exclusive", overwrites)
    with pytest.raises(FailException, match="created the same file twice"):  # for good: it will not learn to
        lab.run(pipeline(), "checkpoint")


def test_chain_on_store_that_cannot_fence_is_refused_on_reading() -> None:
    with DAG("d"), pytest.raises(InputError, match="ftp:// cannot create a file only if it is absent"):
        CheckpointOperator(store="ftp://models.example/store")


def test_chain_refuses_commit_of_other_split(lab: Any, pipeline: Any) -> None:
    """A person lets the split be chosen again, and not the training."""
    build = pipeline()
    lab.write_day(0)
    for task_id in ("checkpoint", "samples", "evaluate", "train"):
        lab.run(build, task_id)
    lab.write_day(1)
    lab.run(build, "samples")

    with pytest.raises(FailException, match="clear the whole run"):
        lab.run(build, "commit")
    assert ledger_of(lab).state().head is None

    lab.run(build, "train")
    lab.run(build, "commit")
    assert ledger_of(lab).state().head is not None


def test_commit_names_attempts_whose_place_others_took(lab: Any, pipeline: Any) -> None:
    lab.write_day(0)
    build = pipeline()
    for task_id in ("checkpoint", "samples"):
        lab.run(build, task_id)
    lost = EarlierAttempt("lost-1", "lost", "gpu7")
    lab.run(build, "train", attempt_id="ended", earlier_attempts=[lost])
    # the second found what the first had trained to its end
    xcom = lab.xcoms["run-1", "train", "return_value"]
    assert xcom["artifacts"]["path"].endswith("/ended")
    xcom["superseded"].append({"attempt_id": "ended", "task_id": "train", "outcome": "lost"})
    lab.run(build, "commit", earlier_attempts=[EarlierAttempt("lost-2", None, None)])

    assert ledger_of(lab).checkpoint().superseded == [
        SupersededAttempt("lost-1", "train", "lost", "gpu7"),
        SupersededAttempt("lost-2", "commit"),
    ]


@pytest.mark.parametrize(
    ("reader", "maker", "change"),
    [
        ("samples", "checkpoint", lambda value: value.pop("number")),
        ("train", "samples", lambda value: value.update(format="trainflow.split/2")),
        ("train", "samples", lambda value: value["split"].pop("partitions")),
        ("commit", "train", lambda value: value["artifacts"].pop("files")),
    ],
)
def test_task_handed_what_another_version_made_has_it_made_again(
    lab: Any, pipeline: Any, reader: str, maker: str, change: Any
) -> None:
    lab.write_day(0)
    build = pipeline()
    for task_id in TASKS[: TASKS.index(reader)]:
        lab.run(build, task_id)
    [value] = [value for key, value in lab.xcoms.items() if maker in key and "return_value" in key]
    change(value)

    with pytest.raises(RestartException, match="by another version of trainflow, and cannot be read") as caught:
        lab.run(build, reader)

    assert caught.value.task_id == maker


@pytest.mark.parametrize(
    ("ahead", "refused"),
    [
        ({"waits": "base has trained up to nothing yet"}, "base has trained up to nothing yet"),
        (
            {
                "upstream": {"pipeline": "p", "stage": "base", "branch": "main"},
                "candidates": [{"id": "c", "number": 1, "watermark": "2013-01-01T00:00:00Z"}],
                "bounded": True,
            },
            "no checkpoint of p/base/main that it may start from has reached 2013-01-02",
        ),
    ],
)
def test_split_that_was_decided_for_another_head_is_not_trained(
    lab: Any, pipeline: Any, ahead: dict[str, Any], refused: str
) -> None:
    """The checkpoint task was cleared alone, and what the stage starts from is another checkpoint now, or none yet."""
    lab.write_day(0)
    build = pipeline()
    for task_id in TASKS[: TASKS.index("train")]:
        lab.run(build, task_id)
    [head] = [value for key, value in lab.xcoms.items() if "checkpoint" in key and "return_value" in key]
    head.update(ahead)

    with pytest.raises(RestartException, match=refused) as caught:
        lab.run(build, "train")

    assert caught.value.task_id == "samples"
