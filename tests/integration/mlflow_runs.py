"""Runs of a pipeline as the mirror is told of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from trainflow.tracking.deliveries import (
    RunFinished,
    TrackedChain,
    TrackedCheckpoint,
    TrackedRun,
    TrackedSplit,
)

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking.client import MlflowClient


AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


FIRST = datetime(2013, 1, 1, tzinfo=UTC)


def run_of(pipeline: str, number: int, **changes: Any) -> TrackedRun:
    run = TrackedRun(
        TrackedChain(pipeline, store="file:///c"),
        pipeline,
        f"run_{number}",
        AT + timedelta(hours=number),
        number,
        {"lr": 0.1, "db": {"password": "geheim"}},
    )
    return msgspec.structs.replace(run, **changes)


def finish_of(run: TrackedRun, **changes: Any) -> RunFinished:
    start = FIRST + timedelta(days=run.run_number - 1)
    finished = RunFinished(
        run,
        "success",
        run.started_at + timedelta(minutes=10),
        split=TrackedSplit(start, start + timedelta(days=1), 1, f"sha256:{run.run_number:064d}", 100, 2000),
        evaluation={"auc": 0.6 + run.run_number / 100},
        training={"loss": 0.3},
        checkpoint=TrackedCheckpoint(
            f"c{run.run_number}", run.run_number, f"file:///c/{run.run_number}", start + timedelta(days=1)
        ),
    )
    return msgspec.structs.replace(finished, **changes)


def runs_of(client: MlflowClient, pipeline: str, kind: str) -> list[Run]:
    experiment = client.get_experiment_by_name(pipeline)
    assert experiment is not None
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`trainflow.kind` = '{kind}'", order_by=["attributes.start_time ASC"]
    )
    return list(found)
