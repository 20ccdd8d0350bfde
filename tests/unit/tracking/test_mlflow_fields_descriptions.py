"""What MLflow's page says of a run in words."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import msgspec

from trainflow.tracking import mlflow_fields
from trainflow.tracking.deliveries import (
    ProgressPoint,
    RunFinished,
    TrackedAttempt,
    TrackedChain,
    TrackedCheckpoint,
    TrackedRun,
    TrackedSplit,
)
from trainflow.tracking.mlflow_fields import DESCRIPTION, attempts_summary, chain_description, run_description

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = TrackedRun(
    TrackedChain("p"),
    "p",
    "r1",
    AT,
    links={"run": "http://h/dags/p/runs/r1", "chain": "http://h/chains/p/main/main"},
    store="/data/checkpoints",
)
ATTEMPTS = [
    TrackedAttempt("train", 1, "lost", AT, 3.0, "gpu1", "killed | by a signal\npassword=geheim"),
    TrackedAttempt("train", 2, "preempted", AT, 1.0, "gpu2"),
    TrackedAttempt("train", 3, "success", AT, 9.0, "gpu2"),
    TrackedAttempt("samples", 1, "success", AT, 1.0, "gpu2"),
]
FINISHED = RunFinished(
    RUN,
    "success",
    AT,
    split=TrackedSplit(AT, AT, 1, "sha256:ab"),
    checkpoint=TrackedCheckpoint("c", 27, "file:///c", AT, partitions=80),
    attempts=ATTEMPTS,
    note="done",
    progress={"loss": [ProgressPoint(100.0, 0.5, 7), ProgressPoint(200.0, 0.4, 8)]},
)


def test_description_leads_back_to_the_page_of_the_run() -> None:
    assert run_description(FINISHED).startswith(
        "[p: r1](http://h/dags/p/runs/r1) in trainflow\n\ndone\n\nCheckpoint 27"
    )
    assert chain_description(RUN) == {DESCRIPTION: "[p/main/main](http://h/chains/p/main/main) in trainflow"}
    unknown = msgspec.structs.replace(RUN, links={})
    assert chain_description(unknown) == {}
    assert "in trainflow" not in run_description(msgspec.structs.replace(FINISHED, run=unknown))


def test_description_lists_all_attempts_of_tasks_that_had_trouble() -> None:
    lines = run_description(FINISHED).splitlines()
    assert [line.split(" | ")[:2] for line in lines if line.startswith("| train")] == [
        ["| train #1", "lost"],
        ["| train #2", "preempted"],
        ["| train #3", "success"],
    ]
    assert not any(line.startswith("| samples") for line in lines)
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines if line.startswith("|"))
    assert attempts_summary(FINISHED) == "2 success, 1 lost, 1 preempted"
    assert mlflow_fields.finished_tags(FINISHED)["trainflow.attempts"] == "2 success, 1 lost, 1 preempted"


def test_fields_have_the_store_and_partitions_of_the_line() -> None:
    assert mlflow_fields.run_tags(RUN)["trainflow.store"] == "/data/checkpoints"
    (point,) = [point for point in mlflow_fields.chain_points(FINISHED) if point.name == "chain/partitions"]
    assert (point.value, point.step) == (80.0, 27)


def test_progress_is_a_curve_over_how_far_the_training_was() -> None:
    points = mlflow_fields.progress_points(FINISHED)
    assert [(point.name, point.value, point.step, point.timestamp) for point in points] == [
        ("progress/loss", 0.5, 100, 7),
        ("progress/loss", 0.4, 200, 8),
    ]


def test_progress_of_attempts_that_did_not_end_well_are_curves_of_their_own() -> None:
    told = {"loss": [ProgressPoint(1e300, None, 5)]}
    attempts = [ATTEMPTS[0], msgspec.structs.replace(ATTEMPTS[1], progress=told), *ATTEMPTS[2:]]
    points = mlflow_fields.progress_points(msgspec.structs.replace(FINISHED, attempts=attempts, progress={}))
    assert [(point.name, point.step, point.timestamp) for point in points] == [("progress/attempt 2/loss", 2**53, 5)]
    assert math.isnan(points[0].value)


def test_mark_of_a_delivery_is_the_same_whether_its_page_is_known_or_not() -> None:
    unknown = msgspec.structs.replace(FINISHED, run=msgspec.structs.replace(RUN, links={}))
    assert mlflow_fields.delivered_mark(unknown) == mlflow_fields.delivered_mark(FINISHED)
