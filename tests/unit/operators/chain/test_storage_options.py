"""Where options for storage come from, and where they must not go."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from trainflow.authoring.dag import DAG
from trainflow.errors import InputError
from trainflow.operators import (
    CheckpointOperator,
    CommitCheckpointOperator,
    DataCheckerOperator,
    TrainContext,
    TrainOperator,
)
from trainflow.operators.chain.storage_options import checkpoint_options, sample_options, store_url, with_options
from trainflow.serialization.document import encode
from trainflow.serialization.from_dag import to_document
from trainflow.settings.load import load_settings
from trainflow.settings.model import CheckpointSettings, SampleSettings, Settings

SECRET = "hunter2-hunter2"


def test_operators_own_options_win_key_by_key() -> None:
    settings = Settings(
        checkpoints=CheckpointSettings(storage_options={"a": 1, "b": 1}),
        samples=SampleSettings(storage_options={"c": 1, "d": 1}),
    )
    assert checkpoint_options({"b": 2}, settings) == {"a": 1, "b": 2}
    assert checkpoint_options(None, settings) == {"a": 1, "b": 1}
    assert sample_options({"d": 2}, settings) == {"c": 1, "d": 2}


def test_options_may_come_from_environment(lab: Any) -> None:
    environ = {"TRAINFLOW__SAMPLES__STORAGE_OPTIONS": '{"key": "k"}'}
    settings = load_settings(lab.project, environ)
    assert with_options(lab.samples, settings).storage_options == {"key": "k"}


def test_store_with_credentials_in_its_url_is_refused() -> None:
    with pytest.raises(InputError, match=r"s3://user:\*\*\*@bucket has credentials") as caught:
        store_url(f"s3://user:{SECRET}@bucket", Settings())
    assert SECRET not in str(caught.value)


def train(ctx: TrainContext) -> None:
    assert sum(batch.num_rows for batch in ctx.split.batches()) == 10
    (ctx.output / "model").write_text("m")


def test_secrets_reach_storage_and_nothing_else(
    lab: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    used: list[tuple[str, Any]] = []
    from trainflow.operators.chain import storage_options

    real = storage_options.open_store

    def open_store(url: str, *, storage_options: Any, **others: Any) -> Any:
        used.append((url, storage_options))
        return real(url, storage_options=storage_options, **others)

    monkeypatch.setattr(storage_options, "open_store", open_store)
    lab.write_day(0)
    samples = msgspec.structs.replace(lab.samples, storage_options={"password": SECRET})

    def build() -> DAG:
        with DAG("model") as dag:
            head = CheckpointOperator(storage_options={"secret": SECRET}).output
            split = DataCheckerOperator(samples=samples, checkpoint=head).output
            trained = TrainOperator(function=train, checkpoint=head, split=split).output
            CommitCheckpointOperator(checkpoint=head, split=split, trained=trained)
        return dag

    notes = []
    for task_id in ("checkpoint", "samples", "train", "commit"):
        lab.run(build, task_id)
        notes += lab.ti.notes
    # written once, at the checkpoint task; used by all
    assert used
    assert all(options == {"secret": SECRET} for _, options in used)
    written = json.dumps([[list(key), value] for key, value in lab.xcoms.items()]) + " ".join(notes) + caplog.text
    assert SECRET not in written
    assert SECRET.encode() not in encode(to_document(build()))
    for path in lab.root.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
