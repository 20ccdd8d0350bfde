"""Every key that names a metric: one that nothing has stops the chain before the commit, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from pydantic import BaseModel

from tests.simulation.memory_store import MemoryStore
from trainflow.checkpoints.commit.commit import commit
from trainflow.checkpoints.commit.commit_decision import named_metrics
from trainflow.checkpoints.commit.gates import Gate
from trainflow.checkpoints.ledger.entries import Author
from trainflow.checkpoints.ledger_changes.manual_decisions import accept
from trainflow.checkpoints.ledger_changes.promote import Promote, promote_what_was_left_out
from trainflow.checkpoints.upkeep.retention import KeepBest
from trainflow.errors import ChainStopped
from trainflow.pipeline_spec.load import load_pipeline_file
from trainflow.pipeline_spec.model import PipelineFile
from trainflow.pipeline_spec.sections import Condition
from trainflow.settings.project import project_at
from trainflow.testing.chains import ChainWriter, day

FILE = """\
pipeline: clicks
samples: {path: "data/{start:%Y-%m-%d}/", length: 1d, start: 2024-01-01}
train: {command: [train]}
KEY
"""
#: the key in a file, its name, and what it comes to
KEYS = {
    "gates": ("gates: [NAME >= 0.1]", "gates[0]"),
    "gates.require": ("gates: [{require: NAME >= 0.1, otherwise: skip}]", "gates[0]"),
    "promote.when": ("promote: {alias: champion, when: NAME >= 0.1}", "promote[0].when[0]"),
    "retention.keep_best.metric": ("retention: {keep_best: {metric: NAME}}", "retention.keep_best.metric"),
}


@pytest.fixture
def writer(tmp_path: Path) -> ChainWriter:
    return ChainWriter(MemoryStore(), tmp_path)


def requested(key: str, name: str, folder: Path) -> dict[str, Any]:
    """What the commit of a pipeline with this key asks for."""
    path = folder / "clicks.yaml"
    path.write_text(FILE.replace("KEY", KEYS[key][0].replace("NAME", name)))
    [dag] = load_pipeline_file(path, {}, project_at(folder)).dags
    task: Any = dag.get_task("commit")
    named = named_metrics(task.gates, task.promote, task.retention)
    assert [task.written_at[each.key] for each in named] == ["clicks.yaml:4"]
    return {"gates": task.gates, "promotes": task.promote, "named": named}


@pytest.mark.parametrize("key", KEYS)
def test_commit_with_metric_that_nothing_has_stops_and_can_be_accepted(
    writer: ChainWriter, tmp_path: Path, key: str
) -> None:
    asked = requested(key, "acu", tmp_path)
    with pytest.raises(ChainStopped, match=r"'trainflow resume \S+ --accept' commits it") as caught:
        writer.commit(metrics={"auc": 0.9, "loss": 1.0}, **asked)
    [reason] = caught.value.reasons
    assert reason == (
        f"{KEYS[key][1]}: there is no metric 'acu', in this run or in the chain (there are: auc, loss); "
        "did you mean 'auc'?"
    )
    stop = writer.ledger.state().stopped
    assert stop is not None
    assert stop.misnamed
    made = accept(writer.ledger, stop.id, person="me", now=day(5))
    assert made.metrics == {"auc": 0.9, "loss": 1.0}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("named", "evaluated"), [("auc", False), ("loss", False), ("gain", True)])
def test_commit_with_metric_that_something_has_passes(
    writer: ChainWriter, tmp_path: Path, key: str, named: str, evaluated: bool
) -> None:
    """What an evaluation will give is not known at the first commit; it is at the second."""
    asked, metrics = requested(key, named, tmp_path), {"auc": 0.9, "loss": 1.0}
    writer.commit(metrics=metrics, evaluated=evaluated, **asked)
    writer.commit(metrics=metrics, evaluated=evaluated, evaluation={"gain": 0.5} if evaluated else None, **asked)
    assert writer.ledger.state().head_sequence >= 2


@pytest.mark.parametrize("key", KEYS)
def test_second_commit_with_metric_that_no_evaluation_gave_stops(writer: ChainWriter, tmp_path: Path, key: str) -> None:
    asked = requested(key, "gian", tmp_path)
    writer.commit(metrics={"auc": 0.9}, evaluated=True, **asked)
    with pytest.raises(ChainStopped, match="did you mean 'gain'"):
        writer.commit(metrics={"auc": 0.9}, evaluated=True, evaluation={"gain": 0.5}, **asked)


@pytest.mark.parametrize("key", ["promote.when", "retention.keep_best.metric"])
def test_commit_without_metric_that_chain_has_passes(writer: ChainWriter, tmp_path: Path, key: str) -> None:
    """A function that reports it now and then."""
    asked = requested(key, "auc", tmp_path)
    writer.commit(metrics={"auc": 0.9}, **asked)
    writer.commit(metrics={"loss": 0.9}, **asked)


def test_stop_for_name_and_for_bad_metric_is_no_stop_for_names_alone(writer: ChainWriter) -> None:
    gates = (Gate("acu >= 0.1"), Gate("auc >= 0.5", "skip"))
    with pytest.raises(ChainStopped) as caught:
        writer.commit(metrics={"auc": 0.4}, gates=gates, named=named_metrics(gates, (), ()))
    assert caught.value.reasons[1:] == ("auc >= 0.5: it is 0.4",)
    stop = writer.ledger.state().stopped
    assert stop is not None
    assert not stop.misnamed


def test_accepted_checkpoint_gets_its_alias_once_name_is_mended(writer: ChainWriter) -> None:
    wrong, right = Promote("champion", ("acu >= 0.1",)), Promote("champion", ("auc >= 0.1",))
    with pytest.raises(ChainStopped):
        writer.commit(metrics={"auc": 0.4}, promotes=(wrong,), named=named_metrics((), [wrong], ()))
    stop = writer.ledger.state().stopped
    assert stop is not None
    accept(writer.ledger, stop.id, person="me", now=day(5))
    assert promote_what_was_left_out(writer.ledger, [right], by=Author(), now=day(6)) == ["champion"]


def test_commit_recognised_after_kill_asks_no_names(writer: ChainWriter) -> None:
    """A retry of a commit that was made before the name was written wrongly."""
    request = writer.request(metrics={"auc": 0.4})
    made = commit(writer.store, request, day(1))
    best = named_metrics((), (), [KeepBest("acu")])
    assert commit(writer.store, msgspec.structs.replace(request, named=best), day(2)) == made


def test_table_has_every_key_of_pipeline_file_that_names_metric() -> None:
    assert set(_naming(PipelineFile)) == {*KEYS} - {"gates"}


def _naming(model: type[BaseModel], at: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        name = f"{at}{key}"
        said = [*_parts(field.annotation), *field.metadata]
        if key == "metric" or any(each in said for each in get_args(Condition)[1:]):
            yield name
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and key != "stages":
                yield from _naming(part, f"{name}.")


def _parts(annotation: Any) -> list[Any]:
    inner = [part for each in get_args(annotation) for part in _parts(each)]
    return [annotation, *inner, *getattr(annotation, "__metadata__", ())]
