from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflow.tracking import mlflow_fields
from trainflow.tracking.deliveries import (
    RunFinished,
    RunStarted,
    TrackedChain,
    TrackedCheckpoint,
    TrackedRun,
    TrackedSplit,
)
from trainflow.tracking.names import (
    DELIVERED,
    MAX_NAME,
    RUN_KEY,
    chain_key,
    flatten,
    iso,
    milliseconds,
    run_key,
    safe_name,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
WATERMARK = datetime(2013, 1, 15, tzinfo=UTC)
RUN = TrackedRun(
    TrackedChain("p", store="s3://id:geheim@host/c"),
    "p",
    "manual__1",
    AT,
    3,
    {"lr": 0.1, "db": {"password": "geheim", "url": "mysql://a:geheim@b"}},
    {"run": "http://me:geheim@x/run/1"},
)
SPLIT = TrackedSplit(
    datetime(2013, 1, 1, tzinfo=UTC),
    WATERMARK,
    14,
    "sha256:" + "ab" * 32,
    100,
    2000,
    1,
    "s3://id:geheim@data/x",
    lag_partitions=3,
    lag_seconds=3 * 86_400.0,
)
FINISHED = RunFinished(
    RUN,
    "success",
    AT + timedelta(seconds=90),
    split=SPLIT,
    evaluation={"auc": 0.7, "odd": None},
    training={"loss": 0.3},
    checkpoint=TrackedCheckpoint("c1", 7, "s3://id:geheim@host/c/1", WATERMARK),
)


def test_chain_has_one_key_store_and_run_one_key_chain() -> None:
    chains = [TrackedChain("p"), TrackedChain("p", "fine"), TrackedChain("p", branch="b"), TrackedChain("p", store="x")]
    runs = [msgspec.structs.replace(RUN, chain=chain) for chain in chains]
    assert len({chain_key(chain) for chain in chains} | {run_key(run) for run in runs}) == 8
    cleared = msgspec.structs.replace(RUN, started_at=AT + timedelta(days=1), params={})
    assert run_key(cleared) == run_key(RUN)


def test_record_sends_no_secret() -> None:
    everything = [
        mlflow_fields.params(RUN), mlflow_fields.run_tags(RUN), mlflow_fields.chain_tags(RUN),
        mlflow_fields.finished_tags(FINISHED), mlflow_fields.head_tags(FINISHED), mlflow_fields.dataset(FINISHED),
    ]  # fmt: skip
    assert "geheim" not in repr(everything)
    assert mlflow_fields.params(RUN) == {"lr": "0.1", "db.password": "***", "db.url": "mysql://a:***@b"}


def test_filter_keys_are_on_parent_and_child() -> None:
    child, parent = mlflow_fields.run_tags(RUN), mlflow_fields.chain_tags(RUN)
    shared = {f"trainflow.{name}" for name in ("pipeline", "stage", "branch", "store", "dag_id")}
    assert shared <= child.keys() & parent.keys()
    assert child[RUN_KEY] != parent[RUN_KEY]
    assert child["trainflow.run_id"] == "manual__1"
    assert child["trainflow.link.run"] == "http://me:***@x/run/1"


def test_end_names_checkpoint_and_split_and_head() -> None:
    tags = mlflow_fields.finished_tags(FINISHED)
    assert tags["trainflow.checkpoint"] == "7"
    assert tags["trainflow.watermark"] == tags["trainflow.split_end"] == "2013-01-15T00:00:00Z"
    assert tags["trainflow.holes"] == "1"
    assert tags["trainflow.state"] == "success"
    assert mlflow_fields.head_tags(FINISHED)["trainflow.head_checkpoint"] == "7"


def test_run_that_committed_nothing_moves_no_head_and_adds_nothing_to_curve() -> None:
    failed = msgspec.structs.replace(FINISHED, state="failed", checkpoint=None)
    assert mlflow_fields.chain_points(failed) == []
    assert "trainflow.head_checkpoint" not in mlflow_fields.head_tags(failed)
    assert {point.step for point in mlflow_fields.run_points(failed)} == {0}
    assert mlflow_fields.head_tags(failed)["trainflow.last_state"] == "failed"


def test_curve_has_sequence_as_step_and_watermark_as_time() -> None:
    points = {point.name: point for point in mlflow_fields.chain_points(FINISHED)}
    assert points["prequential/auc"] == ("prequential/auc", 0.7, 7, milliseconds(WATERMARK))
    assert math.isnan(points["prequential/odd"].value)
    assert points["train/loss"].value == 0.3
    assert points["samples/rows"].value == 100
    assert (points["samples/lag_partitions"].value, points["samples/lag_seconds"].value) == (3, 3 * 86_400)
    assert points["run/seconds"].value == 90


def test_curve_has_no_time_of_run_that_ended_before_it_began() -> None:
    """The clock was set back meanwhile."""
    back = msgspec.structs.replace(FINISHED, ended_at=AT - timedelta(hours=1))
    names = [point.name for point in mlflow_fields.chain_points(back)]
    assert "train/loss" in names
    assert "run/seconds" not in names


def test_points_do_not_depend_on_when_they_are_delivered() -> None:
    later = msgspec.structs.replace(FINISHED, note="again")
    assert repr(mlflow_fields.chain_points(later)) == repr(mlflow_fields.chain_points(FINISHED))


def test_record_metrics_have_prefixes() -> None:
    assert all("/" in point.name for point in mlflow_fields.run_points(FINISHED))


def test_record_many_partitions_are_one_dataset() -> None:
    entry = mlflow_fields.dataset(FINISHED)
    assert entry is not None
    assert len(entry.digest) <= 36
    assert json.loads(entry.profile)["digest"] == SPLIT.digest
    assert json.loads(entry.source) == {"uri": "s3://id:***@data/x"}
    assert entry.source_type == "s3"
    assert mlflow_fields.dataset(msgspec.structs.replace(FINISHED, split=None)) is None


def test_marks_differ_by_kind_and_content() -> None:
    again = msgspec.structs.replace(FINISHED, ended_at=AT + timedelta(days=1))
    marks = {mlflow_fields.delivered_mark(delivery) for delivery in (RunStarted(RUN), FINISHED, again)}
    assert len(marks) == 3
    assert mlflow_fields.with_mark({"a": "b"}, FINISHED) == {
        "a": "b",
        DELIVERED: mlflow_fields.delivered_mark(FINISHED),
    }


def test_params_are_flat_and_scalars_look_as_mlflow_writes_them() -> None:
    params = {"lr": 0.1, "n": 3, "on": True, "none": None, "sizes": [1, 2], "m": {"a": {"b": "x"}, "empty": {}}}
    assert flatten(params) == {
        "lr": "0.1", "n": "3", "on": "True", "none": "None", "sizes": "[1, 2]", "m.a.b": "x", "m.empty": "{}",
    }  # fmt: skip
    assert len(flatten({"long": "x" * 10_000})["long"]) == 6000


@pytest.mark.parametrize(
    ("name", "safe"),
    [("auc@10", "auc_10"), ("a/b", "a/b"), ("/a", "_a"), ("a//b", "a__b"), ("../a", "__a"), (".", "_"), ("", "_")],
)
def test_names_mlflow_refuses_are_mended(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_times_are_written_in_utc() -> None:
    assert iso(datetime(2013, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == "2013-01-01T00:00:00Z"
    assert milliseconds(datetime(1900, 1, 1, tzinfo=UTC)) == 0


@given(st.text(max_size=300))
def test_safe_name_is_short_and_stays_as_it_is(name: str) -> None:
    safe = safe_name(name)
    assert 0 < len(safe) <= 250
    assert safe_name(safe) == safe


def test_long_names_that_differ_at_the_end_stay_two() -> None:
    one, other = (safe_name("recall/" + "x" * 300 + end) for end in "ab")
    assert one != other
    assert len(one) == len(other) == MAX_NAME
